// What the tests of the `cpu` backend's indexer and selection share: inputs, every machine, and the
// definitions as plain loops in float64. On integer-valued inputs every float32 sum is exact, so
// there ids and gradients must be equal, not close.
#pragma once
#include "attention/backend.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <random>

namespace select_test {

using dsa::ops::Selection;

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// Pins ISA and thread count for a scope.
struct Machine {
  Machine(const std::string& isa, int threads) : threads_before(at::get_num_threads()) {
    dsa::pin_isa(isa);
    at::set_num_threads(threads);
  }
  ~Machine() {
    dsa::pin_isa("auto");
    at::set_num_threads(threads_before);
  }
  int threads_before;
};

/// Runs `check` under every ISA of this machine with one thread and with two.
inline void on_every_machine(const std::function<void()>& check) {
  for (const std::string& isa : dsa::available_isas()) {
    for (const int threads : {1, 2}) {
      INFO("isa " << isa << ", threads " << threads);
      const Machine machine(isa, threads);
      REQUIRE(dsa::active_isa() == isa);
      check();
    }
  }
}

inline at::Tensor filled(at::IntArrayRef shape, const std::function<float(int64_t)>& value) {
  at::Tensor tensor = at::empty(shape, at::kFloat);
  auto* out = tensor.mutable_data_ptr<float>();
  for (int64_t i = 0; i < tensor.numel(); ++i) out[i] = value(i);
  return tensor;
}

inline at::Tensor gaussian(at::IntArrayRef shape, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  return filled(shape, [&](int64_t) { return normal(engine); });
}

/// Integers in -limit..limit.
inline at::Tensor integers(at::IntArrayRef shape, int limit, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::uniform_int_distribution<int> uniform(-limit, limit);
  return filled(shape, [&](int64_t) { return static_cast<float>(uniform(engine)); });
}

struct Shape {
  int64_t batch, queries, keys, top_k;
};

inline std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  return out << "B " << shape.batch << ", T " << shape.queries << ", S " << shape.keys << ", K "
             << shape.top_k;
}

/// The definition: best scores, ties to the smaller key, ascending, padded with -1.
template <class Score>
Selection oracle_selection(const Shape& shape, const Score& score) {
  Selection selection{at::full({shape.batch, shape.queries, shape.top_k}, -1, at::kInt),
                      at::empty({shape.batch, shape.queries}, at::kInt)};
  auto* ids = selection.indices.mutable_data_ptr<int32_t>();
  for (int64_t row = 0; row < shape.batch * shape.queries; ++row) {
    const int64_t visible = row % shape.queries + 1 + shape.keys - shape.queries;
    const int64_t count = std::min(shape.top_k, visible);
    std::vector<int32_t> order(static_cast<size_t>(visible));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return score(row, a) > score(row, b); });
    std::sort(order.begin(), order.begin() + count);
    std::copy_n(order.begin(), count, ids + row * shape.top_k);
    selection.count.mutable_data_ptr<int32_t>()[row] = static_cast<int32_t>(count);
  }
  return selection;
}

inline Selection oracle_top_k(const at::Tensor& scores, int64_t top_k) {
  const auto* data = scores.const_data_ptr<float>();
  const int64_t keys = scores.size(2);
  return oracle_selection({scores.size(0), scores.size(1), keys, top_k},
                          [=](int64_t row, int32_t s) { return data[row * keys + s]; });
}

inline void require_same(const Selection& found, const Selection& expected) {
  REQUIRE(at::equal(found.count, expected.count));
  const auto* a = found.indices.const_data_ptr<int32_t>();
  const auto* b = expected.indices.const_data_ptr<int32_t>();
  const int64_t n = expected.indices.numel(), top_k = expected.indices.size(2);
  const int64_t first = std::mismatch(a, a + n, b).first - a;
  INFO("row " << first / top_k << ", slot " << first % top_k);
  if (first < n) INFO("found " << a[first] << ", expected " << b[first]);
  REQUIRE(first == n);
}

/// An indexer's inputs, and the plain loops over them.
struct SelectInputs {
  at::Tensor q, k, weight;

  /// The same values in another element type; values that it cannot hold are rounded.
  SelectInputs as(at::ScalarType type) const { return {q.to(type), k.to(type), weight.to(type)}; }

