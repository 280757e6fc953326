// How every weight matrix of the project starts.
#pragma once
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>

namespace dsa {

/// [out, in] drawn from U(-1/sqrt(in), 1/sqrt(in)), PyTorch's own start of a linear layer, so that
/// the seed's run starts where the original does. Without a generator: torch's default one.
at::Tensor linear_weight(int64_t out, int64_t in,
                         const std::optional<at::Generator>& generator = std::nullopt);

/// x times the transposed weight, of x's type: a weight is float32 also where products are bfloat16.
at::Tensor project(const at::Tensor& x, const at::Tensor& weight);

/// From torch's default generator: the seed of what must not depend on how much the rest has drawn.
uint64_t drawn_seed();

}  // namespace dsa
