// Stage 1's loss over every visible key: right against autograd on whole float64 matrices, equal to
// the selected loss with everything selected, and small in memory.
#include "attention/ops.h"
#include "harness/memory.h"
#include "tests/close_to.h"
#include "tests/sanitizer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <cmath>
#include <limits>

using namespace dsa;
using namespace dsa::testing;

namespace {

struct Shape {
  int64_t batch, queries, keys, heads, kv_heads, index_heads;
};

struct WarmupCase {
  ops::IndexTensors index;
  at::Tensor q, k, lse;
  double scale = 0.3;

  WarmupCase to(c10::ScalarType dtype) const {
    const auto leaf = [&](const at::Tensor& x) { return x.to(dtype).detach().requires_grad_(); };
    return {{leaf(index.q), leaf(index.k), leaf(index.weight)},
            q.to(dtype),
            k.to(dtype),
            lse.to(dtype),
            scale};
  }
  at::Tensor loss() const { return ops::dense_indexer_kl(index, q, k, lse, scale); }
};

at::Tensor future_of(int64_t queries, int64_t keys) {
  return at::ones({queries, keys}, at::kBool).triu_(1 + keys - queries);
}

/// Attention logits [B, H, T, S], -inf in the future.
at::Tensor logits_of(const WarmupCase& c) {
  const int64_t group = c.q.size(2) / c.k.size(2);
  const at::Tensor k = c.k.repeat_interleave(group, 2);
  return (at::einsum("bthd,bshd->bhts", {c.q, k}) * c.scale)
      .masked_fill(future_of(c.q.size(1), c.k.size(1)), -std::numeric_limits<double>::infinity());
}

WarmupCase random_case(const Shape& s, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const auto draw = [&](at::IntArrayRef shape) { return at::randn(shape, generator, at::kDouble); };
  WarmupCase c{{draw({s.batch, s.queries, s.index_heads, 12}), draw({s.batch, s.keys, 12}),
                draw({s.batch, s.queries, s.index_heads}) * 0.3},
               draw({s.batch, s.queries, s.heads, 16}),
               draw({s.batch, s.keys, s.kv_heads, 16}),
               {}};
  c.lse = at::logsumexp(logits_of(c), {-1}).transpose(1, 2).contiguous();
  return c.to(at::kDouble);
}

/// The definition, on whole matrices.
at::Tensor loss_by_definition(const WarmupCase& c) {
  const at::Tensor target = at::softmax(logits_of(c), -1).mean(1);
  const at::Tensor future = future_of(c.q.size(1), c.k.size(1));
  const at::Tensor products = at::relu(at::einsum("btij,bsj->btis", {c.index.q, c.index.k}));
  const at::Tensor scores = (products * c.index.weight.unsqueeze(-1))
                                .sum(2)
                                .masked_fill(future, -std::numeric_limits<double>::infinity());
  const at::Tensor log_p = at::log_softmax(scores, -1).masked_fill(future, 0);
  return (at::xlogy(target, target) - target * log_p).sum(-1).mean();
}

std::vector<at::Tensor> gradients(const WarmupCase& c, const at::Tensor& loss) {
  (loss * 3).backward();  // not 1: the incoming gradient must be used
  return {c.index.q.grad(), c.index.k.grad(), c.index.weight.grad()};
}

/// As a whole, which is what an update sees.
double relative_error(const at::Tensor& found, const at::Tensor& oracle) {
  return ((found.to(at::kDouble) - oracle).norm() / oracle.norm()).item<double>();
}

}  // namespace

TEST_CASE("stage 1's loss and gradients are those of whole float64 matrices", "[warmup-loss]") {
  // One tile, a tile and a bit, exact tiles, more keys than queries, grouped heads, one query.
  const Shape shape =
      GENERATE(Shape{1, 20, 20, 2, 2, 3}, Shape{2, 150, 150, 4, 2, 4}, Shape{1, 128, 128, 1, 1, 1},
               Shape{1, 70, 200, 4, 1, 2}, Shape{1, 1, 1, 2, 2, 2}, Shape{3, 1, 77, 2, 2, 2});
  CAPTURE(shape.batch, shape.queries, shape.keys, shape.heads, shape.index_heads);
  const WarmupCase wide = random_case(shape, 5), narrow = wide.to(at::kFloat),
                   oracle = wide.to(at::kDouble);
  const at::Tensor expected = loss_by_definition(oracle);
  const at::Tensor loss = wide.loss(), rounded = narrow.loss();
  CHECK(std::abs(loss.item<double>() - expected.item<double>()) <= 1e-12);
  CHECK(std::abs(rounded.item<double>() - expected.item<double>()) <= 5e-6);
  const auto want = gradients(oracle, expected), found = gradients(wide, loss);
  const auto close = gradients(narrow, rounded);
  if (shape.keys == 1) {  // one key: its probability is 1 whatever the indexer says
    for (const auto& gradient : found) CHECK(gradient.abs().max().item<double>() == 0);
    return;
  }
  for (size_t i = 0; i < want.size(); ++i) {
    CAPTURE(i);
    CHECK(relative_error(found[i], want[i]) <= 1e-12);
    CHECK(relative_error(close[i], want[i]) <= 5e-6);
  }
}

