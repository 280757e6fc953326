// Selections: the tie rule, causality, what the door accepts, and the KL loss over them.
#include "attention/backend.h"
#include "attention/ops.h"
#include "tests/close_to.h"
#include "tests/shapes.h"

#include <ATen/core/grad_mode.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <cmath>
#include <limits>

using namespace dsa;
using namespace dsa::testing;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

constexpr uint64_t kSelectionSeed = 20260302;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// The ids of every backend that selects from given scores, which must all be equal.
template <class Check>
void for_each_selector(const at::Tensor& scores, int64_t top_k, const Check& check) {
  Problem p;
  p.batch = scores.size(0), p.queries = scores.size(1), p.keys = scores.size(2), p.top_k = top_k;
  p.dtype = scores.scalar_type();
  for (const Backend& row : backends()) {
    if (reason_to_decline(row, Op::kSelectTopK, p)) continue;
    const UseBackend use(row.name);
    CAPTURE(row.name, scores.sizes(), scores.scalar_type(), top_k, kSelectionSeed);
    check(ops::select_top_k(scores, top_k));
  }
}

ops::Selection reference_top_k(const at::Tensor& scores, int64_t top_k) {
  const UseBackend use("reference");
  return ops::select_top_k(scores, top_k);
}

at::Tensor row_ids(std::initializer_list<int32_t> row) {
  return at::tensor(at::ArrayRef<int32_t>(row.begin(), row.size()), at::kInt);
}

/// Scores that have broken selectors elsewhere: name and tensor [2, 50, 50].
std::vector<std::pair<std::string, at::Tensor>> hostile_scores() {
  const Shape shape{.B = 2, .T = 50, .S = 50, .I = 3, .J = 4, .K = 1};
  const IndexerInputs whole = integer_indexer_inputs(shape, kSelectionSeed, at::kFloat);
  at::Tensor plateau;
  {
    const UseBackend use("reference");
    plateau = ops::indexer_scores(whole.q, whole.k, whole.weight);
  }
  const at::Tensor zeros = at::zeros({2, 50, 50});
  at::Tensor signs = zeros.clone();
  signs.slice(2, 0, 50, 2).fill_(-0.0);
  at::Tensor infinities = plateau.clone();
  infinities.slice(2, 0, 50, 3).fill_(kInfinity);
  infinities.slice(2, 1, 50, 3).fill_(-kInfinity);
  const at::Tensor ramp = at::arange(50, at::kFloat).expand({2, 50, 50});
  return {{"relu plateau", plateau},       {"all zero", zeros},
          {"all equal", zeros + 3.25},     {"+0 and -0", signs},
          {"infinities", infinities},      {"denormals", ramp * 1e-42},
          {"one bin", ramp * 1e-7 + 1},    {"falling", -ramp},
          {"all -inf", zeros - kInfinity}, {"huge", ramp * 6e36 - 1.5e38}};
}

}  // namespace

TEST_CASE("every backend selects the same ids from the same scores", "[ops][selection]") {
  for (const auto& [kind, scores] : hostile_scores())
    for (const int64_t top_k : {1, 2, 7, 49, 50, 61})
      for (const auto dtype : {at::kFloat, at::kDouble}) {
        CAPTURE(kind);
        const auto truth = reference_top_k(scores.to(dtype), top_k);
        for_each_selector(scores.to(dtype), top_k, [&](const ops::Selection& got) {
          CHECK(at::equal(got.indices, truth.indices));
          CHECK(at::equal(got.count, truth.count));
        });
      }
}

TEST_CASE("long rows of every kind select the same ids on every backend", "[ops][selection]") {
  const at::Tensor uniform = at::rand({1, 3, 9000}, at::TensorOptions());
  const at::Tensor plateau = (uniform - 0.7).relu();
  const at::Tensor rounded = (uniform * 16).round();
  for (const at::Tensor& scores : {uniform, plateau, rounded})
    for (const int64_t top_k : {1, 256, 2048, 5000}) {
      const auto truth = reference_top_k(scores, top_k);
      for_each_selector(scores, top_k,
                        [&](const auto& got) { CHECK(at::equal(got.indices, truth.indices)); });
    }
}

TEST_CASE("ties go to the earlier key and ids ascend", "[ops][selection]") {
  const at::Tensor scores = at::zeros({1, 1, 6});
  for_each_selector(scores, 3, [&](const ops::Selection& got) {
    CHECK(at::equal(got.indices.view(-1), row_ids({0, 1, 2})));
  });
  const at::Tensor mixed = at::tensor({1.f, 5.f, 1.f, 7.f, 1.f, 5.f}).view({1, 1, 6});
  for_each_selector(mixed, 4, [&](const ops::Selection& got) {
    CHECK(at::equal(got.indices.view(-1), row_ids({0, 1, 3, 5})));
    CHECK(got.count.item<int>() == 4);
  });
}

