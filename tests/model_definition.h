// Pieces of the attention layers written as their definitions say, on whole matrices, for torch's own
// autograd to differentiate: what layers are compared with.
#pragma once
#include "tests/model_fixture.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>

#include <cmath>
#include <map>
#include <vector>

namespace dsa::testing {

inline at::Tensor normal_values(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::kDouble);
}

/// The leading `width` columns of x [B, T, D] or [B, T, H, D] turned pair by pair, base 10000.
inline at::Tensor turned_pairs(const at::Tensor& x, int64_t width, const std::string& layout) {
  auto columns = x.unbind(-1);
  at::Tensor position = at::arange(x.size(1), at::kDouble);
  if (x.dim() == 4) position = position.unsqueeze(1);
  for (int64_t i = 0; i < width / 2; ++i) {
    const double frequency =
        std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(width));
    const at::Tensor angle = position * frequency;
    const bool neighbours = layout == "interleaved";
    const auto a = static_cast<size_t>(neighbours ? 2 * i : i),
               b = static_cast<size_t>(neighbours ? 2 * i + 1 : i + width / 2);
    const at::Tensor first = columns[a], second = columns[b];
    columns[a] = first * angle.cos() - second * angle.sin();
    columns[b] = first * angle.sin() + second * angle.cos();
  }
  return at::stack(columns, -1);
}

/// bool [B, L, L]: keys that are not in the future.
inline at::Tensor visible_pairs_of(int64_t batch, int64_t length) {
  return at::ones({length, length}, at::kBool).tril_().expand({batch, length, length});
}

/// bool [B, L, L]: keys in the selection.
inline at::Tensor pairs_in(const ops::Selection& selection) {
  const at::Tensor ids = selection.indices.to(at::kLong);
  const int64_t length = ids.size(1);
  at::Tensor mask = at::zeros({ids.size(0), length, length + 1}, at::kBool);
  mask.scatter_(2, ids.masked_fill(ids < 0, length), true);  // the last column takes the padding
  return mask.slice(2, 0, length);
}

/// softmax over `allowed` [B, T, S], 0 elsewhere.
inline at::Tensor softmax_over(const at::Tensor& logits, const at::Tensor& allowed) {
  return at::softmax(logits.masked_fill(allowed.logical_not(), -INFINITY), -1);
}

/// Lightning-indexer scores [B, T, S] of whole matrices.
inline at::Tensor whole_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight) {
  const at::Tensor products = at::relu(at::einsum("btij,bsj->btis", {q, k}));
  return (products * weight.unsqueeze(-1)).sum(2);
}

/// Mean over queries of KL(target || softmax of scores over `allowed`).
inline at::Tensor whole_kl(const at::Tensor& scores, const at::Tensor& target,
                           const at::Tensor& allowed) {
  const at::Tensor log_p = at::log_softmax(scores.masked_fill(allowed.logical_not(), -INFINITY), -1)
                               .masked_fill(allowed.logical_not(), 0);
  return (at::xlogy(target, target) - target * log_p).sum(-1).mean();
}

/// Of the whole tensor, which is what an update sees.
inline double norm_error(const at::Tensor& found, const at::Tensor& exact) {
  const at::Tensor wide = exact.to(at::kDouble);
  return ((found.to(at::kDouble) - wide).norm() / wide.norm()).item<double>();
}

}  // namespace dsa::testing