  int64_t batch() const { return q.size(0); }
  int64_t queries() const { return q.size(1); }
  int64_t keys() const { return k.size(1); }
  int64_t heads() const { return q.size(2); }
  int64_t width() const { return q.size(3); }
  int64_t visible(int64_t t) const { return t + 1 + keys() - queries(); }
  // The definitions below read float32.
  const float* q_row(int64_t row, int64_t i) const {
    return q.const_data_ptr<float>() + (row * heads() + i) * width();
  }
  const float* k_row(int64_t b, int64_t s) const {
    return k.const_data_ptr<float>() + (b * keys() + s) * width();
  }
  double w(int64_t row, int64_t i) const {
    return weight.const_data_ptr<float>()[row * heads() + i];
  }
  double product(int64_t row, int64_t i, int64_t s) const {
    return std::inner_product(q_row(row, i), q_row(row, i) + width(), k_row(row / queries(), s),
                              0.0, std::plus<>(), [](double a, double b) { return a * b; });
  }
  double score(int64_t row, int64_t s) const {
    double sum = 0;
    for (int64_t i = 0; i < heads(); ++i) sum += w(row, i) * std::max(0.0, product(row, i, s));
    return sum;
  }
  /// The score of every pair, [batch * queries][keys].
  std::vector<double> scores() const {
    std::vector<double> all(static_cast<size_t>(batch() * queries() * keys()));
    for (size_t pair = 0; pair < all.size(); ++pair)
      all[pair] = score(static_cast<int64_t>(pair) / keys(), static_cast<int64_t>(pair) % keys());
    return all;
  }
  /// How far a float32 score may lie from the true one: the wrong-member rule of algorithm.md.
  double slack(int64_t row, int64_t s) const {
    double sum = 0;
    const auto norm = [&](const float* x) {
      return std::sqrt(std::inner_product(x, x + width(), x, 0.0));
    };
    for (int64_t i = 0; i < heads(); ++i) sum += std::abs(w(row, i)) * norm(q_row(row, i));
    return 4 * std::ldexp(1.0, -24) * std::sqrt(static_cast<double>(width())) * sum *
           norm(k_row(row / queries(), s));
  }
};

struct IndexerShape {
  int64_t batch, queries, keys, heads, width;
};

inline std::ostream& operator<<(std::ostream& out, const IndexerShape& s) {
  return out << "B " << s.batch << ", T " << s.queries << ", S " << s.keys << ", I " << s.heads
             << ", J " << s.width;
}

inline const std::vector<IndexerShape> kIndexerShapes = {
    {1, 1, 1, 1, 1},        {1, 1, 97, 3, 17},     {2, 37, 37, 4, 64},   {1, 131, 131, 5, 19},
    {1, 7, 1031, 2, 8},     {3, 33, 65, 8, 16},    {1, 64, 199, 6, 33},  {1, 40, 140, 7, 9},
    {1, 1100, 1100, 4, 16}, {1, 70, 300, 32, 128}, {1, 50, 210, 16, 32}, {1, 45, 400, 8, 64},
    {2, 21, 150, 20, 100},  {1, 35, 98, 48, 128},  {1, 9, 70, 64, 40},
};

inline SelectInputs integer_inputs(const IndexerShape& s, uint64_t seed) {
  return {integers({s.batch, s.queries, s.heads, s.width}, 2, seed),
          integers({s.batch, s.keys, s.width}, 2, seed + 1),
          integers({s.batch, s.queries, s.heads}, 3, seed + 2)};
}

inline SelectInputs gaussian_inputs(const IndexerShape& s, uint64_t seed) {
  return {gaussian({s.batch, s.queries, s.heads, s.width}, seed),
          gaussian({s.batch, s.keys, s.width}, seed + 1),
          gaussian({s.batch, s.queries, s.heads}, seed + 2)};
}

/// The `top_k` best keys of every query, given `SelectInputs::scores`.
inline Selection oracle_selection(const SelectInputs& in, const std::vector<double>& scores,
                                  int64_t top_k) {
  return oracle_selection(
      {in.batch(), in.queries(), in.keys(), top_k},
      [&](int64_t row, int32_t s) { return scores[static_cast<size_t>(row * in.keys() + s)]; });
}

}  // namespace select_test
