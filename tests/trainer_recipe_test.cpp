// Recipes of training: contradictions are refused, each stage has its own rates and coefficients, and a
// run can continue a dense checkpoint.
#include "harness/stages.h"
#include "tests/temporary_folder.h"
#include "tests/trainer_fixture.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <cmath>
#include <functional>
#include <map>

using namespace dsa;
using namespace dsa::testing;
using Catch::Matchers::ContainsSubstring;

namespace {

/// Two dense, three indexer and four sparse steps, at one rate throughout.
TrainConfig three_stages() {
  TrainConfig config = tiny_train();
  config.steps = 9;
  config.dense_steps = 2;
  config.indexer_steps = 3;
  config.schedule = "constant";
  config.warmup_steps = 0;
  config.weight_decay = 0;
  return config;
}

std::map<std::string, at::Tensor> copies_of(Trainer& trainer) {
  std::map<std::string, at::Tensor> all;
  for (const auto& item : trainer.model().named_parameters()) {
    all[item.key()] = item.value().detach().clone();
  }
  return all;
}

bool indexer_moves(Trainer& trainer, int steps) {
  const auto before = copies_of(trainer);
  for (int i = 0; i < steps; ++i) trainer.step();
  for (const auto& [name, value] : copies_of(trainer)) {
    if (name.find(".indexer.") != std::string::npos && !value.equal(before.at(name))) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("a recipe refuses stages that contradict it, in words", "[stages]") {
  struct Case {
    const char* recipe;
    int64_t dense, indexer;
    const char* start;
    const char* refusal;  ///< part of it; empty: accepted
  };
  const std::vector<Case> cases = {{"as-given", 2, 3, "", ""},
                                   {"scratch", 0, 0, "", ""},
                                   {"scratch", 2, 0, "", "train.dense-steps is 2"},
                                   {"scratch", 0, 3, "", "train.indexer-steps is 3"},
                                   {"scratch", 0, 0, "x", "train.start-from"},
                                   {"warmup-sparse", 0, 3, "", ""},
                                   {"warmup-sparse", 0, 0, "", "train.indexer-steps is 0"},
                                   {"warmup-sparse", 2, 3, "", "take the recipe continue"},
                                   {"warmup-sparse", 0, 3, "x", "train.start-from names"},
                                   {"warmup-sparse", 0, 9, "", "leave no sparse step"},
                                   {"continue", 2, 3, "", ""},
                                   {"continue", 0, 3, "x", ""},
                                   {"continue", 0, 3, "", "give train.dense-steps, or"},
                                   {"continue", 2, 3, "x", "only one of"},
                                   {"continue", 2, 0, "", "train.indexer-steps is 0"},
                                   {"continue", 2, 7, "", "leave no sparse step"},
                                   {"paper", 2, 3, "", "train.recipe is 'paper'"}};
  for (const Case& c : cases) {
    CAPTURE(c.recipe, c.dense, c.indexer, c.start);
    TrainConfig config = three_stages();
    config.recipe = c.recipe, config.start_from = c.start;
    config.dense_steps = c.dense, config.indexer_steps = c.indexer;
    std::string refusal;
    try {
      check(config);
    } catch (const Error& error) {
      refusal = error.what();
    }
    CHECK(refusal.empty() == (c.refusal[0] == '\0'));
    CHECK_THAT(refusal, ContainsSubstring(c.refusal));
  }
}

TEST_CASE("settings of a stage without steps are refused", "[stages]") {
  const auto refused = [](const std::string& part, auto change) {
    TrainConfig config = three_stages();
    change(config);
    CHECK_THROWS_WITH(check(config), ContainsSubstring(part));
  };
  refused("no stage 1", [](auto& c) { c.indexer_steps = 0, c.stage1_learning_rate = 1; });
  refused("no stage 1", [](auto& c) { c.indexer_steps = 0, c.stage1_loss_factor = 0; });
  refused("stage 2", [](auto& c) { c.indexer_steps = 7, c.stage2_learning_rate = 1; });
  refused("stage 2", [](auto& c) { c.indexer_steps = 7, c.stage2_indexer_learning_rate = 1; });
  refused("stage 2", [](auto& c) { c.indexer_steps = 7, c.stage2_loss_factor = 2; });
  refused("stage1-learning-rate is -1", [](auto& c) { c.stage1_learning_rate = -1; });
  refused("stage2-loss-factor is nan", [](auto& c) { c.stage2_loss_factor = NAN; });
}

TEST_CASE("each stage has its own learning rates, under one curve", "[stages]") {
  TrainConfig config = three_stages();
  config.learning_rate = 0.1, config.indexer_learning_rate = 0.2;
  const auto at = [&](int64_t step, bool staged = true) {
    const LearningRates rates = learning_rates(config, step, staged);
    return std::pair{rates.model, rates.indexer};
  };
  for (const int64_t step : {0, 3, 6}) CHECK(at(step) == std::pair{0.1, 0.2});
  config.stage1_learning_rate = 0.3;
  config.stage2_learning_rate = 0.4, config.stage2_indexer_learning_rate = 0.5;
  CHECK(at(1) == std::pair{0.1, 0.2});
  CHECK(at(2) == std::pair{0.1, 0.3});
  CHECK(at(4) == std::pair{0.1, 0.3});
  CHECK(at(5) == std::pair{0.4, 0.5});
  CHECK(at(5, false) == std::pair{0.1, 0.2});
  config.warmup_steps = 8;
  CHECK(at(5) == std::pair{0.75 * 0.4, 0.75 * 0.5});

  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 3, 1);
  Trainer dsa("dsa", tiny_attention(), tiny_model(), config, *batches, 1);
  Trainer window("window", tiny_attention(), tiny_model(), config, *batches, 1);
  for (int64_t step = 0; step < 9; ++step) {
    CHECK(dsa.step().learning_rate == at(step).first);
    CHECK(window.step().learning_rate == at(step, false).first);
  }
}

TEST_CASE("a loss factor of 0 stops the indexer in its stage alone", "[stages]") {
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 3, 1);
  for (const bool first : {true, false}) {
    CAPTURE(first);
    TrainConfig config = three_stages();
    (first ? config.stage1_loss_factor : config.stage2_loss_factor) = 0;
    if (!first) config.optimizer = "adam";  // its moments of stage 1 must have died down too
    Trainer trainer("dsa", tiny_attention(), tiny_model(), config, *batches, 1);
    CHECK_FALSE(indexer_moves(trainer, 2));
    CHECK(indexer_moves(trainer, 3) == !first);
    trainer.step();
    for (const auto& p : trainer.model().indexer_parameters()) {
      REQUIRE(p.grad().defined());
      CHECK((p.grad().abs().max().item<double>() > 0) == first);
    }
  }
}

TEST_CASE("continue takes a dense checkpoint's weights and leaves the indexer as drawn",
          "[stages]") {
  const TemporaryFolder folder;
  const std::string file = folder.path("dense.safetensors");
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 3, 1);
  const std::string variant = GENERATE("dsa", "mla_dsa"), baseline = dsa::variant(variant).baseline;
  const auto dense = tiny_trainer(baseline, *batches, 4);
  for (int i = 0; i < 3; ++i) dense->step();
  dense->save(file);
  const auto fresh = tiny_trainer(variant, *batches), started = tiny_trainer(variant, *batches);
  started->start_from(file);
  CHECK(started->steps_done() == 0);
  const auto weights = copies_of(*dense), drawn = copies_of(*fresh);
  for (const auto& [name, value] : copies_of(*started)) {
    CAPTURE(name);
    const bool own = name.find(".indexer.") != std::string::npos;
    CHECK(value.equal(own ? drawn.at(name) : weights.at(name)));
  }

