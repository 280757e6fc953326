// Comparisons on losses and step times worked out by hand: equal steps, equal time, Holm, failed
// seeds, times that must decide nothing.
#include "reports/comparison.h"
#include "reports/report.h"
#include "reports/wall_clock.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "report_runs.h"
#include <cmath>

using namespace dsa::report;
using Catch::Approx;
using Catch::Matchers::ContainsSubstring;
namespace record = dsa::record;

namespace {

record::Run two_arms(const std::vector<double>& plain, const std::vector<double>& picky,
                     int length = 64) {
  record::Run run = record::empty_run();
  add_training(run, "plain", length, plain, std::vector<double>(plain.size(), 1));
  add_training(run, "picky", length, picky, std::vector<double>(picky.size(), 1));
  return run;
}

/// Views point into the run: both live here.
struct Compared {
  explicit Compared(record::Run r) : run(std::move(r)), training(run) {
    all = comparisons(run, training);
  }
  const Comparison& of(const std::string& first, const std::string& second, double length) const {
    for (const Comparison& one : all) {
      if (one.first->name == first && one.second->name == second && one.length == length)
        return one;
    }
    FAIL("no comparison of " << first << " with " << second);
    return all.front();
  }
  bool has(const std::string& first, const std::string& second) const {
    for (const Comparison& one : all) {
      if (one.first->name == first && one.second->name == second) return true;
    }
    return false;
  }
  record::Run run;
  TrainingView training;
  std::vector<Comparison> all;
};

Finding at_steps(const std::vector<double>& plain, const std::vector<double>& picky) {
  return Compared(two_arms(plain, picky)).of("picky", "plain", 64).equal_steps.finding;
}

const std::vector<std::string> kSeeds = {"1", "2", "3"};

/// Losses that fall by 0.1 a step: plain takes 1 s a step, picky 2 s; both evaluate every 2 steps.
record::Run slower_arm(double gain) {
  record::Run run = two_arms({3, 3.001, 3.002}, {3 - gain, 3.001 - gain, 3.002 - gain});
  for (size_t i = 0; i < 3; ++i) {
    const double shift = 0.001 * static_cast<double>(i);
    std::vector<std::pair<int, double>> plain, picky;
    for (int step = 2; step <= 10; step += 2) {
      plain.emplace_back(step, 4 - 0.1 * step + shift);
      picky.emplace_back(step, 4 - gain - 0.1 * step + shift);
    }
    add_curves(run, "plain", 64, kSeeds[i], plain, std::vector<double>(10, 1));
    add_curves(run, "picky", 64, kSeeds[i], picky, std::vector<double>(10, 2));
  }
  run.config_json = R"({"seeds": [1, 2, 3], "train": {"equivalence-margin": 0.02}})";
  return run;
}

void add_samples(record::Run& run, const char* quantity, const std::string& variant,
                 const std::vector<double>& samples) {
  run.metrics.push_back(
      {{quantity, "1"}, {{"level", "training"}, {"variant", variant}, {"L", "64"}}, samples});
}

}  // namespace

TEST_CASE("at equal steps the paired differences decide", "[report]") {
  CHECK(at_steps({3, 4, 5}, {3.001, 4.002, 5.003}) == Finding::kEquivalent);
  CHECK(at_steps({3, 4, 5}, {2.9, 3.905, 4.899}) == Finding::kBetter);
  CHECK(at_steps({3, 4, 5}, {3.1, 4.105, 5.099}) == Finding::kWorse);
  CHECK(at_steps({3, 4, 5}, {3.1, 3.9, 5.05}) == Finding::kInconclusive);
  CHECK(at_steps({3, 4}, {2, 3}) == Finding::kFewSeeds);  // however clear
  // 0.0199 ± nothing is equivalent, 0.0201 is worse: the margin is a line.
  CHECK(at_steps({3, 3, 3}, {3.0199, 3.0199, 3.0199}) == Finding::kEquivalent);
  CHECK(at_steps({3, 3, 3}, {3.0201, 3.0201, 3.0201}) == Finding::kWorse);
}

TEST_CASE("the margin is the record's, and its absence is said", "[report]") {
  record::Run run = two_arms({3, 4, 5}, {3.03, 4.031, 5.032});
  CHECK(Compared(run).of("picky", "plain", 64).equal_steps.finding == Finding::kWorse);
  CHECK_FALSE(margin_of(run).fixed);
  CHECK_THAT(markdown(build({".", run, {}}), true),
             ContainsSubstring("made before runs fixed one"));
  run.config_json = R"({"train": {"equivalence-margin": 0.05}})";
  CHECK(margin_of(run).fixed);
  CHECK(Compared(run).of("picky", "plain", 64).equal_steps.finding == Finding::kEquivalent);
  CHECK_THAT(markdown(build({".", run, {}}), true),
             ContainsSubstring("±0.05, fixed before the run"));
}

