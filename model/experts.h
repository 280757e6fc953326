// The experts of a mixture on the rows of each, as one autograd node: no copy of a row that is not a
// result, no mask, activations made again in the backward pass.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

namespace dsa {

struct ExpertWeights {
  at::Tensor in, out;  ///< [width, d_model], [d_model, width]
};

/// Linear, SiLU, dropout, linear: each expert on its own rows. Differentiable in rows and weights.
/// @param rows    [N, d_model], sorted by expert
/// @param counts  int64 [experts] on the CPU: rows of each
at::Tensor apply_experts(const at::Tensor& rows, const std::vector<ExpertWeights>& experts,
                         const at::Tensor& counts, double dropout, bool is_training);

/// out[t] = sum_a shares[t, a] * rows[places[t, a]]. Differentiable in rows and shares.
/// @param places  int64 [tokens * copies], all different; other rows have no gradient
/// @param shares  [tokens, copies]
at::Tensor mix_experts(const at::Tensor& rows, const at::Tensor& places, const at::Tensor& shares);

}  // namespace dsa
