#include "tests/shapes.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace dsa::testing {

AttentionInputs attention_inputs(const Shape& x, uint64_t seed, c10::ScalarType dtype) {
  const at::Generator g = at::detail::createCPUGenerator(seed);
  return {randn({x.B, x.T, x.H, x.D}, g, dtype), randn({x.B, x.S, x.G, x.D}, g, dtype),
          randn({x.B, x.S, x.G, x.V}, g, dtype), 1.0 / std::sqrt(static_cast<double>(x.D))};
}

IndexerInputs indexer_inputs(const Shape& x, uint64_t seed, c10::ScalarType dtype) {
  const at::Generator g = at::detail::createCPUGenerator(seed);
  return {randn({x.B, x.T, x.I, x.J}, g, dtype), randn({x.B, x.S, x.J}, g, dtype),
          randn({x.B, x.T, x.I}, g, dtype)};
}

IndexerInputs integer_indexer_inputs(const Shape& x, uint64_t seed, c10::ScalarType dtype) {
  const at::Generator g = at::detail::createCPUGenerator(seed);
  const auto whole = [&](at::IntArrayRef sizes) {
    return at::randint(-2, 3, sizes, g, at::TensorOptions().dtype(at::kDouble)).to(dtype);
  };
  return {whole({x.B, x.T, x.I, x.J}), whole({x.B, x.S, x.J}), whole({x.B, x.T, x.I})};
}

ops::Selection random_selection(const Shape& x, uint64_t seed) {
  ops::Selection result{at::full({x.B, x.T, x.K}, -1, at::kInt), at::empty({x.B, x.T}, at::kInt)};
  std::mt19937_64 random(seed);
  std::vector<int32_t> ids;
  for (int64_t row = 0; row < x.B * x.T; ++row) {
    ids.resize(static_cast<size_t>(row % x.T + x.S - x.T + 1));
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), random);
    ids.resize(std::min(ids.size(), static_cast<size_t>(x.K)));
    std::sort(ids.begin(), ids.end());
    std::copy(ids.begin(), ids.end(), result.indices.data_ptr<int32_t>() + row * x.K);
    result.count.data_ptr<int32_t>()[row] = static_cast<int32_t>(ids.size());
  }
  return result;
}

}  // namespace dsa::testing
