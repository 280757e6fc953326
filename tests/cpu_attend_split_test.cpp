// The kernel of the `cpu` backend that attends in float32 to the keys of 32 queries together, each number
// being three of bfloat16: against float64 loops, and where splitting or looking at keys that a query did
// not select could go wrong.
#include "harness/denormals.h"
#include "tests/attend_fixture.h"

#include <ATen/ops/arange.h>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

using namespace dsa;
using namespace dsa::test;
using cpu::NarrowChoice;

namespace {

bool has_kernel() {
  return cpu::isa_in_use().attend->split != nullptr;
}

ops::AttentionResult attend(const AttendInputs& in, NarrowChoice choice, int threads = 2) {
  const Way way(choice, threads);
  return cpu::sparse_forward(in.q, in.k, in.v, in.selection, in.scale);
}

double error_of(const AttendCase& c, const Oracle& exact, const ops::AttentionResult& found) {
  const WorstRow worst = worst_row(found.out, exact.out, c.v_width);
  INFO("worst row " << worst.row << " has error " << worst.error);
  check_lse(exact, found.lse);
  return worst.error;
}

/// Neighbouring queries select nearly the same keys: those of the best 2 K that noise leaves.
void share_keys(const AttendCase& c, AttendInputs& in) {
  std::mt19937_64 random(7);
  int32_t* ids = in.selection.indices.data_ptr<int32_t>();
  const int32_t* counts = in.selection.count.const_data_ptr<int32_t>();
  for (int64_t row = 0; row < c.batch * c.queries; ++row) {
    const int64_t visible = row % c.queries + 1 + c.keys - c.queries;
    std::vector<int32_t> nearest;
    for (int64_t key = std::max<int64_t>(0, visible - 2 * c.top_k); key < visible; ++key)
      nearest.push_back(static_cast<int32_t>(key));
    std::sample(nearest.begin(), nearest.end(), ids + row * c.top_k, counts[row], random);
  }
}

// B T S H G D V K
const AttendCase kSplitCases[] = {
    {1, 1, 1, 1, 1, 16, 16, 1},             // one token
    {1, 40, 40, 2, 2, 64, 64, 64},          // K > S: dense
    {1, 64, 64, 2, 2, 64, 64, 64},          // whole tiles, all keys selected
    {1, 150, 150, 2, 2, 64, 64, 32},        // a last block of 22 queries
    {2, 70, 90, 4, 2, 32, 32, 17},          // batch, GQA, T < S
    {1, 33, 60, 6, 1, 3, 17, 9},            // odd widths
    {2, 37, 45, 4, 4, 72, 3, 11},           //
    {1, 24, 40, 4, 2, 576, 512, 20},        // wide
    {1, 300, 5000, 2, 1, 64, 64, 200},      // several panels
    {1, 700, 700, 3, 3, 64, 96, 400},       // several blocks of queries
    {1, 130, 130, 2, 2, 64, 64, 33, 7, 3},  // every third query selects nothing
    {1, 40, 100, 15, 1, 128, 64, 40, 9, 2}  // as many heads on a kv head as there can be
};

}  // namespace

TEST_CASE("32 queries together match float64 in float32", "[attend]") {
  if (!has_kernel()) SKIP("no AMX here");
  const bool shared = GENERATE(false, true);
  for (const AttendCase& c : kSplitCases) {
    INFO(c.text() << (shared ? ", shared keys" : ""));
    AttendInputs in = inputs_of(c);
    if (shared && c.empty_every == 0) share_keys(c, in);
    const Oracle exact = oracle_of(c, in);
    const auto found = attend(in, NarrowChoice::kUnion);
    REQUIRE(cpu::last_narrow().by_union == cpu::last_narrow().blocks);
    REQUIRE(cpu::last_narrow().blocks >= c.batch);
    CHECK(error_of(c, exact, found) <= 1e-6);  // half of what float32 is held to
  }
}

