// The gate of kernel benchmarks lets right results through and nothing else.
#include "bench/kernel_check.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <catch2/catch_test_macros.hpp>

#include <cmath>
#include <limits>
#include <set>

using namespace dsa;
using namespace dsa::bench;

namespace {

at::Tensor rows(std::vector<double> values, int64_t width) {
  return at::tensor(values, at::kDouble).reshape({1, -1, width});
}

at::Tensor ids(std::vector<int32_t> values, int64_t width) {
  return at::tensor(values, at::kInt).reshape({1, -1, width});
}

KernelConfig small() {
  KernelConfig config;
  config.top_k = {4};
  config.heads = {2};
  config.kv_heads = 1;
  config.widths = {8};
  config.index_heads = {2};
  config.index_widths = {8};
  config.dtypes = {"f32", "f64"};
  config.scores = {"uniform", "relu_plateau", "concentrated"};
  return config;
}

}  // namespace

TEST_CASE("the error is that of the worst row, relative to its size", "[bench]") {
  const at::Tensor ref = rows({3, 4, 30, 40}, 2);
  CHECK(worst_row_error(ref, ref) == 0);
  CHECK(std::abs(worst_row_error(rows({3, 4.5, 30, 40}, 2), ref) - 0.1) < 1e-12);
  CHECK(std::abs(worst_row_error(rows({3, 4, 30, 45}, 2), ref) - 0.1) < 1e-12);
}

TEST_CASE("NaN and misplaced infinities never pass", "[bench]") {
  const double inf = std::numeric_limits<double>::infinity();
  const at::Tensor ref = rows({1, -inf, 2, 3}, 2);
  CHECK(worst_row_error(ref, ref) == 0);
  CHECK(std::isinf(worst_row_error(rows({1, 0, 2, 3}, 2), ref)));
  CHECK(std::isinf(worst_row_error(rows({1, -inf, -inf, 3}, 2), ref)));
  CHECK(std::isnan(worst_row_error(rows({1, -inf, std::nan(""), 3}, 2), ref)));
}

TEST_CASE("a row without size is measured against the usual row, not against the zeros",
          "[bench]") {
  const at::Tensor ref = rows({0, 0, 0, 0, 1, 0}, 1);
  CHECK(std::abs(worst_row_error(ref + 0.001, ref, 1) - 0.001) < 1e-12);
}

TEST_CASE("wrong members are counted, near ties may fall either way", "[bench]") {
  // Query 0 sees one key, query 1 two, query 2 three.
  const double hidden = -std::numeric_limits<double>::infinity();
  const at::Tensor scores =
      at::tensor({5., hidden, hidden, 1., 2., hidden, 3., 1., 2.}).reshape({1, 3, 3});
  const at::Tensor exact = at::zeros({1, 1, 1}, at::kDouble);
  CHECK(wrong_members(ids({0, -1, 0, 1, 0, 2}, 2), scores, exact) == 0);
  CHECK(wrong_members(ids({0, -1, 0, 1, 0, 1}, 2), scores, exact) == 1);  // 1 instead of 2
  CHECK(wrong_members(ids({0, -1, 0, 1, 0, 1}, 2), scores, exact + 1) == 0);
  CHECK(wrong_members(ids({0, 1, 0, 1, 0, 2}, 2), scores, exact) == 1);    // a future key
  CHECK(wrong_members(ids({0, -1, 1, 0, 0, 2}, 2), scores, exact) == 1);   // not ascending
  CHECK(wrong_members(ids({0, -1, 0, -1, 0, 2}, 2), scores, exact) == 2);  // one too few
}

TEST_CASE("every backend passes the gate on slices as on the whole, for every distribution",
          "[bench]") {
  InputCache inputs;
  const KernelConfig config = small();
  size_t checked = 0;
  for (const KernelCase& kernel : kernel_cases(config, {1, 5, 40})) {
    if (!bench::reason_to_decline(kernel).empty() || kernel.gemm > 0) continue;
    const auto sets = inputs.get(kernel, config);
    INFO(name(kernel.op) << " " << kernel.backend << " " << kernel.scores
                         << " L=" << kernel.problem.keys);
    const Verdict sliced = check(kernel, sets->sets.front(), 3);
    CHECK(sliced.failure.empty());
    const Verdict whole = check(kernel, sets->sets.back(), 100);
    CHECK(whole.failure.empty());
    ++checked;
  }
  CHECK(checked > 100);
}

