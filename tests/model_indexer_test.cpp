// The indexer's options against a plain computation of the same: layout of RoPE, Hadamard, ReLU.
#include "tests/model_fixture.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <cmath>

using namespace dsa;
using namespace dsa::testing;

namespace {

constexpr int64_t kTokens = 300;

struct IndexerRun {
  AttentionCapture capture;
  AttentionOutput output;
  std::shared_ptr<AttentionLayer> layer;
};

/// The same float64 layer and input whatever the options.
IndexerRun run_indexer(AttentionConfig config) {
  config.backend = "reference";
  seed_torch(21);
  IndexerRun run{{}, {}, variant("dsa").make(config)};
  run.layer->to(at::kDouble);
  run.layer->capture = &run.capture;
  const at::Tensor hidden =
      at::randn({1, kTokens, config.d_model}, at::detail::createCPUGenerator(6), at::kDouble);
  run.output = run.layer->forward(hidden, position_ids(kTokens));
  return run;
}

/// Turns x [T, ..., J] pair by pair as the layout says, number by number.
at::Tensor turned(const at::Tensor& x, int64_t width, bool interleaved) {
  at::Tensor out = x.clone();
  for (int64_t t = 0; t < x.size(0); ++t) {
    for (int64_t i = 0; i < width / 2; ++i) {
      const double angle =
          static_cast<double>(t) *
          std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(width));
      const int64_t a = interleaved ? 2 * i : i, b = interleaved ? 2 * i + 1 : i + width / 2;
      const at::Tensor first = x[t].select(-1, a), second = x[t].select(-1, b);
      out[t].select(-1, a).copy_(first * std::cos(angle) - second * std::sin(angle));
      out[t].select(-1, b).copy_(first * std::sin(angle) + second * std::cos(angle));
    }
  }
  return out;
}

/// What the indexer of `run` should select with pairs of queries and of keys as told, from its weights.
at::Tensor expected_ids(const IndexerRun& run, const AttentionConfig& config, bool interleaved_q,
                        bool interleaved_k) {
  const at::NoGradGuard no_grad;
  const auto p = run.layer->named_parameters();
  const at::Tensor x =
      at::randn({kTokens, config.d_model}, at::detail::createCPUGenerator(6), at::kDouble);
  const at::Tensor q = at::linear(x, p["indexer.q"]).view({kTokens, config.index_heads, -1});
  const at::Tensor k = at::layer_norm(at::linear(x, p["indexer.k"]), {config.index_width},
                                      p["indexer.norm_scale"], p["indexer.norm_bias"], 1e-6);
  const at::Tensor products =
      at::relu(at::einsum("tij,sj->tis", {turned(q, config.index_rope_width, interleaved_q),
                                          turned(k, config.index_rope_width, interleaved_k)}));
  const at::Tensor weight = at::linear(x, p["indexer.weight"]);
  const at::Tensor scores = (products * weight.unsqueeze(-1)).sum(1);
  return ops::select_top_k(scores.unsqueeze(0), config.top_k).indices;
}

}  // namespace

TEST_CASE("with S far above K, the layout of the indexer's RoPE decides what is selected",
          "[model][indexer]") {
  AttentionConfig config = small_attention();
  config.index_heads = 8;  // with few, ReLU leaves rows of ties
  const bool interleaved = GENERATE(false, true);
  CAPTURE(interleaved);
  config.index_rope_layout = interleaved ? "interleaved" : "half_split";
  const IndexerRun run = run_indexer(config);
  const at::Tensor& found = run.capture.selection.indices;
  CHECK(found.equal(expected_ids(run, config, interleaved, interleaved)));
  // Of both, or of one side alone: queries and keys that do not match, too.
  for (const auto& [of_q, of_k] : {std::pair{!interleaved, !interleaved},
                                   {!interleaved, interleaved},
                                   {interleaved, !interleaved}}) {
    const at::Tensor wrong = expected_ids(run, config, of_q, of_k);
    const int64_t same_rows = (found == wrong).all(-1).sum().item<int64_t>();
    CAPTURE(of_q, of_k);
    CHECK(same_rows < kTokens / 4);
  }
  // Where K >= S the fault cannot be seen.
  config.top_k = kTokens;
  CHECK(run_indexer(config).capture.selection.indices.equal(
      expected_ids(run, config, !interleaved, !interleaved)));
}

TEST_CASE("a Hadamard rotation changes q and k but neither scores, selection nor loss",
          "[model][indexer]") {
  AttentionConfig config = small_attention();
  const IndexerRun plain = run_indexer(config);
  config.index_hadamard = true;
  const IndexerRun rotated = run_indexer(config);
  CHECK(relative_error(rotated.capture.index.k, plain.capture.index.k) > 0.1);
  const auto scores = [](const IndexerRun& run) {
    const ops::IndexTensors& index = run.capture.index;
    return at::einsum("btij,bsj->btis", {index.q, index.k});
  };
  CHECK(relative_error(scores(rotated), scores(plain)) < 1e-12);
  CHECK(rotated.capture.selection.indices.equal(plain.capture.selection.indices));
  plain.output.indexer_loss.backward(), rotated.output.indexer_loss.backward();
  for (const auto& p : plain.layer->named_parameters()) {
    if (!is_indexer(p.key())) continue;
    INFO(p.key());
    CHECK(relative_error(rotated.layer->named_parameters()[p.key()].grad(), p.value().grad()) <
          1e-6);
  }
}

TEST_CASE("without ReLU the index score is the weighted sum of products", "[model][indexer]") {
  AttentionConfig config = small_attention();
  const ops::IndexTensors with = run_indexer(config).capture.index;
  config.index_relu = false;
  const IndexerRun run = run_indexer(config);
  const ops::IndexTensors& index = run.capture.index;
  REQUIRE(index.q.size(2) == 2 * config.index_heads);
  const at::Tensor products = at::einsum("btij,bsj->btis", {with.q, with.k});
  const at::Tensor exact = (products * with.weight.unsqueeze(-1)).sum(2);
  const at::Tensor found = ops::indexer_scores(index.q, index.k, index.weight);
  const at::Tensor past = at::ones({kTokens, kTokens}, at::kBool).tril_();
  CHECK(relative_error(found.masked_select(past), exact.masked_select(past)) < 1e-12);
  CHECK(run.capture.selection.indices.equal(ops::select_top_k(exact.detach(), 6).indices));
  run.output.indexer_loss.backward();
  for (const auto& p : run.layer->named_parameters()) {
    INFO(p.key());
    if (is_indexer(p.key())) CHECK(largest(p.value().grad()) > 0);
  }
}

TEST_CASE("wrong options of the indexer are named with their values", "[model][indexer]") {
  const auto refused = [](const std::string& part, auto spoil) {
    AttentionConfig config = small_attention();
    spoil(config);
    CHECK_THROWS_MATCHES(check(config), Error,
                         Catch::Matchers::MessageMatches(Catch::Matchers::ContainsSubstring(part)));
  };
  refused("index-rope-layout is \"neox\"", [](auto& c) { c.index_rope_layout = "neox"; });
  refused("index-width is 24", [](auto& c) { c.index_width = 24, c.index_hadamard = true; });
}