TEST_CASE("lengths share the 5 % of their pair", "[report]") {
  // Differences with mean -0.05 and t = 4.5 at 2 degrees of freedom: p = 0.046, alone enough.
  const double spread = 0.05 * std::sqrt(3.0) / 4.5;
  const std::vector<double> picky = {3 - 0.05 - spread, 3 - 0.05, 3 - 0.05 + spread};
  CHECK(at_steps({3, 3, 3}, picky) == Finding::kBetter);
  record::Run run = two_arms({3, 3, 3}, picky);
  add_training(run, "plain", 128, {3, 3, 3}, {1, 1, 1});
  add_training(run, "picky", 128, picky, {1, 1, 1});
  const Compared both(run);
  CHECK(both.of("picky", "plain", 64).equal_steps.finding == Finding::kInconclusive);
  CHECK(both.of("picky", "plain", 64).equal_steps.alone == Finding::kBetter);
  CHECK_THAT(markdown(build({".", run, {}}), true),
             ContainsSubstring("inconclusive (alone: better)"));
}

TEST_CASE("a failed seed is counted in words and never favours who failed", "[report]") {
  const std::vector<double> plain = {3, 4, 5, 6};
  CHECK(at_steps(plain, {2.9, 3.905, 4.899, NAN}) == Finding::kInconclusive);
  CHECK(at_steps(plain, {3.001, 4.002, 5.003, NAN}) == Finding::kInconclusive);
  CHECK(at_steps(plain, {3.1, 4.105, 5.099, NAN}) == Finding::kWorse);
  CHECK(at_steps({3, 4, 5, NAN}, {2.9, 3.905, 4.899, 6}) == Finding::kBetter);
  CHECK(at_steps({3, 4, 5, NAN}, {3.1, 4.105, 5.099, 6}) == Finding::kInconclusive);
  const std::string text =
      markdown(build({".", two_arms(plain, {2.9, 3.905, 4.899, NAN}), {}}), true);
  CHECK_THAT(text, ContainsSubstring("n = 3 of 4 seeds") &&
                       ContainsSubstring("picky has no result for 1 of 4 seeds"));
}

TEST_CASE("seeds asked for that left nothing are missing, not unasked", "[report]") {
  record::Run run = two_arms({3, 4, 5}, {3.001, 4.002, 5.003});
  run.config_json = R"({"seeds": [1, 2, 3, 4]})";
  const Compared found(run);
  CHECK(found.of("picky", "plain", 64).seeds == 4);
  CHECK(found.of("picky", "plain", 64).equal_steps.finding == Finding::kInconclusive);
}

TEST_CASE("the loss at a moment lies on the line between two evaluations", "[report]") {
  const LossOverTime run{{2, 4, 8}, {5, 4, 3.5}, 8};
  CHECK(loss_at(run, 4)->loss == 4);
  CHECK(loss_at(run, 4)->error == 0);
  CHECK(loss_at(run, 6)->loss == Approx(3.75));
  CHECK(loss_at(run, 8)->loss == 3.5);
  CHECK_FALSE(loss_at(run, 1.9));
  CHECK_FALSE(loss_at(run, 8.1));
  SECTION("its error is that of a parabola's") {
    const LossOverTime square{{0, 2, 4}, {0, 4, 16}, 4};
    CHECK(loss_at(square, 1)->loss == 2);
    CHECK(loss_at(square, 1)->error == Approx(1));  // 1 * 1 is 1, not 2
  }
  SECTION("two evaluations tell nothing of the bend") {
    CHECK(loss_at({{2, 4}, {5, 4}, 4}, 3.5)->error == Approx(0.75));
  }
}

TEST_CASE("at equal time the slower one is read when the faster one ends", "[report]") {
  // plain ends after 10 s; picky has then done 5 of its 10 steps and lacks 0.1 for each of the others.
  const Compared same(slower_arm(0));
  const Criterion& c = same.of("picky", "plain", 64).equal_time;
  CHECK(c.difference.n == 3);
  CHECK(c.difference.mean == Approx(0.5));
  CHECK(c.slack < 1e-12);
  CHECK(c.finding == Finding::kWorse);
  CHECK(same.of("picky", "plain", 64).equal_steps.finding == Finding::kEquivalent);
  CHECK(Compared(slower_arm(0.5)).of("picky", "plain", 64).equal_time.finding ==
        Finding::kEquivalent);
  CHECK(Compared(slower_arm(0.8)).of("picky", "plain", 64).equal_time.finding == Finding::kBetter);
}

TEST_CASE("what interpolation may be wrong by counts against every claim", "[report]") {
  record::Run run = slower_arm(0.5);
  for (record::Series& series : run.series) {
    // A bend between the evaluations of step 4 and 6, around the fifth.
    if (series.y.name == "validation_loss" && series.labels.at("variant") == "picky") {
      series.ys[0] += 0.4;
    }
  }
  const Compared bent(run);
  const Criterion& c = bent.of("picky", "plain", 64).equal_time;
  CHECK(c.difference.mean == Approx(0).margin(1e-9));
  CHECK(c.slack == Approx(0.05));
  CHECK(c.finding == Finding::kInconclusive);
}

