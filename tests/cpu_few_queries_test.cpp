// The fused indexer of the `cpu` backend where a call has few queries, as in decoding: keys are split among
// threads and packed chunk by chunk. And the exact cut of a row, where its first estimate is far off.
#include "attention/backend_cpu.h"
#include "tests/memory_of.h"
#include "tests/select_inputs.h"
#include "tests/threads.h"

#include <catch2/matchers/catch_matchers_string.hpp>

using namespace select_test;

namespace {

Selection select_last(const SelectInputs& in, int64_t queries, int64_t top_k) {
  const auto last = [&](const at::Tensor& x) { return x.slice(1, -queries).contiguous(); };
  return dsa::cpu_backend().indexer_select(last(in.q), in.k, last(in.weight), top_k);
}

}  // namespace

TEST_CASE("few queries select what they select among many, to the bit", "[select]") {
  const IndexerShape shape =
      GENERATE(IndexerShape{2, 70, 3000, 4, 64}, IndexerShape{1, 40, 2500, 3, 17},
               IndexerShape{3, 33, 100, 2, 8}, IndexerShape{1, 50, 2000, 8, 128});
  const int64_t top_k = GENERATE(100, 5000);
  const at::ScalarType type = GENERATE(at::kFloat, at::kBFloat16);
  INFO(shape << ", K " << top_k << ", " << type);
  const SelectInputs inputs = gaussian_inputs(shape, 3).as(type);
  on_every_machine([&] {
    const Selection all =
        dsa::cpu_backend().indexer_select(inputs.q, inputs.k, inputs.weight, top_k);
    for (const int64_t queries : {1, 4, 32}) {
      INFO(queries << " queries");
      const Selection found = select_last(inputs, queries, top_k);
      require_same(found, {all.indices.slice(1, -queries).contiguous(),
                           all.count.slice(1, -queries).contiguous()});
    }
  });
}

TEST_CASE("few queries name the first NaN, whichever thread meets it", "[select]") {
  // Of three chunks a thread has one, which its buffer holds unread, and the other two.
  const int64_t keys = 2800, later = GENERATE(600, 1500, 2790), top_k = GENERATE(8, 3000);
  CAPTURE(later, top_k);
  SelectInputs inputs = gaussian_inputs({1, 5, keys, 4, 24}, 11);
  for (const int64_t key : {int64_t{500}, later}) inputs.k[0][key][5] = kNaN;
  on_every_machine([&] {
    CHECK_THROWS_WITH(select_last(inputs, 5, top_k),
                      Catch::Matchers::ContainsSubstring("(batch 0, query 0, key 500)"));
  });
}

TEST_CASE("few queries do not copy all keys", "[select]") {
  const dsa::test::Threads two(2);
  const SelectInputs inputs = gaussian_inputs({1, 2, 131072, 1, 32}, 5);
  const auto [scratch, peak] = dsa::test::memory_of([&] { select_last(inputs, 2, 64); });
  CAPTURE(scratch, peak);
  CHECK(scratch < 1 << 20);  // of 16 MiB of keys
  CHECK(scratch > 0);
  CHECK(peak < 2 * dsa::test::kUnseen);
}

TEST_CASE("few queries that select all keys hold their share in each part", "[select]") {
  const dsa::test::Threads two(2);
  const int64_t keys = 32768;
  const SelectInputs inputs = gaussian_inputs({1, 2, keys, 1, 8}, 5);
  const double scratch = dsa::test::memory_of([&] { select_last(inputs, 2, keys); }).first;
  CAPTURE(scratch);
  // A buffer takes twice what it keeps, a thread one to spare; merging takes three times their sum.
  CHECK(scratch < 4.0 * static_cast<double>((2 + 1) * 2 * keys + (2 + 1) * 2 * keys) + (1 << 20));
  CHECK(scratch > 4.0 * static_cast<double>(keys));
}

TEST_CASE("a row whose sample is far too high or too low is cut exactly", "[select]") {
  const int64_t n = GENERATE(600, 1000, 1500), top_k = GENERATE(300, 512);
  const float shift = GENERATE(0.0f, 100.0f, -100.0f, 1.0f);
  CAPTURE(n, top_k, shift);
  at::Tensor scores = gaussian({1, 1, n}, 21);
  // What 16 registers of 16 read of a row that no guess was made for.
  for (int64_t v = 0; v < 16; ++v) scores[0][0].narrow(0, v * ((n - 16) / 15), 16).add_(shift);
  const Selection expected = oracle_top_k(scores, top_k);
  on_every_machine([&] { require_same(dsa::cpu_backend().select_top_k(scores, top_k), expected); });
}
