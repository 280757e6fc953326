// The one place that knows FLOPs and bytes, against sums over queries and published ratios.
#include "attention/cost.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <algorithm>
#include <cmath>

using namespace dsa;

namespace {

Problem deepseek_like(int64_t length) {
  Problem p;
  p.queries = p.keys = length;
  p.heads = p.kv_heads = 128;
  p.qk_width = 192;
  p.v_width = 128;
  p.top_k = 2048;
  p.index_heads = 64;
  p.index_width = 128;
  return p;
}

}  // namespace

TEST_CASE("pair counts equal sums over queries", "[cost]") {
  const int64_t queries = GENERATE(1, 2, 7, 33), earlier = GENERATE(0, 1, 20);
  const int64_t keys = queries + earlier, top_k = GENERATE(1, 5, 20, 21, 54, 1000);
  double visible = 0, selected = 0;
  for (int64_t t = 0; t < queries; ++t) {
    visible += static_cast<double>(t + 1 + earlier);
    selected += static_cast<double>(std::min(t + 1 + earlier, top_k));
  }
  CHECK(visible_pairs(queries, keys) == visible);
  CHECK(selected_pairs(queries, keys, top_k) == selected);
}

TEST_CASE("attention FLOPs follow the formulas of docs/attention.md", "[cost]") {
  Problem p = deepseek_like(4096);
  p.batch = 3;
  const double visible = 3 * visible_pairs(4096, 4096);
  const double selected = 3 * selected_pairs(4096, 4096, 2048);
  CHECK(cost(Op::kDense, Pass::kForward, p).flops == 2.0 * 128 * 320 * visible);
  CHECK(cost(Op::kDense, Pass::kForwardBackward, p).flops == 7.0 * 128 * 320 * visible);
  CHECK(cost(Op::kSparse, Pass::kForward, p).flops == 2.0 * 128 * 320 * selected);
  CHECK(cost(Op::kSparse, Pass::kForwardBackward, p).flops ==
        2.0 * 128 * (320 + 3 * 192 + 2 * 128) * selected);
  CHECK(cost(Op::kIndexerSelect, Pass::kForward, p).flops == 2.0 * 64 * 128 * visible);
  CHECK(cost(Op::kSelectTopK, Pass::kForward, p).flops == 0);
}

TEST_CASE("the FLOP ratio tends to H(D+V)/(IJ), and DSA loses where K >= L", "[cost]") {
  CHECK(std::abs(flop_ratio(deepseek_like(int64_t{1} << 30)) - 5.0) < 0.01);
  CHECK(flop_ratio(deepseek_like(2048)) < 1.0);
}

TEST_CASE("bytes count every input and output once, whatever L squared is", "[cost]") {
  Problem p = deepseek_like(1000);
  const double q = 1000.0 * 128 * 192 * 4, kv = 1000.0 * 128 * 320 * 4;
  const double out = 1000.0 * 128 * 128 * 4, lse = 1000.0 * 128 * 4;
  const Cost dense = cost(Op::kDense, Pass::kForward, p);
  CHECK(dense.bytes_read == q + kv);
  CHECK(dense.bytes_written == out + lse);
  const Cost select = cost(Op::kIndexerSelect, Pass::kForward, p);
  CHECK(select.bytes_written == 1000.0 * 2049 * 4);
  p.dtype = c10::kBFloat16;
  CHECK(cost(Op::kDense, Pass::kForward, p).bytes_read == (q + kv) / 2);
}
