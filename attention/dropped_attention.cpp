#include "attention/dropped_attention.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

namespace dsa {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kScoreBytes = int64_t{2} << 20;  ///< stays in the caches

/// Some sequences of a batch, their heads as one dimension.
class Chunks {
 public:
  explicit Chunks(const at::Tensor& q) : batch_(q.size(0)), length_(q.size(1)), heads_(q.size(2)) {
    const int64_t bytes = heads_ * length_ * length_ * static_cast<int64_t>(sizeof(float));
    at_once_ = std::clamp<int64_t>(kScoreBytes / bytes, 1, batch_);
  }
  /// work(first sequence, sequences)
  template <class Work>
  void for_each(const Work& work) const {
    for (int64_t b = 0; b < batch_; b += at_once_) work(b, std::min(at_once_, batch_ - b));
  }
  /// [n * H, T, D], float32
  at::Tensor heads_first(const at::Tensor& x, int64_t b, int64_t n) const {
    const at::Tensor part = x.narrow(0, b, n).transpose(1, 2);
    return part.to(at::kFloat, /*non_blocking=*/false, /*copy=*/false, at::MemoryFormat::Contiguous)
        .reshape({n * heads_, length_, x.size(3)});
  }
  void put(const at::Tensor& heads_first, const at::Tensor& to, int64_t b, int64_t n) const {
    to.narrow(0, b, n).copy_(heads_first.unflatten(0, {n, heads_}).transpose(1, 2));
  }
  at::Tensor scores(int64_t n) const {
    return at::empty({n * heads_, length_, length_}, at::kFloat);
  }
  at::Tensor rows(const at::Tensor& of_batch, int64_t b, int64_t n) const {
    return of_batch.narrow(0, b, n).flatten(0, 1);
  }
  int64_t first_row(int64_t b) const { return b * heads_ * length_; }

 private:
  int64_t batch_, length_, heads_, at_once_;
};

struct DroppedAttention : torch::autograd::Function<DroppedAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, double scale, const rows::Dropping& dropping) {
    const Chunks chunks(q);
    const at::Tensor out = at::empty(v.sizes(), v.options());
    const at::Tensor lse = at::empty({q.size(0), q.size(2), q.size(1)}, at::kFloat);
    chunks.for_each([&](int64_t b, int64_t n) {
      at::Tensor scores = chunks.scores(n);
      at::bmm_out(scores, chunks.heads_first(q, b, n), chunks.heads_first(k, b, n).transpose(1, 2));
      rows::softmax_dropped(scores, scale, dropping, chunks.first_row(b), chunks.rows(lse, b, n));
      chunks.put(at::bmm(scores, chunks.heads_first(v, b, n)), out, b, n);
    });
    context->save_for_backward({q, k, v, out, lse});
    context->saved_data["scale"] = scale;
    context->saved_data["probability"] = dropping.probability;
    context->saved_data["seed"] = static_cast<int64_t>(dropping.seed);
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2];
    const double scale = context->saved_data["scale"].toDouble();
    const rows::Dropping dropping{context->saved_data["probability"].toDouble(),
                                  static_cast<uint64_t>(context->saved_data["seed"].toInt())};
    const Chunks chunks(q);
    const at::Tensor dq = at::empty(q.sizes(), q.options()), dk = at::empty(k.sizes(), k.options());
    const at::Tensor dv = at::empty(v.sizes(), v.options());
    chunks.for_each([&](int64_t b, int64_t n) {
      const at::Tensor queries = chunks.heads_first(q, b, n), keys = chunks.heads_first(k, b, n);
      const at::Tensor dout = chunks.heads_first(gradients[0], b, n);
      const at::Tensor delta = (dout * chunks.heads_first(saved[3], b, n)).sum(-1);
      at::Tensor scores = chunks.scores(n), d_scores = chunks.scores(n);
      at::bmm_out(scores, queries, keys.transpose(1, 2));
      at::bmm_out(d_scores, dout, chunks.heads_first(v, b, n).transpose(1, 2));
      rows::softmax_dropped_backward(scores, d_scores, scale, dropping, chunks.first_row(b),
                                     chunks.rows(saved[4], b, n), delta);
      chunks.put(at::bmm(scores.transpose(1, 2), dout), dv, b, n);
      chunks.put(at::bmm(d_scores, keys), dq, b, n);
      chunks.put(at::bmm(d_scores.transpose(1, 2), queries), dk, b, n);
    });
    return {dq, dk, dv, {}, {}};
  }
};

}  // namespace

at::Tensor dropped_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             double scale, const rows::Dropping& dropping) {
  return DroppedAttention::apply(q, k, v, scale, dropping);
}

}  // namespace dsa
