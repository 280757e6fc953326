// The table of backends: what a pin does, what rows say when they decline, the gather peer's chunk.
#include "attention/backend.h"
#include "attention/ops.h"
#include "tests/shapes.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <set>

using namespace dsa;
using namespace dsa::testing;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

Problem large_problem() {
  Problem p;
  p.queries = p.keys = 1 << 20;
  p.heads = p.kv_heads = 8;
  p.qk_width = p.v_width = 64;
  p.top_k = 256;
  return p;
}

}  // namespace

TEST_CASE("names in the table are unique, rows have a role, the oracle is last", "[backends]") {
  std::set<std::string> names;
  for (const Backend& row : backends()) {
    CAPTURE(row.name);
    CHECK(names.insert(row.name).second);
    CHECK_FALSE(row.description.empty());
    CHECK((row.role == "ours" || row.role == "peer" || row.role == "oracle"));
  }
  CHECK(backends().back().name == "reference");
}

TEST_CASE("a pinned backend never falls back and says why", "[backends]") {
  const Shape shape{.B = 1, .T = 4, .S = 4, .H = 1, .G = 1, .D = 4, .V = 4, .K = 2};
  const AttentionInputs in = attention_inputs(shape, 1, at::kFloat);
  const UseBackend use("torch-sdpa");
  CHECK_NOTHROW(ops::dense_attention(in.q, in.k, in.v, 1));
  CHECK_THROWS_MATCHES(ops::sparse_attention(in.q, in.k, in.v, random_selection(shape, 1), 1),
                       Error,
                       MessageMatches(ContainsSubstring(
                           "backend 'torch-sdpa' cannot run sparse_attention: it does not provide "
                           "sparse_attention")));
}

TEST_CASE("pins nest and end with their scope", "[backends]") {
  Problem p;
  p.queries = p.keys = p.heads = p.kv_heads = p.qk_width = p.v_width = 1;
  const std::string unpinned = choose_backend(Op::kDense, p).name;
  {
    const UseBackend outer("reference");
    {
      const UseBackend inner("torch-math");
      CHECK(choose_backend(Op::kDense, p).name == "torch-math");
    }
    CHECK(choose_backend(Op::kDense, p).name == "reference");
  }
  CHECK(choose_backend(Op::kDense, p).name == unpinned);
}

TEST_CASE("peers decline matrices that would not fit, in words", "[backends]") {
  const Problem p = large_problem();
  const auto reason = [&](const char* row, Op op) {
    return reason_to_decline(backend(row), op, p).value_or("accepted");
  };
  CHECK_THAT(reason("torch-mask", Op::kSparse),
             ContainsSubstring("its mask of queries by keys needs 4096.0 GiB"));
  CHECK_THAT(reason("torch-math", Op::kDense), ContainsSubstring("needs 32768.0 GiB"));
  CHECK(reason("torch-gather", Op::kSparse) == "accepted");
  CHECK(reason("torch-gather-heads", Op::kSparse) == "accepted");
  CHECK(reason("torch-sdpa", Op::kDense) == "accepted");
}

TEST_CASE("each gather peer measures its own chunk once for a shape and says which", "[backends]") {
  const Shape shape{.B = 1, .T = 300, .S = 300, .H = 2, .G = 2, .D = 8, .V = 8, .K = 16};
  const AttentionInputs in = attention_inputs(shape, 1, at::kFloat);
  Problem p;
  p.queries = p.keys = 300, p.heads = p.kv_heads = 2, p.qk_width = p.v_width = 8, p.top_k = 16;
  for (const char* row : {"torch-gather", "torch-gather-heads"}) {
    CAPTURE(row);
    const Backend& gather = backend(row);
    CHECK(gather.note(Op::kSparse, p).empty());  // the other row's choice is not this one's
    const UseBackend use(row);
    const at::Tensor q = in.q.clone().requires_grad_();
    const auto run = [&] {
      return ops::sparse_attention(q, in.k, in.v, random_selection(shape, 1), 1).out;
    };
    const at::Tensor out = run();
    const std::string note = gather.note(Op::kSparse, p);
    CHECK_THAT(note, ContainsSubstring("forward chunk "));
    out.sum().backward();
    CHECK_THAT(gather.note(Op::kSparse, p), ContainsSubstring(note + ", backward chunk "));
    run();
    CHECK_THAT(gather.note(Op::kSparse, p), ContainsSubstring(note));
  }
}

TEST_CASE("a gather buffer is as large as the heads it holds", "[backends]") {
  Problem p = large_problem();
  p.heads = p.kv_heads = 128, p.top_k = 65536;
  p.qk_width = p.v_width = 128;  // 32 x 65536 keys of 256 floats: 2 GiB a head
  CHECK(reason_to_decline(backend("torch-gather-heads"), Op::kSparse, p).value_or("") == "");
  CHECK_THAT(reason_to_decline(backend("torch-gather"), Op::kSparse, p).value_or("accepted"),
             ContainsSubstring("its buffer of gathered keys and values needs 256.0 GiB"));
}
