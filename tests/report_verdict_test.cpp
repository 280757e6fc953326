// The sentences at the top of a report: what is better, equivalent, undecided; flawed never wins.
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

/// All sentences, a line each.
static std::string sentence(const record::Run& run) {
  const Material material(run);
  std::string out;
  for (const Text& text : verdict_sentences(run, material.training, material.kernels)) {
    out += (out.empty() ? "" : "\n") + plain(text);
  }
  return out;
}

static record::Run training_run(const std::vector<double>& losses,
                                const std::vector<double>& times) {
  record::Run run = record::empty_run();
  add_training(run, "plain", 256, six(3), six(1));
  add_training(run, "picky", 256, losses, times);
  return run;
}

TEST_CASE("the verdict names the finding with its numbers", "[report]") {
  CHECK(sentence(training_run(six(2.9), six(0.5))) ==
        "At equal steps, picky against plain: better at L = 256; loss −0.100\u00a0±\u00a0<0.001 "
        "nats/token at L = 256, n = 6 seeds; equivalent is within ±0.02, which the record does not "
        "fix.");
  CHECK_THAT(sentence(training_run(six(3.2), six(2))), ContainsSubstring("worse at L = 256"));
  CHECK_THAT(sentence(training_run(six(3.01), six(1))), ContainsSubstring("equivalent at L = 256"));
  CHECK_THAT(sentence(training_run({2.5, 3.5, 3}, {1, 1, 1})),
             ContainsSubstring("inconclusive at L = 256"));
}

TEST_CASE("too few seeds are no verdict, however large the difference", "[report]") {
  record::Run run = record::empty_run();
  add_training(run, "plain", 64, {3}, {1});
  add_training(run, "picky", 64, {2}, {0.1});
  CHECK(sentence(run) ==
        "At equal steps, picky against plain: too few seeds at L = 64; loss −1.000 nats/token at "
        "L = 64, n = 1 seed; a verdict takes 3 seeds.");
}

TEST_CASE("a record of nothing to compare says so", "[report]") {
  CHECK_THAT(sentence(record::empty_run()), StartsWith("This record compares nothing"));
}

TEST_CASE("lengths of one finding are listed together", "[report]") {
  record::Run run = training_run(six(2.9), six(0.5));
  for (const int length : {64, 128}) {
    add_training(run, "plain", length, six(3), six(1));
    add_training(run, "picky", length, six(3.5), six(2));
  }
  CHECK_THAT(sentence(run), StartsWith("At equal steps, picky against plain: better at L = 256, "
                                       "worse at L = 64 and 128; loss −0.100"));
}

TEST_CASE("equal training time has a sentence of its own, with the speed", "[report]") {
  record::Run run = record::empty_run();
  for (const char* variant : {"plain", "picky"}) {
    const double step = std::string(variant) == "plain" ? 1 : 2;
    add_training(run, variant, 64, {3, 3, 3}, {step, step, step});
    for (const char* seed : {"1", "2", "3"}) {
      add_curves(run, variant, 64, seed, {{2, 3.2}, {4, 3}}, std::vector<double>(4, step));
    }
  }
  CHECK_THAT(
      sentence(run),
      ContainsSubstring("\nAt equal training time, picky against plain: worse at L = 64; loss "
                        "+0.200") &&
          ContainsSubstring("0.500× [0.500, 0.500] the speed of plain."));
}

TEST_CASE("controls and the bound share a sentence", "[report]") {
  record::Run run = training_run(six(2.9), six(0.5));
  run.variants.push_back({"best", "the best keys", "bound", 4});
  add_training(run, "near", 256, six(3), six(1));
  add_training(run, "best", 256, six(2.895), six(1));
  CHECK_THAT(sentence(run), ContainsSubstring("\nOther selections of as many keys, at equal steps: "
                                              "picky against near better at L = 256; against the "
                                              "bound best equivalent at L = 256."));
}

TEST_CASE("a flawed variant is never the winner and gets a warning", "[report]") {
  record::Run run = training_run(six(3.2), six(2));
  add_training(run, "leaky", 256, six(0.1), six(0.01));
  CHECK_THAT(sentence(run), ContainsSubstring("worse") && !ContainsSubstring("leaky"));
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
