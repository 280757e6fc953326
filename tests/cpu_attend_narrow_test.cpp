// The two kernels of the `cpu` backend that attend in bfloat16 where few heads share a kv head: 16
// queries together, and each alone. Against float64 loops, and where the first could go wrong: rows
// that a query did not select but its neighbour did.
#include "harness/denormals.h"
#include "tests/attend_fixture.h"

#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

using namespace dsa;
using namespace dsa::test;
using cpu::NarrowChoice;

namespace {

bool has_kernels() {
  return cpu::isa_in_use().attend->narrow != nullptr;
}

/// q, k and v in bfloat16, and the truth for what rounding left of them.
struct Rounded {
  AttendInputs in;
  Oracle exact;

  explicit Rounded(const AttendCase& c, double scale = 0) : in(inputs_of(c)) {
    if (scale != 0) in.scale = scale;
    for (at::Tensor* x : {&in.q, &in.k, &in.v}) *x = x->to(at::kBFloat16).to(at::kFloat);
    exact = oracle_of(c, in);
    for (at::Tensor* x : {&in.q, &in.k, &in.v}) *x = x->to(at::kBFloat16);
  }

  ops::AttentionResult attend() const {
    return cpu::sparse_forward(in.q, in.k, in.v, in.selection, in.scale);
  }
};

void check_against(const Oracle& exact, const ops::AttentionResult& found, int64_t width,
                   double bound) {
  const WorstRow worst = worst_row(found.out.to(at::kFloat), exact.out, width);
  INFO("worst row " << worst.row << " has error " << worst.error);
  CHECK(worst.error <= bound);
  check_lse(exact, found.lse, [](double size) { return 2e-4 + 2e-6 * size; });
}

// B T S H G D V K
const AttendCase kNarrowCases[] = {
    {1, 1, 1, 1, 1, 16, 16, 1},             // one token
    {1, 40, 40, 2, 2, 64, 64, 64},          // K > S: dense
    {1, 150, 150, 2, 2, 64, 64, 32},        // sums stay in tiles; a last block of 6 queries
    {2, 70, 90, 4, 2, 32, 32, 17},          // batch, GQA, T < S
    {1, 33, 60, 6, 1, 3, 17, 9},            // seven heads' limit, odd widths
    {2, 37, 45, 4, 4, 72, 3, 11},           //
    {1, 24, 40, 4, 2, 576, 512, 20},        // wide
    {1, 300, 5000, 2, 1, 64, 64, 200},      // several panels, gathered tiles
    {1, 700, 700, 3, 3, 64, 96, 400},       // whole tiles, several blocks of queries
    {1, 130, 130, 2, 2, 64, 64, 33, 7, 3},  // every third query selects nothing
    {1, 40, 100, 7, 1, 128, 64, 40, 9, 2}   //
};

}  // namespace

TEST_CASE("16 queries together and each alone match float64 in bfloat16", "[attend]") {
  if (!has_kernels()) SKIP("no AMX here");
  for (const AttendCase& c : kNarrowCases) {
    const Rounded problem(c);
    for (const NarrowChoice choice : {NarrowChoice::kUnion, NarrowChoice::kAlone}) {
      const bool together = choice == NarrowChoice::kUnion;
      INFO(c.text() << (together ? ", together" : ", alone"));
      const Way way(choice);
      const auto found = problem.attend();
      REQUIRE(cpu::last_narrow().blocks >= c.batch);
      const bool wide = c.v_width >= 32;
      REQUIRE(cpu::last_narrow().by_union == (together && wide ? cpu::last_narrow().blocks : 0));
      check_against(problem.exact, found, c.v_width, 6e-3);
    }
  }
}

TEST_CASE("a row says which bfloat16 kernel ran, of the last call and its shape alone",
          "[attend]") {
  if (!has_kernels()) SKIP("no AMX here");
  const Backend& row = backend("cpu");
  const AttendInputs in = inputs_of({1, 130, 140, 4, 2, 64, 64, 33});
  const auto attend = [&](at::ScalarType dtype) {
    return cpu::sparse_forward(in.q.to(dtype), in.k.to(dtype), in.v.to(dtype), in.selection,
                               in.scale);
  };
  Problem p;
  p.queries = 130, p.keys = 140, p.heads = 4, p.kv_heads = 2, p.qk_width = p.v_width = 64;
  p.top_k = 33, p.dtype = at::kBFloat16;
  const auto note = [&] { return row.note(Op::kSparse, p); };
  using Catch::Matchers::StartsWith;
  {
    const Way way(NarrowChoice::kUnion);
    attend(at::kBFloat16);
    CHECK_THAT(note(), StartsWith("together 1 of 1 blocks, U16/K "));
  }
  {
    const Way way(NarrowChoice::kAlone);
    attend(at::kBFloat16);
    CHECK_THAT(note(), StartsWith("alone 1 blocks, U16/K "));
  }
  CHECK(row.note(Op::kDense, p).empty());
  Problem other = p;
  other.dtype = at::kFloat;
  CHECK(row.note(Op::kSparse, other).empty());
  for (int64_t Problem::*size :
       {&Problem::batch, &Problem::queries, &Problem::keys, &Problem::heads, &Problem::kv_heads,
        &Problem::qk_width, &Problem::v_width, &Problem::top_k}) {
    other = p;
    ++(other.*size);
    CHECK(row.note(Op::kSparse, other).empty());
  }
  attend(at::kFloat);  // the same shape in another dtype: what ran before is past
  CHECK(note().empty());
  attend(at::kBFloat16);
  CHECK(!note().empty());
  pin_isa("avx2");
  attend(at::kBFloat16);
  pin_isa("auto");
  CHECK(note() == "heads one by one");
}

