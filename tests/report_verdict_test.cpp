// The first sentence of a report: winning, losing, trading, even, undecided; flawed never wins.
#include "reports/report.h"
#include "reports/verdict.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "report_runs.h"
#include <cmath>

using namespace dsa::report;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;
namespace record = dsa::record;

static std::vector<double> six(double value) {
  return std::vector<double>(6, value);
}

static std::string sentence(const record::Run& run) {
  const Material material(run);
  return plain(verdict_sentence(material.training, material.kernels));
}

static record::Run training_run(const std::vector<double>& losses,
                                const std::vector<double>& times) {
  record::Run run = record::empty_run();
  add_training(run, "plain", 256, six(3), six(1));
  add_training(run, "picky", 256, losses, times);
  return run;
}

TEST_CASE("the verdict names the outcome with its numbers", "[report]") {
  CHECK_THAT(sentence(training_run(six(2.9), six(0.5))),
             StartsWith("picky wins against plain in training at L = 256: loss −0.100") &&
                 ContainsSubstring("2.00× [2.00, 2.00] the speed of plain (n = 6 seeds)"));
  CHECK_THAT(sentence(training_run(six(3.2), six(2))), StartsWith("picky loses against plain"));
  CHECK_THAT(sentence(training_run(six(3.2), six(0.5))), StartsWith("picky trades"));
  CHECK_THAT(sentence(training_run(six(3.01), six(1.01))), StartsWith("picky is even with plain"));
  CHECK_THAT(sentence(training_run(six(3), six(2))), StartsWith("picky loses"));
  CHECK_THAT(sentence(training_run(six(3.01), six(0.5))), StartsWith("picky wins"));
}

TEST_CASE("the verdict says when the data cannot decide", "[report]") {
  CHECK_THAT(sentence(training_run({2.5, 3.5}, {0.5, 0.5})),
             StartsWith("Training data cannot decide"));
  SECTION("one seed decides nothing, however large the difference") {
    record::Run run = record::empty_run();
    add_training(run, "plain", 64, {3}, {1});
    add_training(run, "picky", 64, {2}, {0.1});
    CHECK_THAT(sentence(run), StartsWith("Training data cannot decide") &&
                                  ContainsSubstring("1 seed, so no interval"));
  }
  SECTION("nothing to compare") {
    CHECK_THAT(sentence(record::empty_run()), StartsWith("This record compares nothing"));
  }
}

TEST_CASE("a few seeds that agree are reported as a range, not as 95 %", "[report]") {
  record::Run run = record::empty_run();
  add_training(run, "plain", 64, {3, 3.1}, {1, 1});
  add_training(run, "picky", 64, {2.9, 3.0}, {0.5, 0.6});
  CHECK_THAT(sentence(run),
             StartsWith("picky wins") && ContainsSubstring("n = 2 seeds, [smallest, largest]"));
}

TEST_CASE("the longest length speaks, the others are listed", "[report]") {
  record::Run run = training_run(six(2.9), six(0.5));
  add_training(run, "plain", 64, six(3), six(1));
  add_training(run, "picky", 64, six(3.5), six(2));
  CHECK_THAT(sentence(run), StartsWith("picky wins against plain in training at L = 256") &&
                                ContainsSubstring("; it loses at L = 64"));
}

TEST_CASE("a flawed variant is never the winner and gets a warning", "[report]") {
  record::Run run = training_run(six(3.2), six(2));
  add_training(run, "leaky", 256, six(0.1), six(0.01));
  CHECK_THAT(sentence(run), StartsWith("picky loses") && !ContainsSubstring("leaky"));
  const std::vector<Text> said = warnings(run, TrainingView(run));
  REQUIRE(said.size() == 1);
  CHECK_THAT(plain(said[0]), StartsWith("leaky is marked flawed (sees the future)") &&
                                 ContainsSubstring("must not be believed"));
  const Document document = build({".", run, {}});
  CHECK_THAT(markdown(document, true), !ContainsSubstring("**0.1000**"));
}

TEST_CASE("a baseline beside flawed variants only decides nothing", "[report]") {
  record::Run run = record::empty_run();
  add_training(run, "plain", 64, six(3), six(1));
  add_training(run, "leaky", 64, six(1), six(1));
  CHECK_THAT(
      sentence(run),
      StartsWith("This record sets plain beside flawed variants only, so it decides nothing"));
}

