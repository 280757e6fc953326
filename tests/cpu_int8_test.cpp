// The row `cpu-int8`: exact where the int8 copies are, near the exact selection elsewhere. Without AMX these
// tests run in dsa-tests-amx.
#include "attention/cpu/dispatch.h"
#include "tests/memory_of.h"
#include "tests/select_inputs.h"
#include "tests/threads.h"

#include <catch2/matchers/catch_matchers_string.hpp>

using namespace select_test;
using dsa::test::kPerThread;
using dsa::test::kUnseen;
using dsa::test::memory_of;
using dsa::test::Threads;

namespace {

bool has_int8() {
  return dsa::cpu::isa_in_use().indexer_int8 != nullptr;
}

Selection select(const SelectInputs& in, int64_t top_k) {
  return dsa::backend("cpu-int8").indexer_select(in.q, in.k, in.weight, top_k);
}

}  // namespace

TEST_CASE("int8 selects as defined where its copies are exact", "[select]") {
  if (!has_int8()) SKIP("no AMX here");
  const IndexerShape shape = GENERATE(from_range(kIndexerShapes));
  const int64_t top_k = GENERATE(1, 31, 2000);
  const at::ScalarType type = GENERATE(at::kFloat, at::kBFloat16);
  INFO(shape << ", K " << top_k << ", " << type);
  const SelectInputs inputs = integer_inputs(shape, 31);
  const Selection expected = oracle_selection(inputs, inputs.scores(), top_k);
  for (const int threads : {1, 2}) {
    const Threads set(threads);
    require_same(select(inputs.as(type), top_k), expected);
  }
}

TEST_CASE("int8 keeps nearly all of the exact selection, whatever the size of a row", "[select]") {
  if (!has_int8()) SKIP("no AMX here");
  const int64_t keys = 2000, top_k = 128;
  SelectInputs inputs = gaussian_inputs({1, keys, keys, 4, 64}, 7);
  // A scale for all rows would leave nothing of most of them.
  for (int64_t t = 0; t < keys; ++t)
    inputs.q[0][t].mul_(std::ldexp(1.3, static_cast<int>(t % 40) - 20));
  const Selection expected = oracle_selection(inputs, inputs.scores(), top_k);
  const Selection found = select(inputs, top_k);
  REQUIRE(at::equal(found.count, expected.count));
  int64_t shared = 0;
  for (int64_t t = top_k; t < keys; ++t) {
    const auto* a = found.indices.const_data_ptr<int32_t>() + t * top_k;
    const auto* b = expected.indices.const_data_ptr<int32_t>() + t * top_k;
    for (int64_t i = 0; i < top_k; ++i) shared += std::binary_search(a, a + top_k, b[i]);
  }
  const double recall = static_cast<double>(shared) / static_cast<double>((keys - top_k) * top_k);
  CAPTURE(recall);
  CHECK(recall > 0.98);
  CHECK(recall < 1);  // or these were not int8 copies
  for (const int threads : {1, 2, 5}) {
    const Threads set(threads);
    require_same(select(inputs, top_k), found);
  }
}

TEST_CASE("int8 names the first pair whose score is NaN", "[select]") {
  if (!has_int8()) SKIP("no AMX here");
  SelectInputs inputs = gaussian_inputs({2, 50, 1300, 4, 24}, 11);
  using Catch::Matchers::ContainsSubstring;
  SECTION("from a key") {
    inputs.k[1][1270][5] = kInfinity;
    CHECK_THROWS_WITH(select(inputs, 8), ContainsSubstring("(batch 1, query 20, key 1270)"));
  }
  SECTION("from a query") {
    inputs.q[0][30][3][23] = kNaN;
    CHECK_THROWS_WITH(select(inputs, 8), ContainsSubstring("(batch 0, query 30, key 0)"));
  }
}

TEST_CASE("peak memory beyond results, int8 indexer", "[select]") {
  if (!has_int8()) SKIP("no AMX here");
  const Threads two(2);
  const int64_t length = 16384, heads = 2, width = 64, top_k = 64;
  const SelectInputs inputs = gaussian_inputs({1, length, length, heads, width}, 51);
  Selection selection;
  const auto [scratch, peak] = memory_of([&] { selection = select(inputs, top_k); });
  const double results = static_cast<double>(selection.indices.nbytes() + selection.count.nbytes());
  CAPTURE(scratch, peak, results);
  // A token: int8 copies of q, k and of packed k, a weight a head, a scale.
  const double copies = static_cast<double>(length * (heads * width + 2 * width + 4 * heads + 4));
  CHECK(scratch >= copies);  // the measurement sees them
  // Three slots are rounded up to huge pages.
  CHECK(scratch <= copies + 3 * (2 << 20) + 2 * kPerThread);
  CHECK(peak - results <= copies + kUnseen + 2 * kPerThread);
}