  TrainingJob job;
  job.variant = variant, job.length = 16, job.attention = tiny_attention();
  job.model = tiny_model();
  job.train = three_stages();
  job.train.recipe = "continue";
  job.train.dense_steps = 0, job.train.start_from = file;
  const TrainingResult result = run_training(job, corpus, {});
  REQUIRE(result.steps.size() == 9);
  CHECK(std::isfinite(result.steps[0].indexer_loss));
  // Stage 1 leaves the model alone: its first loss is the dense checkpoint's on that batch.
  job.variant = baseline;
  const TrainingResult same = run_training(job, corpus, {});
  CHECK(result.steps[0].loss == same.steps[0].loss);
}

TEST_CASE("a checkpoint that is no dense model of these sizes is no start", "[stages]") {
  const TemporaryFolder folder;
  const std::string file = folder.path("c.safetensors");
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 3, 1);
  const auto dsa = tiny_trainer("dsa", *batches);
  dsa->save(file);
  CHECK_THROWS_WITH(dsa->start_from(file), ContainsSubstring("dense baseline, dense"));
  tiny_trainer("mla_dense", *batches)->save(file);
  CHECK_THROWS_WITH(dsa->start_from(file), ContainsSubstring("checkpoint of mla_dense"));
  AttentionConfig wide = tiny_attention();
  wide.head_width = 8;
  Trainer other("dense", wide, tiny_model(), tiny_train(), *batches, 1);
  other.save(file);
  CHECK_THROWS_WITH(dsa->start_from(file), ContainsSubstring("model.block0.attention"));
  TrainingJob job;
  job.variant = "dsa", job.length = 16, job.attention = tiny_attention(), job.model = tiny_model();
  job.train = tiny_train();
  job.train.start_from = folder.path("none");
  CHECK_THROWS_WITH(check(job, corpus), ContainsSubstring("there is no such file"));
}