TEST_CASE("future scores are never read, not even NaN ones", "[ops][selection]") {
  const at::Tensor scores = at::rand({1, 8, 8});
  const auto truth = reference_top_k(scores, 3);
  const at::Tensor future = at::ones({8, 8}, at::kBool).triu(1);
  const at::Tensor poisoned = scores.masked_fill(future, NAN);
  for_each_selector(poisoned, 3,
                    [&](const auto& got) { CHECK(at::equal(got.indices, truth.indices)); });
}

TEST_CASE("the first NaN score is named, not ranked", "[ops][selection]") {
  at::Tensor scores = at::rand({2, 6, 9});
  scores[1][4][2] = NAN;
  scores[1][5][0] = NAN;
  for (const Backend& row : backends()) {
    if (!provides(row, Op::kSelectTopK)) continue;
    const UseBackend use(row.name);
    CAPTURE(row.name);
    CHECK_THROWS_MATCHES(ops::select_top_k(scores, 2), Error,
                         MessageMatches(ContainsSubstring("(batch 1, query 4, key 2) is NaN")));
  }
  const Shape shape{.B = 1, .T = 5, .S = 5, .I = 2, .J = 4, .K = 2};
  IndexerInputs in = indexer_inputs(shape, kSelectionSeed, at::kFloat);
  in.k[0][3][1] = NAN;
  for (const Backend& row : backends()) {
    Problem p;
    p.index_heads = shape.I, p.index_width = shape.J;
    if (reason_to_decline(row, Op::kIndexerSelect, p)) continue;
    const UseBackend use(row.name);
    CAPTURE(row.name);
    CHECK_THROWS_MATCHES(ops::indexer_select(in.q, in.k, in.weight, 2), Error,
                         MessageMatches(ContainsSubstring("(batch 0, query 3, key 3) is NaN")));
  }
}

TEST_CASE("on whole-number inputs the fused selector has the ids of the two steps",
          "[ops][selection]") {
  for (const Shape& shape : edge_shapes())
    for (const auto dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
      const IndexerInputs in = integer_indexer_inputs(shape, kSelectionSeed, dtype);
      at::Tensor scores;
      {
        const UseBackend use("reference");
        scores = ops::indexer_scores(in.q, in.k, in.weight);
      }
      const auto truth = reference_top_k(scores, shape.K);
      Problem p;
      p.batch = shape.B, p.queries = shape.T, p.keys = shape.S, p.top_k = shape.K;
      p.index_heads = shape.I, p.index_width = shape.J, p.dtype = dtype;
      for (const Backend& row : backends()) {
        if (reason_to_decline(row, Op::kIndexerSelect, p)) continue;
        const UseBackend use(row.name);
        CAPTURE(row.name, shape.text(), dtype, kSelectionSeed);
        const auto got = ops::indexer_select(in.q, in.k, in.weight, shape.K);
        CHECK(at::equal(got.indices, truth.indices));
        CHECK(at::equal(got.count, truth.count));
      }
    }
}

TEST_CASE("the window is the most recent keys", "[ops][selection]") {
  const auto got = ops::window_selection(1, 3, 5, 4);
  CHECK(at::equal(got.indices.view({3, 4}),
                  at::tensor({0, 1, 2, -1, 0, 1, 2, 3, 1, 2, 3, 4}, at::kInt).view({3, 4})));
  CHECK(at::equal(got.count.view(-1), row_ids({3, 4, 4})));
}

TEST_CASE("a fit selection passes the door without a copy", "[ops][selection]") {
  const auto fit = ops::window_selection(2, 9, 9, 4);
  const auto same = ops::checked(fit, 9);
  CHECK(same.indices.is_same(fit.indices));
  CHECK(same.count.is_same(fit.count));
}

TEST_CASE("a messy row is sorted, packed and counted", "[ops][selection]") {
  const at::Tensor messy = row_ids({-1, 5, 0, -1, 3}).view({1, 1, 5});
  for (const at::Tensor& count : {at::Tensor(), row_ids({5}).view({1, 1})}) {
    const auto got = ops::checked({messy, count}, 6);
    CHECK(at::equal(got.indices.view(-1), row_ids({0, 3, 5, -1, -1})));
    CHECK(got.count.item<int>() == 3);
  }
}