TEST_CASE("times that are not to be trusted decide nothing, and say why", "[report]") {
  record::Run run = slower_arm(0);
  const auto found = [&] { return Compared(run).of("picky", "plain", 64).equal_time; };
  REQUIRE(found().finding == Finding::kWorse);
  SECTION("resumed") {
    add_samples(run, "resumed_steps", "picky", {0, 4, 0});
    CHECK(found().doubt == "picky: 1 of its seeds was interrupted and resumed");
  }
  SECTION("busy") {
    add_samples(run, "missing_cpus", "plain", {0, 0.05, 0.7});
    CHECK_THAT(found().doubt, ContainsSubstring("plain: other processes had up to 0.70 CPUs"));
  }
  SECTION("uneven") {
    for (record::Series& series : run.series) {
      const bool last = series.labels.at("seed") == "3" && series.labels.at("variant") == "picky";
      if (last && series.y.name == "step_time") series.ys.front() += 5;
    }
    CHECK_THAT(found().doubt,
               ContainsSubstring("its seeds took from 20\u00a0s to 25\u00a0s for the same steps"));
  }
  CHECK(found().finding == Finding::kNotJudged);
  CHECK(Compared(run).of("picky", "plain", 64).equal_steps.finding == Finding::kEquivalent);
  CHECK_THAT(markdown(build({".", run, {}}), true),
             ContainsSubstring("against `plain`: **not judged** at L = 64 ("));
}

TEST_CASE("a small unevenness, and idle neighbours, are no doubt", "[report]") {
  record::Run run = slower_arm(0);
  add_samples(run, "resumed_steps", "picky", {0, 0, 0});
  add_samples(run, "missing_cpus", "picky", {0, 0.05, 0.02});
  for (record::Series& series : run.series) {
    if (series.labels.at("seed") == "3" && series.y.name == "step_time") series.ys.front() += 0.5;
  }
  CHECK(Compared(run).of("picky", "plain", 64).equal_time.finding == Finding::kWorse);
}

TEST_CASE("an evaluation that comes too late leaves equal time open", "[report]") {
  record::Run run = slower_arm(0);
  for (record::Series& series : run.series) {
    if (series.y.name != "validation_loss") continue;
    series.xs = {10}, series.ys = {series.ys.back()};
  }
  const Compared late(run);
  const Criterion& c = late.of("picky", "plain", 64).equal_time;
  CHECK(c.finding == Finding::kNotJudged);
  CHECK_THAT(c.doubt,
             ContainsSubstring("not evaluated around the end of the faster one in 3 of 3"));
}

TEST_CASE("who is compared with whom follows from roles, K and the named baseline", "[report]") {
  record::Run run = record::empty_run();
  run.variants.push_back({"best", "the best keys", "bound", 4});
  run.variants.push_back({"latent", "all keys, latent", "baseline", 5, "latent"});
  run.variants.push_back({"latent_picky", "some keys, latent", "candidate", 6, "latent"});
  for (const auto& variant : run.variants) add_training(run, variant.name, 64, {3}, {1});
  const Compared found(run);
  CHECK(found.has("picky", "plain"));
  CHECK(found.has("near", "plain"));
  CHECK(found.has("leaky", "plain"));
  CHECK(found.has("picky", "near"));
  CHECK(found.has("picky", "best"));
  CHECK_FALSE(found.has("latent", "plain"));  // its own baseline
  CHECK(found.has("latent_picky", "latent"));
  CHECK_FALSE(found.has("latent_picky", "plain"));
  CHECK_FALSE(found.has("latent_picky", "near"));  // of another family
  CHECK_FALSE(found.has("picky", "leaky"));
  CHECK_FALSE(found.has("plain", "plain"));
  CHECK_THAT(markdown(build({".", run, {}}), true), ContainsSubstring("| flawed |"));
}

TEST_CASE("sizes and FLOPs stand side by side", "[report]") {
  record::Run run = two_arms({3, 3}, {3, 3});
  for (const char* variant : {"plain", "picky"}) {
    const bool indexed = std::string(variant) == "picky";
    add_samples(run, "parameters", variant, {indexed ? 2.5e6 : 2.25e6});
    add_samples(run, "active_parameters", variant, {indexed ? 1.5e6 : 1.25e6});
    add_samples(run, "indexer_parameters", variant, {indexed ? 250000.0 : 0.0});
    add_samples(run, "flops_per_token", variant, {indexed ? 9.5e6 : 9e6});
  }
  CHECK_THAT(
      markdown(build({".", run, {}}), true),
      ContainsSubstring("| variant | parameters | active | indexer | FLOP/token, L = 64 |") &&
          ContainsSubstring("| `plain` | 2.250\u00a0M | 1.250\u00a0M | 0 | 9.000\u00a0MFLOP |") &&
          ContainsSubstring(
              "| `picky` | 2.500\u00a0M | 1.500\u00a0M | 250000 | 9.500\u00a0MFLOP |"));
}
