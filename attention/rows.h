// Row operations of a transformer, fused, for float32 and bfloat16 on the CPU. No autograd: model/ and
// layers make forward and backward passes of them. Everything is exact to rounding and the same bits
// for any number of threads.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace dsa::rows {

/// Are there kernels for it? Else take torch's operations.
bool serves(const at::Tensor& x);

/// Dropout without a mask: which values fall is a function of the seed and the place.
struct Dropping {
  double probability = 0;
  uint64_t seed = 0;
};
/// Takes the seed from torch's generator, if anything is to be dropped.
Dropping dropping(double probability, bool is_training);

/// Losses and hits of rows of logits.
/// @param logits   [N, V]; with_gradient: become share * d loss / d logits
/// @param targets  int64 [N]; negative: not scored
/// @param losses   float32 [N], nats; 0 where not scored
/// @param correct  bool [N]: the target's is the largest logit, and the first of that size
void cross_entropy(at::Tensor& logits, const at::Tensor& targets, double share, bool with_gradient,
                   const at::Tensor& losses, const at::Tensor& correct);

/// x / sqrt(mean(x^2) + epsilon) * scale over the last dimension.
/// @param x        float32, contiguous
/// @param factors  float32, one a row: for the backward pass
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& scale, double epsilon,
                    at::ScalarType type, const at::Tensor& factors);
struct NormGradients {
  at::Tensor dx, dscale;
};
NormGradients rms_norm_backward(const at::Tensor& dout, const at::Tensor& x,
                                const at::Tensor& scale, const at::Tensor& factors);

/// Turns the pairs of the leading 2 * cos.size(-1) values of every head.
/// @param x         [B, T, heads, D], its last two dimensions contiguous
/// @param cos, sin  float32 [T, 1, pairs]
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                  bool interleaved, double direction);

/// x + dropped(branch), float32.
at::Tensor add_dropped(const at::Tensor& x, const at::Tensor& branch, const Dropping& dropping);
/// sum += part, in place; torch's own sum of a float32 and a bfloat16 tensor is 5 times slower.
/// @param sum  float32, contiguous
void add_to(const at::Tensor& sum, const at::Tensor& part);
/// The float32 x with the same values dropped, as `type`: the backward pass of the branch.
at::Tensor dropped(const at::Tensor& x, const Dropping& dropping, at::ScalarType type);

/// dropped(silu(x)) of [N, n], and its backward pass. `first` is the number of the first row.
void silu_dropped(const at::Tensor& x, const Dropping& dropping, int64_t first, at::Tensor& out);
void silu_dropped_backward(const at::Tensor& x, const at::Tensor& dout, const Dropping& dropping,
                           int64_t first, at::Tensor& dx);

/// out[t] = sum_a shares[t, a] * rows[places[t, a]], [N, n] from [N * A or more, n]. Rows without a
/// place get zero gradients.
at::Tensor mix(const at::Tensor& rows, const at::Tensor& places, const at::Tensor& shares);
struct MixGradients {
  at::Tensor drows, dshares;
};
MixGradients mix_backward(const at::Tensor& dout, const at::Tensor& rows, const at::Tensor& places,
                          const at::Tensor& shares);

/// Attention probabilities: causal softmax of scale * scores, some dropped, in place.
/// @param scores  float32 [H, T, T] of one sequence
/// @param lse     float32 [H, T], natural
/// @param first   number of its first row in the batch
void softmax_dropped(at::Tensor& scores, double scale, const Dropping& dropping, int64_t first,
                     const at::Tensor& lse);
/// scores become the probabilities again, dout their gradient becomes that of the unscaled scores.
/// @param delta  float32 [H, T], the output times its gradient, summed
void softmax_dropped_backward(at::Tensor& scores, at::Tensor& dout, double scale,
                              const Dropping& dropping, int64_t first, const at::Tensor& lse,
                              const at::Tensor& delta);

}  // namespace dsa::rows
