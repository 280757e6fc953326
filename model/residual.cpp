#include "model/residual.h"

#include "attention/rows.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/custom_function.h>

namespace dsa {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_in,
                            const at::Tensor& scale, double epsilon, at::ScalarType type) {
    const at::Tensor x = x_in.contiguous();
    const at::Tensor factors = at::empty({x.numel() / x.size(-1)}, x.options());
    context->save_for_backward({x, scale, factors});
    return rows::rms_norm(x, scale, epsilon, type, factors);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const rows::NormGradients g =
        rows::rms_norm_backward(gradients[0].contiguous(), saved[0], saved[1], saved[2]);
    return {g.dx, g.dscale, {}, {}};
  }
};

struct AddDropped : torch::autograd::Function<AddDropped> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& branch,
                            const rows::Dropping& dropping) {
    context->saved_data["probability"] = dropping.probability;
    context->saved_data["seed"] = static_cast<int64_t>(dropping.seed);
    context->saved_data["type"] = static_cast<int64_t>(branch.scalar_type());
    return rows::add_dropped(x.contiguous(), branch.contiguous(), dropping);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const rows::Dropping dropping{context->saved_data["probability"].toDouble(),
                                  static_cast<uint64_t>(context->saved_data["seed"].toInt())};
    const auto type = static_cast<at::ScalarType>(context->saved_data["type"].toInt());
    return {gradients[0], rows::dropped(gradients[0].contiguous(), dropping, type), {}};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& scale, double epsilon,
                    at::ScalarType type) {
  const bool served = rows::serves(x) && x.scalar_type() == at::kFloat;
  if (!served) return at::rms_norm(x, scale.sizes(), scale, epsilon).to(type);
  return RmsNormFunction::apply(x, scale, epsilon, type);
}

at::Tensor add_branch(const at::Tensor& x, const at::Tensor& branch, double dropout,
                      bool is_training) {
  const bool drops = is_training && dropout > 0;
  const bool served = rows::serves(branch) && rows::serves(x) && x.scalar_type() == at::kFloat;
  if (!drops || !served) return x + at::dropout(branch, dropout, is_training);
  return AddDropped::apply(x, branch, rows::dropping(dropout, is_training));
}

}  // namespace dsa
