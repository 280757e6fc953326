// The stages of training dsa: who moves in which, and that a run may be cut anywhere.
#include "harness/safetensors.h"
#include "harness/training_run.h"
#include "tests/temporary_folder.h"
#include "tests/trainer_fixture.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <cmath>
#include <map>

using namespace dsa;
using namespace dsa::testing;

namespace {

/// Three steps of each stage.
TrainConfig staged() {
  TrainConfig config = tiny_train();
  config.steps = 9;
  config.dense_steps = 3;
  config.indexer_steps = 3;
  return config;
}

std::unique_ptr<Trainer> trainer_of(const std::string& variant, const TrainConfig& config,
                                    const Batches& batches) {
  return std::make_unique<Trainer>(variant, tiny_attention(), tiny_model(), config, batches, 1);
}

std::map<std::string, at::Tensor> weights_of(Trainer& trainer) {
  std::map<std::string, at::Tensor> all;
  for (const auto& item : trainer.model().named_parameters()) {
    all[item.key()] = item.value().detach().clone();
  }
  return all;
}

bool in_indexer(const std::string& name) {
  return name.find(".indexer.") != std::string::npos;
}

/// Parameters that `steps` steps changed: {of the model, of the indexers}.
std::pair<int, int> moved(Trainer& trainer, int steps) {
  const auto before = weights_of(trainer);
  for (int i = 0; i < steps; ++i) trainer.step();
  std::pair<int, int> count{0, 0};
  for (const auto& [name, value] : weights_of(trainer)) {
    if (!value.equal(before.at(name))) ++(in_indexer(name) ? count.second : count.first);
  }
  return count;
}

}  // namespace

TEST_CASE("dense steps leave the indexer alone, indexer steps everything else", "[stages]") {
  const std::string variant = GENERATE("dsa", "mla_dsa");
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 3, 1);
  const auto trainer = trainer_of(variant, staged(), *batches);
  const auto indexers = static_cast<int>(trainer->model().indexer_parameters().size());
  const auto others = static_cast<int>(trainer->model().parameters().size()) - indexers;
  CHECK(moved(*trainer, 3) == std::pair{others, 0});
  CHECK(moved(*trainer, 3) == std::pair{0, indexers});
  CHECK(moved(*trainer, 3) == std::pair{others, indexers});
}

TEST_CASE("each stage reports the losses it has", "[stages]") {
  const std::string variant = GENERATE("dsa", "mla_dsa");
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 3, 1);
  const auto trainer = trainer_of(variant, staged(), *batches);
  for (int step = 0; step < 9; ++step) {
    CAPTURE(step);
    const StepResult result = trainer->step();
    CHECK(result.loss > 0);
    CHECK(std::isnan(result.indexer_loss) == (step < 3));
    CHECK((result.grad_norm == 0) == (step >= 3 && step < 6));
  }
}

TEST_CASE("dense steps of dsa are those of its baseline", "[stages]") {
  const std::string variant = GENERATE("dsa", "mla_dsa");
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 3, 1);
  const auto dsa = trainer_of(variant, staged(), *batches);
  const auto dense = trainer_of(dsa::variant(variant).baseline, staged(), *batches);
  for (int step = 0; step < 3; ++step) CHECK(dsa->step().loss == dense->step().loss);
  const auto shared = weights_of(*dsa);
  for (const auto& [name, value] : weights_of(*dense)) {
    CAPTURE(name);
    CHECK(value.equal(shared.at(name)));
  }
}

TEST_CASE("variants without stages train alike at every step", "[stages]") {
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 3, 1);
  TrainConfig plain = staged();
  plain.dense_steps = plain.indexer_steps = 0;
  for (const std::string variant :
       {"dense", "window", "random", "oracle", "dsa_untrained", "dsa_as_published", "mla_dense"}) {
    CAPTURE(variant);
    const auto with = trainer_of(variant, staged(), *batches);
    const auto without = trainer_of(variant, plain, *batches);
    for (int step = 0; step < 6; ++step) CHECK(with->step().loss == without->step().loss);
  }
}

TEST_CASE("stage 1 brings the indexer closer to dense attention", "[stages]") {
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 32, 3, 1);
  TrainConfig config = staged();
  config.dense_steps = 20;
  config.indexer_steps = 100;
  config.steps = 120;
  config.schedule = "constant";
  const auto trainer = trainer_of("dsa", config, *batches);
  for (int i = 0; i < 20; ++i) trainer->step();
  const double first = trainer->step().indexer_loss;
  double last = first;
  for (int i = 1; i < 100; ++i) last = trainer->step().indexer_loss;
  CAPTURE(first, last);
  CHECK(last < 0.7 * first);
}

TEST_CASE("a checkpoint in any stage continues bit for bit into the next", "[stages]") {
  const std::string variant = GENERATE("dsa", "mla_dsa");
  const TemporaryFolder folder;
  const std::string file = folder.path("c.safetensors");
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 3, 1);
  for (const int cut : {2, 3, 5, 6, 8}) {
    CAPTURE(cut);
    const auto straight = trainer_of(variant, staged(), *batches);
    for (int i = 0; i < cut; ++i) straight->step();
    straight->save(file);
    const auto resumed = trainer_of(variant, staged(), *batches);
    resumed->load(file);
    const auto tiles = validation_tiles(corpus, 16, 3);
    CHECK(evaluate(resumed->model(), tiles, 1).loss == evaluate(straight->model(), tiles, 1).loss);
    for (int i = cut; i < 9; ++i) CHECK(straight->step().loss == resumed->step().loss);
    const auto expected = weights_of(*straight);
    for (const auto& [name, value] : weights_of(*resumed)) {
      CAPTURE(name);
      CHECK(value.equal(expected.at(name)));
    }
  }
}

TEST_CASE("stages longer than the run are refused", "[stages]") {
  TrainConfig config = staged();
  config.indexer_steps = 7;
  using Catch::Matchers::ContainsSubstring;
  CHECK_THROWS_MATCHES(check(config), Error,
                       Catch::Matchers::MessageMatches(ContainsSubstring("indexer-steps 7")));
  config.indexer_steps = -1;
  CHECK_THROWS_MATCHES(check(config), Error,
                       Catch::Matchers::MessageMatches(ContainsSubstring("train.indexer-steps")));
}

TEST_CASE("the best evaluation is one of the last stage", "[stages]") {
  const auto evaluation = [](int64_t step, double loss, double accuracy) {
    Evaluation one;
    one.step = step, one.loss = loss, one.accuracy = accuracy;
    return one;
  };
  // Steps 1 to 6 read every key: better than what selecting makes of it.
  const std::vector<Evaluation> all = {evaluation(0, 0.1, 0.95), evaluation(3, 0.2, 0.9),
                                       evaluation(6, 0.3, 0.8),  evaluation(7, 0.9, 0.4),
                                       evaluation(8, 0.7, 0.5),  evaluation(9, 0.8, 0.6)};
  TrainingResult result;
  result.best_validation_loss = result.best_accuracy = NAN;
  count_best(result, staged(), all);
  CHECK(result.best_validation_loss == 0.7);
  CHECK(result.best_accuracy == 0.6);
  TrainConfig plain = staged();
  plain.dense_steps = plain.indexer_steps = 0;
  count_best(result, plain, all);
  CHECK(result.best_validation_loss == 0.1);
}
