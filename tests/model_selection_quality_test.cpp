// The quality of selections: against plain loops over float64, at the ends of each scale, and on its
// way from an evaluation to the log.
#include "attention/selection_quality.h"
#include "bench/metrics_log.h"
#include "tests/model_fixture.h"
#include "tests/temporary_folder.h"
#include "tests/trainer_fixture.h"

#include <ATen/CPUGeneratorImpl.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <cmath>
#include <map>
#include <set>

using namespace dsa;
using namespace dsa::testing;

namespace {

/// A layer of random heads and a random indexer, whose selection is yet to be made.
AttentionCapture random_layer(int64_t batch, int64_t length) {
  const at::Generator generator = at::detail::createCPUGenerator(11);
  const auto draw = [&](at::IntArrayRef shape) { return at::randn(shape, generator, at::kFloat); };
  return {draw({batch, length, 4, 8}),
          draw({batch, length, 2, 8}),
          {draw({batch, length, 3, 6}), draw({batch, length, 6}), draw({batch, length, 3}) * 0.3},
          {},
          0.4};
}

/// Softmax over s <= t of row[s].
std::vector<double> visible_softmax(const at::Tensor& row, int64_t t) {
  const at::Tensor p = at::softmax(row.narrow(0, 0, t + 1).to(at::kDouble), 0).contiguous();
  return {p.const_data_ptr<double>(), p.const_data_ptr<double>() + t + 1};
}

/// The definitions, one query after the other; `length` - K queries must be whole runs.
SelectionQuality by_definition(const AttentionCapture& layer) {
  const int64_t batch = layer.q.size(0), length = layer.q.size(1);
  const int64_t top_k = layer.selection.indices.size(2);
  const at::Tensor logits =
      at::einsum("bthd,bshd->bhts", {layer.q, layer.k.repeat_interleave(2, 2)});
  const at::Tensor products =
      at::relu(at::einsum("btij,bsj->btis", {layer.index.q, layer.index.k}));
  const at::Tensor scores = (products * layer.index.weight.unsqueeze(-1)).sum(2);
  SelectionQuality sum;
  for (int64_t b = 0; b < batch; ++b) {
    std::map<int64_t, double> uses;
    for (int64_t t = top_k; t < length; ++t) {
      std::vector<double> p(static_cast<size_t>(t + 1));
      for (int64_t head = 0; head < 4; ++head) {
        const auto one = visible_softmax(logits[b][head][t] * layer.scale, t);
        for (size_t s = 0; s < p.size(); ++s) p[s] += one[s] / 4;
      }
      const auto q = visible_softmax(scores[b][t], t);
      std::multimap<double, int64_t> ranked;
      for (size_t s = 0; s < p.size(); ++s) {
        ranked.emplace(-p[s], static_cast<int64_t>(s));
        sum.kl += p[s] * std::log(p[s] / q[s]);
      }
      std::set<int64_t> best;
      for (const auto& [value, s] : ranked)
        if (static_cast<int64_t>(best.size()) < top_k) best.insert(s);
      for (int64_t i = 0; i < top_k; ++i) {
        const int64_t s = layer.selection.indices[b][t][i].item<int32_t>();
        sum.recall += best.contains(s) ? 1 : 0;
        sum.recent += s > t - top_k ? 1 : 0;
        sum.mass += p[static_cast<size_t>(s)];
        ++uses[s];
      }
    }
    for (const auto& [s, count] : uses) {
      const double share = count / static_cast<double>((length - top_k) * top_k);
      sum.entropy -= share * std::log(share) / static_cast<double>(batch);
    }
  }
  const auto queries = static_cast<double>(batch * (length - top_k));
  sum.recall /= queries * static_cast<double>(top_k);
  sum.recent /= queries * static_cast<double>(top_k);
  sum.mass /= queries, sum.kl /= queries;
  return sum;
}

}  // namespace