TEST_CASE("gradients that are only rounding pass the gate", "[bench]") {
  // One key: its probability is 1 whatever q and k are, and their gradients are 0.
  KernelConfig config = small();
  config.dtypes = {"f32"};
  config.families = {"dense_attention", "sparse_attention"};
  for (config.seed = 1; config.seed <= 50; ++config.seed) {
    InputCache inputs;
    for (const KernelCase& kernel : kernel_cases(config, {1})) {
      if (!kernel.backward() || !bench::reason_to_decline(kernel).empty()) continue;
      INFO(name(kernel.op) << " " << kernel.backend << " seed " << config.seed);
      CHECK(check(kernel, inputs.get(kernel, config)->sets.front(), 3).failure.empty());
    }
  }
}

TEST_CASE("the gate sees one wrong number in one row", "[bench]") {
  // Inputs that differ from those the kernel saw in a single value of one key.
  KernelConfig config = small();
  config.dtypes = {"f32"};
  config.families = {"dense_attention", "sparse_attention", "indexer_scores"};
  for (const KernelCase& kernel : kernel_cases(config, {40})) {
    if (kernel.backward() || kernel.backend != "reference") continue;
    InputCache inputs;
    const InputSet set = inputs.get(kernel, config)->sets.front();
    InputSet changed = set;
    changed.k = set.k.clone();
    changed.k.view({-1})[0] += 1e-2;
    const at::Tensor right = call(kernel, set).front(), wrong = call(kernel, changed).front();
    CHECK(worst_row_error(right, right) <= tolerance(kernel));
    CHECK(worst_row_error(wrong, right) > tolerance(kernel));
  }
}

namespace {

/// Forward and backward rows of `cpu` sparse attention.
std::vector<KernelCase> sparse_cases(KernelConfig config, const char* dtype, int64_t length) {
  config.dtypes = {dtype};
  config.families = {"sparse_attention"};
  config.backends = {"cpu"};
  return kernel_cases(config, {length});
}

}  // namespace

TEST_CASE("our sparse attention is held to what it promises, peers to what rounding explains",
          "[bench]") {
  KernelConfig config = small();
  config.scores = {"uniform"};
  const auto bounds = [&](const char* dtype) {
    std::vector<double> found;
    for (const KernelCase& kernel : sparse_cases(config, dtype, 40))
      found.push_back(tolerance(kernel));
    return found;
  };
  CHECK(bounds("f32") == std::vector<double>{2e-6, 5e-6});
  CHECK(bounds("bf16").front() == 1.2e-2);
  config.kv_heads = 0;  // as many as heads
  CHECK(bounds("bf16").front() == 6e-3);
  KernelCase peer = sparse_cases(config, "f32", 40).front();
  peer.backend = "torch-gather";
  CHECK(tolerance(peer) > 2e-6);
}

TEST_CASE("errors at the goals' shapes keep to what is promised", "[bench][slow]") {
  struct Shape {
    const char* dtype;
    int64_t length, heads, kv_heads, width, v_width;
  };
  for (const Shape& shape :
       {Shape{"f32", 8192, 8, 8, 64, 64}, Shape{"bf16", 8192, 8, 8, 64, 64},
        Shape{"bf16", 4096, 16, 1, 576, 512}, Shape{"bf16", 4096, 128, 1, 576, 512}}) {
    KernelConfig config = small();
    config.top_k = {512};
    config.heads = {shape.heads};
    config.kv_heads = shape.kv_heads;
    config.widths = {shape.width};
    config.v_width = shape.v_width;
    for (const KernelCase& kernel : sparse_cases(config, shape.dtype, shape.length)) {
      // No goal and no bound of the issue names these gradients.
      if (kernel.backward() && shape.kv_heads == 1) continue;
      InputCache inputs;
      const Verdict verdict = check(kernel, inputs.get(kernel, config)->sets.front(), 48);
      INFO(shape.dtype << " H " << shape.heads << (kernel.backward() ? " backward" : " forward")
                       << " error " << verdict.error);
      CHECK(verdict.failure.empty());
      CHECK(verdict.error > 0);
    }
  }
}

TEST_CASE("inputs are the same for every backend, and their hash sees a changed bit", "[bench]") {
  InputCache inputs;
  KernelConfig config = small();
  config.families = {"dense_attention"};
  const auto cases = kernel_cases(config, {16});
  const auto first = inputs.get(cases.front(), config);
  CHECK(inputs.get(cases.at(1), config) == first);
  CHECK(first->sets.size() == 4);
  const uint64_t before = first->hash();
  InputCache again;
  CHECK(again.get(cases.front(), config)->hash() == before);
  first->sets.back().v.view({-1})[3] += 1;
  CHECK(first->hash() != before);
}