TEST_CASE("large scores cost 32 queries together no more than they cost each alone", "[attend]") {
  if (!has_kernel()) SKIP("no AMX here");
  const AttendCase c{1, 200, 200, 2, 2, 64, 64, 60};
  AttendInputs in = inputs_of(c);
  for (const double scale :
       {6.0, 20.0, -20.0, 0.0, 1e-12, 1e3}) {  // times 8: what scores spread by
    INFO("scale " << scale);
    in.scale = scale;
    const Oracle exact = oracle_of(c, in);
    const double alone = error_of(c, exact, attend(in, NarrowChoice::kAlone));
    const double together = error_of(c, exact, attend(in, NarrowChoice::kUnion));
    REQUIRE(cpu::last_narrow().by_union > 0);
    CHECK(together <= 3 * alone + 5e-7);
  }
}

TEST_CASE("scores that rise along the keys raise the largest again and again", "[attend]") {
  if (!has_kernel()) SKIP("no AMX here");
  const AttendCase c{1, 96, 600, 1, 1, 32, 32, 300};
  AttendInputs in = inputs_of(c);
  for (int64_t s = 0; s < c.keys; ++s) in.k[0][s].add_(0.01f * static_cast<float>(s));
  in.q.abs_();
  const Oracle exact = oracle_of(c, in);
  CHECK(error_of(c, exact, attend(in, NarrowChoice::kUnion)) <=
        2 * error_of(c, exact, attend(in, NarrowChoice::kAlone)) + 5e-7);
}

TEST_CASE("numbers whose terms are denormal, and huge ones, are left to each query alone",
          "[attend]") {
  if (!has_kernel()) SKIP("no AMX here");
  const AttendCase c{1, 80, 80, 2, 2, 64, 64, 20};
  struct Sizes {
    float q, k, v;
    bool together;
  };
  for (const Sizes& size :
       {Sizes{1, 1, 1e-20f, true}, Sizes{1, 1, 1e-30f, false}, Sizes{1, 1, 1e-37f, false},
        Sizes{1, 1e-38f, 1, true}, Sizes{1e-38f, 1, 1, true}, Sizes{1e5f, 1e-5f, 1, true},
        Sizes{1e30f, 1e-30f, 1, false}, Sizes{1e-30f, 1e30f, 1, false}, Sizes{1, 1, 1e25f, false},
        Sizes{1, 1, 1e17f, true}}) {
    INFO("times " << size.q << ", " << size.k << ", " << size.v);
    AttendInputs in = inputs_of(c);
    in.q.mul_(size.q);
    in.k.mul_(size.k);
    in.v.mul_(size.v);
    const Oracle exact = oracle_of(c, in);
    const auto found = attend(in, NarrowChoice::kUnion);
    CHECK((cpu::last_narrow().by_union > 0) == size.together);
    CHECK(error_of(c, exact, found) <= 2e-6);
  }
  AttendInputs in = inputs_of(c);
  in.scale = 1e30;  // products that are denormal could be scores of 1
  in.q.mul_(1e-15f);
  in.k.mul_(1e-15f);
  const Oracle exact = oracle_of(c, in);
  CHECK(error_of(c, exact, attend(in, NarrowChoice::kUnion)) <= 2e-6);
  CHECK(cpu::last_narrow().by_union == 0);
}

TEST_CASE("one row of tiny values among large ones is still met", "[attend]") {
  if (!has_kernel()) SKIP("no AMX here");
  const AttendCase c{1, 64, 64, 1, 1, 32, 32, 1};
  AttendInputs in = inputs_of(c);
  in.v[0][5].mul_(1e-36f);
  for (int64_t t = 8; t < 20; ++t) in.selection.indices[0][t][0] = 5;
  const Oracle exact = oracle_of(c, in);
  CHECK(error_of(c, exact, attend(in, NarrowChoice::kUnion)) <= 2e-6);
}

