// Dense causal attention with dropout of its probabilities, as training the seed's dense model has it.
#pragma once
#include "attention/rows.h"

namespace dsa {

/// out = dropout(softmax(scale * q k^T)) v, a few sequences at a time: no matrix of all pairs, and no
/// mask, outlives them. In float32 for bfloat16 inputs too. Differentiable in q, k and v.
/// @param q, k, v  [B, T, H, D]
at::Tensor dropped_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             double scale, const rows::Dropping& dropping);

}  // namespace dsa
