// A whole run: what leaves through the hooks, stopping and continuing, and learning real text.
#include "attention/fields.h"
#include "tests/sanitizer.h"
#include "tests/temporary_folder.h"
#include "tests/trainer_fixture.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>

using namespace dsa;
using namespace dsa::testing;
using Catch::Matchers::ContainsSubstring;

namespace {

TrainingJob tiny_job(const std::string& variant) {
  TrainingJob job;
  job.variant = variant;
  job.length = 16;
  job.attention = tiny_attention();
  job.model = tiny_model();
  job.train = tiny_train();
  job.train.evaluate_every = 4;
  return job;
}

}  // namespace

TEST_CASE("a run reports every step and evaluation as it happens, and the same in the end",
          "[trainer]") {
  const Corpus corpus = tiny_corpus();
  std::vector<int64_t> steps, evaluated;
  TrainingHooks hooks;
  hooks.on_step = [&](const StepResult& step) { steps.push_back(step.step); };
  hooks.on_evaluation = [&](const Evaluation& evaluation) { evaluated.push_back(evaluation.step); };
  const TrainingResult result = run_training(tiny_job("dsa"), corpus, hooks);
  CHECK(result.finished);
  CHECK(steps == std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  CHECK(evaluated == std::vector<int64_t>{4, 8, 10});
  REQUIRE(result.steps.size() == 10);
  REQUIRE(result.evaluations.size() == 3);
  CHECK(result.step_seconds.size() == 5);
  CHECK(result.median_step_seconds > 0);
  CHECK(result.tokens_per_second == 48 / result.median_step_seconds);
  CHECK(result.final_validation_loss == result.evaluations[2].loss);
  double best = result.evaluations[0].loss, accuracy = 0;
  for (const auto& evaluation : result.evaluations) {
    best = std::min(best, evaluation.loss);
    accuracy = std::max(accuracy, evaluation.accuracy);
    CHECK(evaluation.tokens == 200);
  }
  CHECK(result.best_validation_loss == best);
  CHECK(result.best_accuracy == accuracy);
  CHECK(result.top_k == 4);
  CHECK(result.parameters > result.active_parameters);
  const TrainingResult dense = run_training(tiny_job("dense"), corpus, {});
  CHECK(dense.indexer_parameters == 0);
  CHECK(result.indexer_parameters > 0);
  CHECK(result.parameters == dense.parameters + result.indexer_parameters);
  CHECK(result.flops_per_token > 0);
  CHECK(result.validation_overlap == 0);
}

TEST_CASE("training selects as well with denormals flushed as without", "[trainer]") {
  TrainingJob job = tiny_job("dsa");
  job.length = 64;
  job.attention.backend = "cpu";
  job.attention.top_k = 16;
  job.attention.index_heads = 4;
  job.attention.index_width = 32;
  job.train.batch = 8;
  const auto trained = [&](bool flush) {
    job.train.flush_denormals = flush;
    return run_training(job, tiny_corpus(), {});
  };
  REQUIRE(job.train.flush_denormals);
  const TrainingResult flushed = trained(true), exact = trained(false);
  REQUIRE(flushed.steps.size() == exact.steps.size());
  for (size_t i = 0; i < exact.steps.size(); ++i) {
    CAPTURE(i);
    CHECK(std::abs(flushed.steps[i].loss - exact.steps[i].loss) < 1e-3);
    CHECK(std::abs(flushed.steps[i].indexer_loss - exact.steps[i].indexer_loss) < 1e-3);
  }
  CHECK(std::abs(flushed.final_validation_loss - exact.final_validation_loss) < 1e-3);
}

TEST_CASE("the traced step is split into stages that are all there", "[trainer]") {
  const TrainingResult result = run_training(tiny_job("dsa"), tiny_corpus(), {});
  for (const char* stage : {"indexer", "attention", "moe", "head", "optimizer", "data"}) {
    CAPTURE(stage);
    REQUIRE(result.stage_seconds.contains(stage));
    CHECK(result.stage_seconds.at(stage) > 0);
  }
}

TEST_CASE("peak memory grows with the batch", "[trainer]") {
  need_plain_heap();
  TrainingJob job = tiny_job("dense");
  job.model.n_experts = 0;
  job.length = 64;
  job.train.steps = 1;
  job.train.batch = 64;
  const double small = run_training(job, tiny_corpus(), {}).peak_bytes;
  job.train.batch = 512;
  const double large = run_training(job, tiny_corpus(), {}).peak_bytes;
  if (small == 0) SKIP("the high-water mark cannot be reset here");
  CHECK(large > 2 * small);
}

TEST_CASE("a stopped run writes its checkpoint and continues to the same numbers", "[trainer]") {
  const TemporaryFolder folder;
  const Corpus corpus = tiny_corpus();
  TrainingJob job = tiny_job("dsa");
  const TrainingResult straight = run_training(job, corpus, {});
  job.checkpoint = folder.path("c.safetensors");
  int taken = 0;
  TrainingHooks hooks;
  hooks.on_step = [&](const StepResult&) { ++taken; };
  hooks.stop_requested = [&] { return taken == 6; };
  const TrainingResult stopped = run_training(job, corpus, hooks);
  CHECK(!stopped.finished);
  CHECK(stopped.steps.size() == 6);
  CHECK(stopped.evaluations.size() == 1);
  const TrainingResult continued = run_training(job, corpus, {});
  CHECK(continued.finished);
  REQUIRE(continued.steps.size() == 4);
  for (size_t i = 0; i < 4; ++i) CHECK(continued.steps[i].loss == straight.steps[i + 6].loss);
  CHECK(continued.final_validation_loss == straight.final_validation_loss);
}

TEST_CASE("a model smaller than the data's vocabulary is refused, a larger one is fine",
          "[trainer]") {
  TrainingJob job = tiny_job("dense");
  job.train.steps = 1;
  job.model.vocab_size = 39;
  CHECK_THROWS_WITH(run_training(job, tiny_corpus(), {}),
                    ContainsSubstring("39") && ContainsSubstring("40"));
  job.model.vocab_size = 0;
  const auto exact = run_training(job, tiny_corpus(), {});
  job.model.vocab_size = 100;
  CHECK(run_training(job, tiny_corpus(), {}).parameters == exact.parameters + 60 * 32);
}