TEST_CASE("a NaN or infinity in float32 reaches who selected it and nobody else", "[attend]") {
  if (!has_kernel()) SKIP("no AMX here");
  const AttendCase c{1, 48, 48, 2, 2, 64, 64, 9};
  const float bad = GENERATE(NAN, INFINITY, -INFINITY);
  const int where = GENERATE(0, 1, 2);
  INFO(bad << " in " << (where == 0 ? "q" : where == 1 ? "k" : "v"));
  AttendInputs in = inputs_of(c);
  if (where == 0) in.q[0][5][1][3] = bad;
  if (where == 1) in.k.select(1, 5).fill_(bad);
  if (where == 2) in.v.select(1, 5).fill_(bad);
  const auto found = attend(in, NarrowChoice::kUnion);
  for (int64_t t = 0; t < c.queries; ++t)
    for (int64_t h = 0; h < c.heads; ++h) {
      const bool key = in.selection.indices[0][t].eq(5).any().item<bool>();
      const bool hit = where == 0 ? t == 5 && h == 1 : key;
      INFO("query " << t << ", head " << h);
      REQUIRE(found.out[0][t][h].isfinite().all().item<bool>() == !hit);
      REQUIRE(found.lse[0][t][h].isfinite().item<bool>() == !(hit && where < 2));
    }
}

TEST_CASE("32 queries together have the same bits on any number of threads", "[attend]") {
  if (!has_kernel()) SKIP("no AMX here");
  const NarrowChoice choice = GENERATE(NarrowChoice::kUnion, NarrowChoice::kMeasured);
  for (const AttendCase& c :
       {AttendCase{1, 1500, 1500, 2, 2, 64, 64, 100}, AttendCase{2, 300, 340, 6, 2, 96, 64, 40}}) {
    const AttendInputs in = inputs_of(c);
    INFO(c.text());
    const auto one = attend(in, choice, 1);
    for (const int threads : {1, 2, 5}) {
      const auto again = attend(in, choice, threads);
      REQUIRE(at::equal(one.out, again.out));
      REQUIRE(at::equal(one.lse, again.lse));
    }
  }
}

TEST_CASE("blocks of one call go together or alone as their keys overlap", "[attend]") {
  if (!has_kernel()) SKIP("no AMX here");
  const AttendCase c{1, 1024, 9000, 1, 1, 64, 64, 30};
  AttendInputs in = inputs_of(c);
  const auto same_keys = [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      in.selection.indices[0][t].copy_(at::arange(100, 130, at::kInt));
  };
  same_keys(256, 512);
  const Oracle exact = oracle_of(c, in);
  const auto found = attend(in, NarrowChoice::kMeasured);
  CHECK(cpu::last_narrow().blocks == 4);
  CHECK(cpu::last_narrow().by_union == 1);
  CHECK(cpu::last_narrow().neighbours == 32);
  CHECK(error_of(c, exact, found) <= 1e-6);
  Problem p;
  p.queries = 1024, p.keys = 9000, p.heads = p.kv_heads = 1, p.qk_width = p.v_width = 64;
  p.top_k = 30, p.dtype = at::kFloat;
  using Catch::Matchers::StartsWith;
  CHECK_THAT(cpu::narrow_note(p), StartsWith("together 1 of 4 blocks, U32/K "));
  p.dtype = at::kBFloat16;
  CHECK(cpu::narrow_note(p).empty());
  p.dtype = at::kFloat;
  same_keys(0, 1024);
  attend(in, NarrowChoice::kMeasured);
  CHECK(cpu::last_narrow().by_union == 4);
  CHECK(cpu::last_narrow().overlap == 1);
  attend(in, NarrowChoice::kAlone);
  CHECK_THAT(cpu::narrow_note(p), StartsWith("alone 4 blocks, U32/K 1.0"));
}

TEST_CASE("32 queries together leave the caller's denormals alone", "[attend]") {
  if (!has_kernel()) SKIP("no AMX here");
  AttendInputs in = inputs_of({1, 40, 40, 1, 1, 32, 32, 20});
  in.scale = 30.0;
  const auto kept = attend(in, NarrowChoice::kUnion, 1);
  volatile float small = 1e-39f;
  CHECK(small * 1.0f != 0.0f);
  const FlushDenormals as_training_does(true);
  const auto flushed = attend(in, NarrowChoice::kUnion, 1);
  CHECK(at::equal(kept.out, flushed.out));
  CHECK(at::equal(kept.lse, flushed.lse));
}