TEST_CASE("the quality of a selection is what its definitions say", "[quality]") {
  const int64_t length = GENERATE(15, 40, 56);  // 7 judged queries, 2 and 3 runs of 16
  CAPTURE(length);
  AttentionCapture layer = random_layer(2, length);
  layer.selection = ops::indexer_select(layer.index.q, layer.index.k, layer.index.weight, 8);
  const auto found = quality_of(layer);
  REQUIRE(found);
  const SelectionQuality exact = by_definition(layer);
  CHECK(std::abs(found->recall - exact.recall) < 1e-9);
  CHECK(std::abs(found->recent - exact.recent) < 1e-9);
  CHECK(std::abs(found->entropy - exact.entropy) < 1e-9);
  CHECK(std::abs(found->mass - exact.mass) < 1e-5);
  CHECK(std::abs(found->kl - exact.kl) < 1e-5);
}

TEST_CASE("each measure of a selection has its ends where they belong", "[quality]") {
  AttentionCapture layer = random_layer(1, 400);
  layer.selection = ops::oracle_selection(layer.q, layer.k, 16, layer.scale);
  const auto oracle = quality_of(layer);
  layer.selection = ops::random_selection(1, 400, 400, 16, 3);
  const auto random = quality_of(layer);
  layer.selection = ops::window_selection(1, 400, 400, 16);
  layer.index = {};
  const auto window = quality_of(layer);
  layer.selection.indices = at::arange(16, at::kInt).expand({1, 400, 16}).contiguous();
  const auto first_keys = quality_of(layer);
  CHECK(oracle->recall == 1);
  CHECK(random->recall < 0.5);
  CHECK(oracle->mass > random->mass);
  CHECK(window->recent == 1);
  CHECK(std::isnan(window->kl));
  CHECK(std::abs(first_keys->entropy - std::log(16)) < 1e-9);
  CHECK(window->entropy > std::log(380));
  AttentionCapture all = random_layer(1, 16);
  all.selection = ops::window_selection(1, 16, 16, 16);
  CHECK_FALSE(quality_of(all));
}

TEST_CASE("an evaluation judges every layer that selects, in every stage", "[quality]") {
  const std::string name = GENERATE("dense", "dsa", "random", "oracle", "window", "dsa_untrained",
                                    "dsa_as_published", "mla_dense", "mla_dsa");
  CAPTURE(name);
  const Corpus corpus = tiny_corpus();
  const auto tiles = validation_tiles(corpus, 32, 3);
  const auto model = make_model(name, tiny_attention(), tiny_model());
  const Evaluation plain = evaluate(*model, tiles, 1), judged = evaluate(*model, tiles, 1, 2);
  CHECK(plain.selection.empty());
  CHECK(plain.loss == judged.loss);
  CHECK(judged.selection.size() == (variant(name).role == "baseline" ? 0 : 2));
  for (const SelectionQuality& layer : judged.selection) {
    CHECK(std::isnan(layer.kl) == (name == "random" || name == "oracle" || name == "window"));
    CHECK((layer.recall == 1) == (name == "oracle"));
  }
  if (model->set_stage(TrainingStage::kDense)) {
    CHECK(evaluate(*model, tiles, 1, 2).selection.size() == 2);
  }
  CHECK(evaluate(*model, validation_tiles(corpus, 4, 3), 1, 2).selection.empty());  // K = L
}

TEST_CASE("the log gives back the quality of every layer, and what is missing as NaN",
          "[quality]") {
  const TemporaryFolder folder;
  const auto file = folder.path("random-seed1.metrics.jsonl");
  Evaluation evaluation;
  evaluation.selection = {{0.25, 0.5, 0.75, 1.5, 2}, {1, 2, 3, 4, NAN}};
  bench::MetricsLog(file).add(evaluation);
  const auto back = bench::MetricsLog(file).evaluations().at(0).selection;
  REQUIRE(back.size() == 2);
  CHECK(back[0].recall == 0.25);
  CHECK(back[0].kl == 2);
  CHECK(back[1].entropy == 4);
  CHECK(std::isnan(back[1].kl));
}
