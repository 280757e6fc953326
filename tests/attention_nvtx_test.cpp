// StageClock: a step's wall time is split exactly, backward included.
#include "attention/backend.h"
#include "attention/nvtx.h"
#include "attention/ops.h"

#include <ATen/Functions.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

namespace {

using dsa::nvtx::Category;
using dsa::nvtx::Range;
using dsa::nvtx::StageClock;

void sleep_ms(int ms) {
  std::this_thread::sleep_for(std::chrono::milliseconds(ms));
}

/// Identity whose backward takes `ms`.
struct SlowBackward : torch::autograd::Function<SlowBackward> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            int64_t ms) {
    ctx->saved_data["ms"] = ms;
    return x.clone();
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    sleep_ms(static_cast<int>(ctx->saved_data["ms"].toInt()));
    return {grads[0], at::Tensor()};
  }
};

/// Least seconds of scoring and of top-k over some calls: a busy machine interrupts anywhere.
std::pair<double, double> least_seconds(const char* backend, int64_t heads, int64_t width) {
  const int64_t length = 1024;
  const dsa::UseBackend pinned(backend);
  at::manual_seed(1);
  const at::Tensor q = at::randn({1, length, heads, width}), k = at::randn({1, length, width});
  const at::Tensor weight = at::rand({1, length, heads});
  std::pair<double, double> least{1e9, 1e9};
  for (int i = 0; i < 10; ++i) {
    const StageClock clock;
    dsa::ops::indexer_select(q, k, weight, 128);
    least.first = std::min(least.first, clock.seconds(Category::kIndexer));
    least.second = std::min(least.second, clock.seconds(Category::kTopK));
  }
  return least;
}

}  // namespace

TEST_CASE("top-k is told apart from scoring inside fused kernels", "[nvtx]") {
  const char* backend = GENERATE("cpu", "torch-math");
  CAPTURE(backend);
  // 4 heads of 128 go through the screen where there is one, 1 of 16 never does. Their products are 32 times as
  // many, their top-k is the same.
  const auto narrow = least_seconds(backend, 1, 16), wide = least_seconds(backend, 4, 128);
  CAPTURE(narrow.first, narrow.second, wide.first, wide.second);
  CHECK(narrow.second > 0);
  CHECK(wide.second > 0);
  CHECK(wide.first > 1.5 * narrow.first);
}

TEST_CASE("a stage clock charges nested ranges to the inner category only", "[nvtx]") {
  const StageClock clock;
  {
    const Range outer("test_outer", Category::kAttention);
    sleep_ms(20);
    const Range inner("test_inner", Category::kIndexer);
    sleep_ms(60);
  }
  CHECK(clock.seconds(Category::kIndexer) >= 0.060);
  CHECK(clock.seconds(Category::kAttention) >= 0.020);
  CHECK(clock.seconds(Category::kAttention) < 0.060);
}

TEST_CASE("a stage clock charges backward time to the stage of the forward", "[nvtx]") {
  const StageClock clock;
  const at::Tensor leaf = at::ones({2}, at::kFloat).requires_grad_();
  at::Tensor x = leaf;
  {
    const Range moe("test_moe", Category::kMoe);
    x = SlowBackward::apply(x, 40);
  }
  {
    const Range attention("test_attention", Category::kAttention);
    {
      const Range indexer("test_indexer", Category::kIndexer);
      x = SlowBackward::apply(x, 80);
    }
    x = SlowBackward::apply(x, 20);
  }
  const double forward = clock.seconds(Category::kMoe) + clock.seconds(Category::kIndexer) +
                         clock.seconds(Category::kAttention);
  CHECK(forward < 0.020);
  x.sum().backward();
  CHECK(clock.seconds(Category::kMoe) >= 0.040);
  CHECK(clock.seconds(Category::kMoe) < 0.080);
  CHECK(clock.seconds(Category::kIndexer) >= 0.080);
  CHECK(clock.seconds(Category::kAttention) >= 0.020);
  CHECK(clock.seconds(Category::kAttention) < 0.060);
}

TEST_CASE("a stage clock moves no more than the open category has", "[nvtx]") {
  StageClock::reassign(Category::kTopK, 1.0);  // nobody counts
  CHECK_FALSE(StageClock::is_running());
  const StageClock clock;
  CHECK(StageClock::is_running());
  {
    const Range indexer("test_indexer", Category::kIndexer);
    sleep_ms(60);
    StageClock::reassign(Category::kTopK, 0.040);
  }
  CHECK(clock.seconds(Category::kTopK) == 0.040);
  CHECK(clock.seconds(Category::kIndexer) >= 0.020);
  {
    const Range attention("test_attention", Category::kAttention);
    sleep_ms(5);
    StageClock::reassign(Category::kTopK, 10.0);
  }
  CHECK(clock.seconds(Category::kAttention) < 0.005);
  CHECK(clock.seconds(Category::kTopK) >= 0.045);
  CHECK(clock.seconds(Category::kTopK) < 0.080);
}

TEST_CASE("the stages of a clock add up to its lifetime", "[nvtx]") {
  const auto start = std::chrono::steady_clock::now();
  const StageClock clock;
  sleep_ms(10);
  {
    const Range head("test_head", Category::kHead);
    sleep_ms(10);
  }
  double total = 0;
  for (auto c = Category::kSetup; c <= Category::kOther; c = static_cast<Category>(int(c) + 1))
    total += clock.seconds(c);
  const std::chrono::duration<double> lifetime = std::chrono::steady_clock::now() - start;
  CHECK(total <= lifetime.count());
  CHECK(total >= lifetime.count() - 0.002);
  CHECK(clock.seconds(Category::kOther) >= 0.010);
}

TEST_CASE("ranges older than a clock do not disturb it", "[nvtx]") {
  auto older = std::make_unique<Range>("test_older", Category::kData);
  const StageClock clock;
  older.reset();
  sleep_ms(5);
  CHECK(clock.seconds(Category::kData) == 0);
  CHECK(clock.seconds(Category::kOther) >= 0.005);
}