TEST_CASE("stage 1's loss equals stage 2's with every key selected", "[warmup-loss]") {
  const WarmupCase c = random_case({2, 90, 90, 4, 2, 4}, 8);
  const ops::Selection all = ops::window_selection(2, 90, 90, 90);
  const at::Tensor target = ops::selected_attention_mass(c.q, c.k, all, c.lse, c.scale);
  const at::Tensor scores = ops::selected_scores(c.index.q, c.index.k, c.index.weight, all);
  const at::Tensor selected = ops::indexer_kl(scores, target, all);
  CHECK(std::abs(selected.item<double>() - c.loss().item<double>()) <= 1e-12);
}

TEST_CASE("stage 1's loss gives attention no gradient", "[warmup-loss]") {
  const WarmupCase c = random_case({1, 70, 70, 2, 2, 2}, 3);
  const at::Tensor q = c.q.detach().requires_grad_(), k = c.k.detach().requires_grad_();
  ops::dense_indexer_kl(c.index, q, k, c.lse, c.scale).backward();
  CHECK_FALSE(q.grad().defined());
  CHECK_FALSE(k.grad().defined());
  CHECK(c.index.q.grad().abs().sum().item<double>() > 0);
}

TEST_CASE("stage 1's loss refuses tensors that do not belong together", "[warmup-loss]") {
  const WarmupCase c = random_case({1, 8, 8, 2, 2, 2}, 3),
                   other = random_case({1, 9, 9, 2, 2, 2}, 3);
  using Catch::Matchers::ContainsSubstring;
  using Catch::Matchers::MessageMatches;
  CHECK_THROWS_MATCHES(ops::dense_indexer_kl(c.index, other.q, other.k, other.lse, 1), Error,
                       MessageMatches(ContainsSubstring("must agree")));
  CHECK_THROWS_MATCHES(ops::dense_indexer_kl(c.index, c.q, c.k, other.lse, 1), Error,
                       MessageMatches(ContainsSubstring("lse")));
}

TEST_CASE("stage 1's loss never holds a matrix of all pairs", "[warmup-loss][memory]") {
  need_plain_heap();
  // 4 index heads: the tile's largest matrix is 64 * 4 * L floats. Each thread has a tile.
  const int threads = at::get_num_threads();
  at::set_num_threads(2);
  const auto peak = [](int64_t length) {
    const auto draw = [](at::IntArrayRef shape) { return at::randn(shape, at::kFloat); };
    const ops::IndexTensors index{draw({1, length, 4, 16}).requires_grad_(), draw({1, length, 16}),
                                  draw({1, length, 4})};
    const at::Tensor q = draw({1, length, 2, 16}), k = draw({1, length, 2, 16});
    const at::Tensor lse = at::full({1, length, 2}, 9.0);
    return peak_bytes([&] { ops::dense_indexer_kl(index, q, k, lse, 0.25).backward(); });
  };
  const auto small = peak(2048), large = peak(8192);
  at::set_num_threads(threads);
  if (!small || !large) SKIP("the high-water mark cannot be reset here");
  CAPTURE(*small, *large);
  const double tile = 64.0 * 4 * 8192 * 4;  // bytes
  CHECK(*large <= 6 * tile);
  CHECK(*large < 0.25 * 8192.0 * 8192 * 4);
  CHECK(*large <= 5 * *small);
}

TEST_CASE("stage 2's loss needs memory for selected pairs, not for all", "[warmup-loss][memory]") {
  need_plain_heap();
  constexpr int64_t kTopK = 64;
  const auto peak = [](int64_t length) {
    const auto draw = [](at::IntArrayRef shape) { return at::randn(shape, at::kFloat); };
    const ops::IndexTensors index{draw({1, length, 4, 16}).requires_grad_(),
                                  draw({1, length, 16}).requires_grad_(),
                                  draw({1, length, 4}).requires_grad_()};
    const at::Tensor q = draw({1, length, 2, 16}), k = draw({1, length, 2, 16});
    const at::Tensor lse = at::full({1, length, 2}, 9.0);
    const ops::Selection chosen = ops::random_selection(1, length, length, kTopK, 1);
    return peak_bytes([&] {
      const at::Tensor target = ops::selected_attention_mass(q, k, chosen, lse, 0.25);
      const at::Tensor scores = ops::selected_scores(index.q, index.k, index.weight, chosen);
      ops::indexer_kl(scores, target, chosen).backward();
    });
  };
  const auto small = peak(2048), large = peak(8192);
  if (!small || !large) SKIP("the high-water mark cannot be reset here");
  CAPTURE(*small, *large);
  CHECK(*large <= 16 * 4.0 * 8192 * kTopK);
  CHECK(*large <= 5 * *small);
}

TEST_CASE("stage 1's loss has the same bits on one thread and on two", "[warmup-loss]") {
  const WarmupCase c = random_case({1, 700, 700, 4, 2, 4}, 6);
  const auto on = [&](int threads) {
    const int before = at::get_num_threads();
    at::set_num_threads(threads);
    const WarmupCase own = c.to(at::kFloat);
    auto all = gradients(own, own.loss());
    all.push_back(own.loss().detach());
    at::set_num_threads(before);
    return all;
  };
  const auto one = on(1), two = on(2);
  for (size_t i = 0; i < one.size(); ++i) {
    CAPTURE(i);
    CHECK(one[i].equal(two[i]));
  }
}