TEST_CASE("any sign and size of scale keeps the largest weights in bfloat16", "[attend]") {
  if (!has_kernels()) SKIP("no AMX here");
  const AttendCase c{1, 90, 200, 2, 2, 32, 32, 60};
  const NarrowChoice choice = GENERATE(NarrowChoice::kUnion, NarrowChoice::kAlone);
  for (const double scale : {-0.2, 1e-12, 1e3, -1e3}) {
    INFO("scale " << scale);
    const Rounded problem(c, scale);
    const Way way(choice);
    // A score of 1e4 carries an error of 1e4 * 2^-24 * sqrt(32): 3e-3 of its exponential.
    check_against(problem.exact, problem.attend(), c.v_width, 1e-2);
  }
}

TEST_CASE("both ways of bfloat16 have the same bits on any number of threads", "[attend]") {
  if (!has_kernels()) SKIP("no AMX here");
  const NarrowChoice choice =
      GENERATE(NarrowChoice::kUnion, NarrowChoice::kAlone, NarrowChoice::kMeasured);
  for (const AttendCase& c :
       {AttendCase{1, 1500, 1500, 2, 2, 64, 64, 200}, AttendCase{2, 300, 340, 6, 2, 96, 64, 40}}) {
    const Rounded problem(c);
    INFO(c.text());
    const auto one = [&] { return Way(choice, 1), problem.attend(); }();
    for (const int threads : {1, 2, 5}) {
      const Way way(choice, threads);
      const auto again = problem.attend();
      REQUIRE(at::equal(one.out, again.out));
      REQUIRE(at::equal(one.lse, again.lse));
    }
  }
}

TEST_CASE("a NaN or infinity in bfloat16 reaches who selected it and nobody else", "[attend]") {
  if (!has_kernels()) SKIP("no AMX here");
  const AttendCase c{1, 48, 48, 2, 2, 64, 64, 9};
  const NarrowChoice choice = GENERATE(NarrowChoice::kUnion, NarrowChoice::kAlone);
  const float bad = GENERATE(NAN, INFINITY, -INFINITY);
  const bool in_key = GENERATE(true, false);
  INFO(bad << (in_key ? " in a key" : " in a value"));
  AttendInputs in = inputs_of(c);
  (in_key ? in.k : in.v).select(1, 5).fill_(bad);
  const Way way(choice);
  const auto found = cpu::sparse_forward(in.q.to(at::kBFloat16), in.k.to(at::kBFloat16),
                                         in.v.to(at::kBFloat16), in.selection, in.scale);
  REQUIRE(cpu::last_narrow().blocks > 0);
  for (int64_t t = 0; t < c.queries; ++t) {
    const bool hit = in.selection.indices[0][t].eq(5).any().item<bool>();
    INFO("query " << t);
    REQUIRE(found.out[0][t].isfinite().all().item<bool>() == !hit);
    REQUIRE(found.lse[0][t].isfinite().all().item<bool>() == !(hit && in_key));
  }
}

TEST_CASE("a NaN in q stays in its row of bfloat16", "[attend]") {
  if (!has_kernels()) SKIP("no AMX here");
  const AttendCase c{1, 48, 48, 2, 2, 64, 64, 9};
  const NarrowChoice choice = GENERATE(NarrowChoice::kUnion, NarrowChoice::kAlone);
  AttendInputs in = inputs_of(c);
  in.q[0][17][1][3] = NAN;
  const Way way(choice);
  const auto found = cpu::sparse_forward(in.q.to(at::kBFloat16), in.k.to(at::kBFloat16),
                                         in.v.to(at::kBFloat16), in.selection, in.scale);
  REQUIRE(cpu::last_narrow().by_union == (choice == NarrowChoice::kUnion ? 1 : 0));
  for (int64_t t = 0; t < c.queries; ++t)
    for (int64_t h = 0; h < c.heads; ++h) {
      const bool hit = t == 17 && h == 1;
      INFO("query " << t << ", head " << h);
      REQUIRE(found.out[0][t][h].isnan().all().item<bool>() == hit);
      REQUIRE(found.out[0][t][h].isnan().any().item<bool>() == hit);
      REQUIRE(found.lse[0][t][h].isnan().item<bool>() == hit);
    }
}

TEST_CASE("queries that share their keys go together, those that do not go alone", "[attend]") {
  if (!has_kernels()) SKIP("no AMX here");
  const AttendCase c{1, 64, 20000, 1, 1, 32, 32, 40};
  AttendInputs in = inputs_of(c);
  for (at::Tensor* x : {&in.q, &in.k, &in.v}) *x = x->to(at::kBFloat16);
  const auto attend = [&] { return cpu::sparse_forward(in.q, in.k, in.v, in.selection, in.scale); };
  attend();
  CHECK(cpu::last_narrow().by_union == 0);
  CHECK(cpu::last_narrow().overlap > 15);
  in.selection.indices.copy_(in.selection.indices.select(1, 0).clone().unsqueeze(1));
  attend();
  CHECK(cpu::last_narrow().by_union == cpu::last_narrow().blocks);
  CHECK(cpu::last_narrow().overlap == 1);
}

TEST_CASE("16 queries together leave the caller's denormals alone", "[attend]") {
  if (!has_kernels()) SKIP("no AMX here");
  const Rounded problem({1, 40, 40, 1, 1, 32, 32, 20}, 30.0);
  const Way way(NarrowChoice::kUnion, 1);
  const auto kept = problem.attend();
  volatile float small = 1e-39f;
  CHECK(small * 1.0f != 0.0f);
  const FlushDenormals as_training_does(true);
  const auto flushed = problem.attend();
  CHECK(at::equal(kept.out, flushed.out));
  CHECK(at::equal(kept.lse, flushed.lse));
}
