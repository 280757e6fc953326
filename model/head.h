// The tied head: hidden states to losses, without ever keeping the logits of all tokens.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <cstdint>

namespace dsa {

struct HeadOutput {
  at::Tensor loss;          ///< scalar, mean nats over scored tokens; 0 if none is scored
  at::Tensor token_losses;  ///< float32 [N], nats, 0 where not scored; no gradient
  at::Tensor correct;       ///< bool [N], the target has the largest logit; no gradient
};

inline constexpr int64_t kNotScored = -100;

/// One matrix, two uses: the gradient of the head's use, to which that of the embedding's is added in
/// place. As two edges of a graph they would need a second matrix and a sum.
struct TiedGradient : torch::CustomClassHolder {
  at::Tensor of_head;
};

/// Rows of the embedding. Its backward pass comes after that of the head that was given `tied`, and
/// returns the gradient of both.
/// @param tokens  int64 [B, T]
at::Tensor look_up(const at::Tensor& weight, const at::Tensor& tokens,
                   const c10::intrusive_ptr<TiedGradient>& tied);

/// Cross-entropy of softmax(hidden * weight^T) against the targets, `chunk` tokens at a time.
/// Differentiable in hidden and weight. When a gradient will be wanted, it is made in the forward
/// pass from the logits at hand: three matrix products instead of the four of a recomputation.
/// Memory beyond inputs and gradients: chunk * V values.
/// @param hidden   [N, d]; in bfloat16 the products are, sums of losses and gradients are float32
/// @param weight   [V, d]
/// @param targets  int64 [N], in [0, V), or kNotScored
/// @param chunk    0: at most 96 MiB of logits
/// @param tied     where weight is an embedding too: keeps its gradient for look_up's backward pass
/// @throws Error naming the first target outside its range
HeadOutput linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                                const at::Tensor& targets, int64_t chunk,
                                const c10::intrusive_ptr<TiedGradient>& tied = {});

}  // namespace dsa
