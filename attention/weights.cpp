#include "attention/weights.h"

#include <ATen/Functions.h>

#include <cmath>

namespace dsa {

at::Tensor linear_weight(int64_t out, int64_t in, const std::optional<at::Generator>& generator) {
  const double bound = 1.0 / std::sqrt(static_cast<double>(in));
  return at::empty({out, in}, at::kFloat).uniform_(-bound, bound, generator);
}

at::Tensor project(const at::Tensor& x, const at::Tensor& weight) {
  return at::linear(x, weight.to(x.scalar_type()));
}

}  // namespace dsa