TEST_CASE("every kind of hostile id is an error that names its place", "[ops][selection]") {
  const auto message = [](std::initializer_list<int32_t> second_row) {
    const at::Tensor ids = at::cat({row_ids({0, 1, -1}), row_ids(second_row)})
                               .view({1, 2, 3});  // 2 of 6 keys' queries
    try {
      ops::checked({ids, {}}, 6);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  CHECK_THAT(message({0, -2, 1}),
             ContainsSubstring("id -2 at (batch 0, query 1, slot 1) is negative"));
  CHECK_THAT(message({0, 1, 6}),
             ContainsSubstring("id 6 at (batch 0, query 1, slot 2) is outside"));
  CHECK_THAT(message({2147483647, 1, 0}), ContainsSubstring("slot 0) is outside the 6 keys"));
  CHECK_THAT(message({4, 1, 4}), ContainsSubstring("slot 2) is repeated"));
  CHECK(message({5, 1, 4}) == "accepted");
  const at::Tensor future = row_ids({5, -1, 1, 2}).view({1, 2, 2});
  CHECK_THROWS_MATCHES(
      ops::checked({future, {}}, 6), Error,
      MessageMatches(ContainsSubstring("id 5 at (batch 0, query 0, slot 0) lies in "
                                       "the future; this query sees keys up to 4")));
}

TEST_CASE("wrong shapes and dtypes are refused in a sentence", "[ops][selection]") {
  const at::Tensor q = at::rand({1, 4, 2, 8}), k = at::rand({1, 4, 2, 8});
  CHECK_THROWS_MATCHES(ops::dense_attention(q, k, at::rand({1, 5, 2, 8}), 1), Error,
                       MessageMatches(ContainsSubstring("k has 4 keys, v has 5")));
  CHECK_THROWS_MATCHES(ops::dense_attention(q, at::rand({1, 4, 3, 8}), at::rand({1, 4, 3, 8}), 1),
                       Error, MessageMatches(ContainsSubstring("must divide the query heads")));
  CHECK_THROWS_MATCHES(ops::dense_attention(q, k.to(at::kDouble), k, 1), Error,
                       MessageMatches(ContainsSubstring("k is Double, q is Float")));
  CHECK_THROWS_MATCHES(ops::dense_attention(q, k.slice(1, 0, 3), k.slice(1, 0, 3), 1), Error,
                       MessageMatches(ContainsSubstring("4 queries but only 3 keys")));
  CHECK_THROWS_MATCHES(ops::select_top_k(at::rand({1, 2, 2}), 0), Error,
                       MessageMatches(ContainsSubstring("top_k is 0")));
  CHECK_THROWS_MATCHES(UseBackend("cuda9"), Error, MessageMatches(ContainsSubstring("reference")));
}

TEST_CASE("the KL loss is 0 for equal distributions and its gradient is softmax - target",
          "[ops][selection]") {
  const Shape shape{.B = 2, .T = 6, .S = 6, .K = 4};
  const ops::Selection selection = random_selection(shape, kSelectionSeed);
  const at::Tensor valid = selection.indices.ge(0);
  const at::Tensor scores = at::rand({2, 6, 4}, at::kDouble).masked_fill(~valid, -kInfinity);
  const at::Tensor same = at::softmax(scores, -1);
  const at::Tensor leaf = scores.clone().requires_grad_();
  const at::Tensor zero = ops::indexer_kl(leaf, same, selection);
  CHECK(std::abs(zero.item<double>()) < 1e-14);
  zero.backward();
  CHECK_THAT(leaf.grad(), CloseTo(at::zeros_like(scores), 4, 1));

  const at::Tensor target = at::softmax(scores * -2.0, -1).masked_fill(~valid, 0);
  leaf.mutable_grad() = at::Tensor();
  const at::Tensor loss = ops::indexer_kl(leaf, target, selection);
  const at::Tensor terms = (target * (target.log() - same.log())).masked_fill(~valid, 0);
  CHECK_THAT(loss, CloseTo(terms.sum() / 12, 4));
  (3 * loss).backward();
  CHECK_THAT(leaf.grad(), CloseTo((same - target) * 3 / 12, 4));
}

TEST_CASE("a query with no key adds nothing to the KL loss", "[ops][selection]") {
  const at::Tensor ids = at::tensor({0, -1, -1, -1}, at::kInt).view({1, 2, 2});
  const at::Tensor scores = at::full({1, 2, 2}, -kInfinity).requires_grad_();
  at::Tensor target = at::zeros({1, 2, 2});
  target[0][0][0] = 1;
  {
    const at::NoGradGuard no_grad;
    scores[0][0][0] = 2;
  }
  const at::Tensor loss = ops::indexer_kl(scores, target, {ids, {}});
  CHECK(loss.item<float>() == 0);
  loss.backward();
  CHECK(at::equal(scores.grad(), at::zeros({1, 2, 2})));
}