TEST_CASE("profiled times are called no result", "[report]") {
  record::Run run = record::empty_run();
  add_training(run, "plain", 64, six(3), six(1));
  run.metrics[0].labels["profiled"] = "true";
  CHECK_THAT(plain(warnings(run, TrainingView(run)).at(0)), ContainsSubstring("--profile"));
}

TEST_CASE("times of a dry run are called no result", "[report]") {
  record::Run run = record::empty_run();
  add_training(run, "plain", 64, six(3), six(1));
  run.config_json = R"({"dry-run": false})";
  REQUIRE(warnings(run, TrainingView(run)).empty());
  run.config_json = R"({"dry-run": true})";
  CHECK_THAT(plain(warnings(run, TrainingView(run)).at(0)), ContainsSubstring("--dry-run"));
}

TEST_CASE("kernel rows of a busy machine are called doubtful", "[report]") {
  record::Run run = record::empty_run();
  add_training(run, "plain", 64, six(3), six(1));
  const record::Quantity others{"other_cpus", "CPUs", record::Quantity::Better::kLower};
  run.metrics.push_back({others, {{"level", "kernel"}, {"id", "quiet"}}, {0.1}});
  REQUIRE(warnings(run, TrainingView(run)).empty());
  run.metrics.push_back(
      {others, {{"level", "kernel"}, {"id", "crowded"}, {"busy", "true"}}, {1.3}});
  CHECK_THAT(plain(warnings(run, TrainingView(run)).at(0)),
             ContainsSubstring("1 of 2 kernel rows were timed while other processes"));
}

TEST_CASE("a control that does as well is pointed out", "[report]") {
  record::Run run = training_run(six(2.9), six(0.5));
  add_training(run, "near", 256, six(2.9), six(0.4));
  const std::vector<Text> said = warnings(run, TrainingView(run));
  REQUIRE(said.size() == 1);
  CHECK_THAT(plain(said[0]),
             ContainsSubstring("does not show that it matters which keys are selected"));
}

TEST_CASE("a bound that does as well, or better, warns of nothing", "[report]") {
  record::Run run = training_run(six(2.9), six(0.5));
  run.variants.push_back({"best", "the best keys", "bound", 4});
  add_training(run, "best", 256, six(2.8), six(2));
  CHECK(warnings(run, TrainingView(run)).empty());
  const TrainingView view(run);
  CHECK(view.arms().back().variant.name == "best");
  CHECK(sentence(run).find("best ") == std::string::npos);
}

TEST_CASE("kernels are judged by whole DSA of ours against the fastest dense row", "[report]") {
  record::Run run = record::empty_run();
  for (int length : {1024, 4096}) {
    const double scale = length / 1024.0;
    add_kernel(run, "dense_attention", "theirs", length, six(1 * scale * scale));
    add_kernel(run, "dense_attention", "truth", length, six(1e-6));  // an oracle never counts
    add_kernel(run, "sparse_attention", "mine", length, six(1 * scale), 64);
    add_kernel(run, "indexer_select", "mine", length, six(1 * scale), 64);
    add_kernel(run, "sparse_attention", "theirs", length, six(1e-6),
               64);  // no selection of its own
  }
  // 1/2 at 1024, 16/8 at 4096: crossing at 2048.
  CHECK_THAT(
      sentence(run),
      StartsWith("As kernels (fwd, K = 64), whole DSA on mine overtakes at L ≈ 2k [2k, 2k]") &&
          ContainsSubstring("2.00× [2.00, 2.00] as fast as dense on theirs at L = 4k (n = 6)"));
}

TEST_CASE("scores and top-k apart are summed where no fused selection exists", "[report]") {
  record::Run run = record::empty_run();
  add_kernel(run, "dense_attention", "theirs", 1024, six(10));
  add_kernel(run, "sparse_attention", "mine", 1024, six(1), 64);
  add_kernel(run, "indexer_scores", "mine", 1024, six(2));
  add_kernel(run, "select_top_k", "mine", 1024, six(2), 64);
  const KernelView view(run);
  REQUIRE(view.scenarios().size() == 1);
  CHECK(view.scenarios()[0].points[0].best_sparse()->time.median == 5);
  CHECK(view.scenarios()[0].points[0].speed_up().median == 2);
}

TEST_CASE("a run that did not end says so", "[report]") {
  record::Run run = record::empty_run();
  run.status = "running";
  CHECK_THAT(plain(warnings(run, TrainingView(run)).at(0)), ContainsSubstring("did not end"));
  run.status = "failed";
  run.error = "disk full";
  CHECK_THAT(plain(warnings(run, TrainingView(run)).at(0)), ContainsSubstring("disk full"));
}