TEST_CASE("top-k of every backend and of torch passes the gate on every distribution", "[bench]") {
  KernelConfig config = small();
  config.families = {"select_top_k"};
  config.scores = distributions();
  config.queries = {0, 1, 7};
  config.top_k = {1, 4, 50};
  InputCache inputs;
  std::set<std::string> backends;
  for (const KernelCase& kernel : kernel_cases(config, {40})) {
    if (kernel.scores == "captured") continue;  // needs the committed model: captured_test.cpp
    INFO(kernel.backend << " " << kernel.scores << " T=" << kernel.problem.queries
                        << " K=" << kernel.problem.top_k);
    CHECK(check(kernel, inputs.get(kernel, config)->sets.front(), 3).failure.empty());
    backends.insert(kernel.backend);
  }
  CHECK(backends.contains("torch-topk"));
  CHECK(backends.contains("cpu"));
}

TEST_CASE("distributions are what their names say", "[bench]") {
  KernelConfig config = small();
  config.families = {"select_top_k"};
  config.backends = {"reference"};
  config.scores = distributions();
  config.queries = {2};
  for (const KernelCase& kernel : kernel_cases(config, {4000})) {
    if (kernel.scores == "captured") continue;
    InputCache inputs;
    // All keys but the last are visible to both queries.
    const at::Tensor x = inputs.get(kernel, config)->sets.front().scores.narrow(2, 0, 3999)[0];
    const at::Tensor steps = x.narrow(1, 1, 3998) - x.narrow(1, 0, 3998);
    const auto all = [](const at::Tensor& t) { return t.all().item<bool>(); };
    INFO(kernel.scores);
    if (kernel.scores == "all_equal") CHECK(all(steps.eq(0)));
    if (kernel.scores == "two_valued") CHECK(all(x.eq(1).logical_or(x.eq(2))));
    if (kernel.scores == "sorted") CHECK((all(steps.ge(0)) && !all(steps.eq(0))));
    if (kernel.scores == "reverse") CHECK((all(steps.le(0)) && !all(steps.eq(0))));
    if (kernel.scores == "one_radix_bin") {
      CHECK(all(x.contiguous().view(at::kInt).bitwise_right_shift(16).eq(0x3f80)));
      CHECK(!all(steps.eq(0)));
    }
    if (kernel.scores == "denormal") CHECK((all(x.abs().lt(1.1754944e-38)) && !all(x.eq(0))));
    if (kernel.scores == "signed_zero") {
      CHECK((all(x.eq(0)) && x.signbit().any().item<bool>() && !all(x.signbit())));
    }
  }
}

TEST_CASE("yardsticks and the last T queries pass the gate, and a wrong result does not",
          "[bench]") {
  KernelConfig config = small();
  config.dtypes = {"f32", "bf16"};
  config.backends = {"torch-einsum", "torch-einsum-causal", "torch-sdpa", "cpu", "reference"};
  config.queries = {1, 4};
  config.scores = {"uniform", "relu_plateau"};
  InputCache inputs;
  std::set<std::string> families;
  for (const KernelCase& kernel : kernel_cases(config, {1, 40, 300})) {
    if (!bench::reason_to_decline(kernel).empty()) continue;
    INFO(name(kernel.op) << " " << kernel.backend << " " << kernel.scores
                         << " L=" << kernel.problem.keys << " T=" << kernel.problem.queries);
    const auto sets = inputs.get(kernel, config);
    CHECK(check(kernel, sets->sets.front(), 1).failure.empty());
    families.insert(kernel.family());
  }
  CHECK(families.size() >= 5);

  config.families = {"gemm", "indexer_select"};
  config.backends = {"torch-gemm", "torch-einsum", "torch-einsum-causal"};
  config.queries = {0};
  for (const KernelCase& kernel : kernel_cases(config, {300})) {
    const InputSet set = inputs.get(kernel, config)->sets.front();
    INFO(kernel.family() << " " << kernel.scores);
    CHECK(check(kernel, set, 8).failure.empty());
    if (kernel.problem.dtype != c10::kFloat) continue;
    // Half of the width is forgotten.
    InputSet changed = set;
    changed.q = set.q.clone();
    changed.q.narrow(-1, 0, changed.q.size(-1) / 2).zero_();
    const auto forgetful = call(kernel, changed);
    CHECK(!verdict_on(kernel, set, forgetful, 8).failure.empty());
  }
}
