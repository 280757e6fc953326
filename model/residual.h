// What stands between branches of a transformer: the norm that a branch reads through, and the sum that
// takes its result. The residual stream keeps its precision; branches compute in one of their own.
#pragma once
#include <ATen/core/Tensor.h>

namespace dsa {

/// x / sqrt(mean(x^2) + epsilon) * scale over the last dimension, statistics in float32 or better.
/// Differentiable in x and scale.
/// @param type  of the result: that of x, or bfloat16
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& scale, double epsilon,
                    at::ScalarType type);

/// x + dropout(branch), of x's type. Differentiable in both; remembers no mask.
at::Tensor add_branch(const at::Tensor& x, const at::Tensor& branch, double dropout,
                      bool is_training);

}  // namespace dsa
