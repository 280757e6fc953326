#include "attention/weights.h"

#include <ATen/Functions.h>

#include <cmath>
#include <limits>

namespace dsa {

at::Tensor linear_weight(int64_t out, int64_t in, const std::optional<at::Generator>& generator) {
  const double bound = 1.0 / std::sqrt(static_cast<double>(in));
  return at::empty({out, in}, at::kFloat).uniform_(-bound, bound, generator);
}

at::Tensor project(const at::Tensor& x, const at::Tensor& weight) {
  return at::linear(x, weight.to(x.scalar_type()));
}

uint64_t drawn_seed() {
  const at::Tensor drawn =
      at::randint(std::numeric_limits<int64_t>::max(), {1}, at::TensorOptions(at::kLong));
  return static_cast<uint64_t>(drawn.item<int64_t>());
}

}  // namespace dsa
