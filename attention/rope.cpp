// Rotation as one autograd node: its backward is the rotation by the opposite angle, so nothing but
// the angle tables is kept.
#include "attention/rope.h"

#include "attention/rows.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

namespace dsa {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// First or second member of every pair, as a view.
at::Tensor pair_member(const at::Tensor& x, RopeLayout layout, int64_t width, int64_t which) {
  if (layout == RopeLayout::kInterleaved) return x.slice(-1, which, width, 2);
  return x.narrow(-1, which * (width / 2), width / 2);
}

at::Tensor rotated(const at::Tensor& x_in, const at::Tensor& cos, const at::Tensor& sin,
                   RopeLayout layout, double direction) {
  if (rows::serves(x_in)) {
    const bool whole_tokens = x_in.stride(3) == 1 && x_in.stride(2) == x_in.size(3);
    const at::Tensor x = whole_tokens ? x_in : x_in.contiguous();
    return rows::rotate(x, cos, sin, layout == RopeLayout::kInterleaved, direction);
  }
  const at::Tensor& x = x_in;
  const int64_t width = 2 * cos.size(-1);
  at::Tensor out = at::empty_like(x, at::MemoryFormat::Contiguous);
  const at::Tensor first = pair_member(x, layout, width, 0);
  const at::Tensor second = pair_member(x, layout, width, 1);
  at::Tensor out_first = pair_member(out, layout, width, 0);
  at::Tensor out_second = pair_member(out, layout, width, 1);
  at::mul_out(out_first, first, cos);
  out_first.addcmul_(second, sin, -direction);
  at::mul_out(out_second, second, cos);
  out_second.addcmul_(first, sin, direction);
  const int64_t rest = x.size(-1) - width;
  if (rest > 0) out.narrow(-1, width, rest).copy_(x.narrow(-1, width, rest));
  return out;
}

struct Rotate : torch::autograd::Function<Rotate> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cos,
                            const at::Tensor& sin, int64_t layout) {
    context->save_for_backward({cos, sin});
    context->saved_data["layout"] = layout;
    return rotated(x, cos, sin, static_cast<RopeLayout>(layout), 1.0);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const auto layout = static_cast<RopeLayout>(context->saved_data["layout"].toInt());
    return {rotated(gradients[0], saved[0], saved[1], layout, -1.0), {}, {}, {}};
  }
};

}  // namespace

RopeLayout rope_layout(const std::string& name, const char* field) {
  require(name == "half_split" || name == "interleaved", field, " is \"", name,
          "\"; it can be half_split or interleaved");
  return name == "half_split" ? RopeLayout::kHalfSplit : RopeLayout::kInterleaved;
}

double stretched_rope_base(double base, int64_t width, double factor) {
  require(width > 2 && factor >= 1, "RoPE of ", width, " dimensions cannot be stretched ", factor,
          " times; it takes more than 2, and a factor of at least 1");
  return base * std::pow(factor, static_cast<double>(width) / static_cast<double>(width - 2));
}

Rope::Rope(RopeLayout layout, int64_t width, double base)
    : layout_(layout), width_(width), base_(base) {
  require(width >= 0 && width % 2 == 0, "RoPE turns pairs: its width is ", width,
          " and must be even");
}

at::Tensor Rope::operator()(const at::Tensor& x, const at::Tensor& positions) {
  require(width_ <= x.size(-1), "RoPE turns ", width_, " dimensions but a head has ", x.size(-1));
  if (width_ == 0) return x;
  prepare(positions, x);
  return Rotate::apply(x, cos_, sin_, static_cast<int64_t>(layout_));
}

void Rope::prepare(const at::Tensor& positions, const at::Tensor& like) {
  const at::ScalarType type = rows::serves(like) ? at::kFloat : like.scalar_type();
  const bool fits = positions_.defined() && cos_.scalar_type() == type &&
                    positions_.device() == positions.device() && positions_.equal(positions);
  if (fits) return;
  const auto options = positions.options().dtype(at::kDouble);
  const at::Tensor exponent = at::arange(0, width_, 2, options) / -static_cast<double>(width_);
  const at::Tensor frequency = at::pow(at::Scalar(base_), exponent);
  const at::Tensor angle = (positions.to(at::kDouble).unsqueeze(1) * frequency).unsqueeze(1);
  cos_ = angle.cos().to(type);
  sin_ = angle.sin().to(type);
  positions_ = positions;
}

}  // namespace dsa
