// The tied head: hidden states to losses, without ever keeping the logits of all tokens.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace dsa {

struct HeadOutput {
  at::Tensor loss;          ///< scalar, mean nats over scored tokens; 0 if none is scored
  at::Tensor token_losses;  ///< float32 [N], nats, 0 where not scored; no gradient
  at::Tensor correct;       ///< bool [N], the target has the largest logit; no gradient
};

inline constexpr int64_t kNotScored = -100;

/// Cross-entropy of softmax(hidden * weight^T) against the targets, `chunk` tokens at a time.
/// Differentiable in hidden and weight. When a gradient will be wanted, it is made in the forward
/// pass from the logits at hand: three matrix products instead of the four of a recomputation.
/// Memory beyond inputs and gradients: chunk * V values.
/// @param hidden   [N, d]
/// @param weight   [V, d]
/// @param targets  int64 [N], in [0, V), or kNotScored
/// @param chunk    0: about 16 MiB of logits
/// @throws Error naming the first target outside its range
HeadOutput linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                                const at::Tensor& targets, int64_t chunk);

}  // namespace dsa
