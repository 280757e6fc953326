// More than 2^31 elements before the ones that count: offsets must be 64-bit. The keys are a mapping of
// untouched zero pages, so the test costs no memory.
#include "attention/backend.h"
#include "attention/ops.h"
#include "tests/close_to.h"
#include "tests/shapes.h"

#include <catch2/catch_test_macros.hpp>

#include <sys/mman.h>
#include <vector>

using namespace dsa;
using namespace dsa::testing;

namespace {

/// float32 zeros of `sizes` that exist on paper: a page is made when it is written.
at::Tensor paper_zeros(std::vector<int64_t> sizes) {
  int64_t bytes = 4;
  for (const int64_t n : sizes) bytes *= n;
  void* pages = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) return {};
  return at::from_blob(
      pages, sizes, [bytes](void* p) { munmap(p, static_cast<size_t>(bytes)); }, at::kFloat);
}

}  // namespace

TEST_CASE("keys beyond 2^31 elements are read where they are", "[ops][offsets]") {
  const Shape shape{.B = 1, .T = 1, .S = 9'000'000, .H = 4, .G = 1, .D = 256, .V = 256, .K = 6};
  REQUIRE(shape.S * shape.G * shape.D > (int64_t{1} << 31));
  const at::Tensor k = paper_zeros({1, shape.S, 1, 256}), v = paper_zeros({1, shape.S, 1, 256});
  if (!k.defined() || !v.defined()) SKIP("the system lends no address space of 2 x 9 GB");
  const std::vector<int32_t> chosen = {3, 4'000'000, 8'388'607, 8'388'609, 8'999'000, 8'999'999};
  const Shape few{.B = 1, .T = 1, .S = 6, .H = 4, .G = 1, .D = 256, .V = 256, .K = 6};
  const AttentionInputs small = attention_inputs(few, 5, at::kFloat);
  for (size_t i = 0; i < chosen.size(); ++i) {
    k[0][chosen[i]].copy_(small.k[0][static_cast<int64_t>(i)]);
    v[0][chosen[i]].copy_(small.v[0][static_cast<int64_t>(i)]);
  }
  const ops::Selection all{at::arange(6, at::kInt).view({1, 1, 6}), {}};
  const ops::Selection far{at::tensor(chosen, at::kInt).view({1, 1, 6}), {}};
  const at::Tensor index_q = at::rand({1, 1, 2, 256}), weight = at::rand({1, 1, 2});
  ops::AttentionResult truth;
  at::Tensor mass, scores;
  {
    const UseBackend use("reference");
    truth = ops::sparse_attention(small.q, small.k, small.v, all, small.scale);
    mass = ops::selected_attention_mass(small.q, small.k, all, truth.lse, small.scale);
    scores = ops::selected_scores(index_q, small.k.view({1, 6, 256}), weight, all);
  }
  // With one key head these two read selected rows only; the others touch or copy every key.
  for (const char* row : {"torch-gather", "torch-gather-heads", "cpu"}) {
    const UseBackend use(row);
    CAPTURE(row, shape.text());
    const auto got = ops::sparse_attention(small.q, k, v, far, small.scale);
    CHECK_THAT(got.out, CloseTo(truth.out, 256 + 6));
    CHECK_THAT(got.lse, CloseTo(truth.lse, 256 + 6, 1));
  }
  const UseBackend use("cpu");
  CHECK_THAT(ops::selected_attention_mass(small.q, k, far, truth.lse, small.scale),
             CloseTo(mass, 256 + 6));
  CHECK_THAT(ops::selected_scores(index_q, k.view({1, shape.S, 256}), weight, far),
             CloseTo(scores, 256 * 2, 1));
}

// Reads half of a 46 400 x 46 400 matrix of shared zero pages: under a second.
TEST_CASE("scores beyond 2^31 elements are selected where they are", "[ops][offsets]") {
  constexpr int64_t L = 46'400;
  const at::Tensor scores = paper_zeros({1, L, L});
  if (!scores.defined()) SKIP("the system lends no address space of 9 GB");
  scores[0][L - 1][L - 1] = 2;
  scores[0][L - 1][77] = 1;
  scores[0][L - 2][L - 2] = 1;
  const UseBackend use("cpu");
  const ops::Selection got = ops::select_top_k(scores, 3);
  const auto row = [&](int64_t t) { return got.indices[0][t]; };
  CHECK(at::equal(row(L - 1), at::tensor({0, 77, int(L - 1)}, at::kInt)));
  CHECK(at::equal(row(L - 2), at::tensor({0, 1, int(L - 2)}, at::kInt)));
  CHECK(at::equal(got.indices.slice(1, 2, L - 2), at::arange(3, at::kInt).expand({1, L - 4, 3})));
}
