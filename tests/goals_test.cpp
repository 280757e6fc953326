// `dsa-bench goals` as a user meets it: what is reached, missed, not measurable, and misspelt.
#include "harness/goals.h"

#include "harness/recorder.h"
#include "tests/process.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <algorithm>
#include <cmath>

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;
using dsa::tests::Bench;
using dsa::tests::Outcome;
using Json = nlohmann::json;

namespace {

/// Goals that no machine misses, or reaches: a billion times faster or slower than torch.
const std::string kGoals = R"(
[easy]
operation = "sparse against dense"
families = ["sparse_attention"]
against = "torch-sdpa"
against-family = "dense_attention"
lengths = [16, 32]
top-k = 4
heads = 2
width = 8
goal = 1e-9

[hard]
operation = "top-k against torch"
families = ["select_top_k"]
against = "torch-topk"
lengths = [64]
queries = 8
top-k = 4
scores = ["uniform", "all_equal", "denormal", "signed_zero", "one_radix_bin"]
prototype = 1e-9
goal = 1e9

[cross]
operation = "whole DSA against an oracle that is never faster"
families = ["indexer_select", "sparse_attention"]
against = "reference"
against-family = "dense_attention"
measure = "crossover"
lengths = [64, 128]
top-k = 4
heads = 2
width = 8
index-heads = 2
index-width = 8
goal = 256
)";

Json goal_audits(const Bench& bench) {
  return bench.json("record.json")["audits"];
}

Outcome goals(const Bench& bench, const std::string& file, std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {"goals", "--goals", bench.write("goals.toml", file)};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return bench.run(arguments);
}

}  // namespace

TEST_CASE("goals says what is reached and what is missed, and by how much", "[cli][goals]") {
  Bench bench;
  const Outcome outcome = goals(bench, kGoals);
  INFO(outcome.err << outcome.out);
  CHECK(outcome.code == 0);
  CHECK_THAT(outcome.out, ContainsSubstring("easy, sparse against dense: reached "));
  CHECK_THAT(outcome.out, ContainsSubstring("hard, top-k against torch: missing by 100 % ("));
  CHECK_THAT(outcome.out, ContainsSubstring("goal 1000000000.0x; prototype 0.00x reached)"));
  CHECK_THAT(outcome.out, ContainsSubstring("cross, whole DSA"));
  const Json audits = goal_audits(bench);
  REQUIRE(audits.size() == 3);
  CHECK(audits[0]["passed"] == true);
  CHECK(audits[0]["labels"]["status"] == "reached");
  CHECK(audits[1]["passed"] == false);
  CHECK(audits[1]["labels"]["status"] == "missed");
  CHECK(audits[1]["required"] == 1e9);
  CHECK(audits[1]["observed"].get<double>() > 0);
  CHECK(bench.json("record.json")["status"] == "done");
  CHECK(bench.json("failures.json").empty());
}

TEST_CASE("with --strict a missed goal is exit code 6, a reached one is not", "[cli][goals]") {
  Bench bench;
  CHECK(goals(bench, kGoals, {"--strict", "--filter", "^hard"}).code == 6);
  CHECK(goals(bench, kGoals, {"--strict", "--filter", "^easy"}).code == 0);
  CHECK(goals(bench, kGoals, {"--filter", "no_such_goal"}).code == 5);
}

TEST_CASE("a goal's ratio is the median of ratios of paired repetitions", "[cli][goals]") {
  Bench bench;
  REQUIRE(goals(bench, kGoals, {"--filter", "^easy", "--kernels.repetitions", "5"}).code == 0);
  std::map<std::string, std::vector<double>> seconds;
  for (const auto& line : dsa::whole_lines(bench.folder() / "samples.jsonl")) {
    const Json json = Json::parse(line);
    if (json["type"] == "sample") seconds[json["id"]].push_back(json["seconds"]);
  }
  REQUIRE(seconds.size() == 4);  // two sides at two lengths
  const Json record = bench.json("record.json");
  size_t ratios = 0;
  for (const auto& metric : record["metrics"]) {
    if (metric["quantity"]["name"] != "goal_ratio") continue;
    ++ratios;
    const std::string length = "/L:" + metric["labels"]["L"].get<std::string>() + "/";
    std::vector<double> ours, theirs;
    for (const auto& [id, times] : seconds) {
      if (id.find(length) == std::string::npos) continue;
      (id.starts_with("sparse") ? ours : theirs) = times;
    }
    REQUIRE(metric["samples"].size() == 5);
    for (size_t i = 0; i < 5; ++i) {
      CHECK(std::abs(metric["samples"][i].get<double>() - theirs[i] / ours[i]) < 1e-6);
    }
  }
  CHECK(ratios == 2);
}

TEST_CASE("what cannot be measured says why, and is no failure", "[cli][goals]") {
  Bench bench;
  const std::string file = R"(
[isa]
operation = "x"
families = ["sparse_attention"]
against = "torch-sdpa"
against-family = "dense_attention"
lengths = [16]
needs = ["quantum"]
goal = 1
[dtype]
operation = "x"
families = ["indexer_select"]
against = "torch-einsum"
dtype = "f64"
lengths = [16]
goal = 1
[sets]
operation = "x"
families = ["sparse_attention"]
against = "torch-sdpa"
against-family = "dense_attention"
scores = ["dreamt"]
lengths = [16]
goal = 1
)";
  const Outcome outcome = goals(bench, file, {"--strict"});
  INFO(outcome.err << outcome.out);
  CHECK(outcome.code == 0);
  CHECK_THAT(outcome.out, ContainsSubstring("isa, x: cannot be measured here: needs quantum; this "
                                            "CPU has "));
  CHECK_THAT(outcome.out, ContainsSubstring("dtype, x: cannot be measured here: backend cpu "
                                            "declines: needs float32"));
  CHECK_THAT(outcome.out, ContainsSubstring("no distribution \"dreamt\""));
  const Json audits = goal_audits(bench);
  for (const auto& audit : audits) CHECK(audit["labels"]["status"] == "unmeasured");
  CHECK(bench.json("failures.json").size() == 3);
}

TEST_CASE("a mistake in a file of goals is one sentence and exit code 1", "[cli][goals]") {
  Bench bench;
  const std::string good =
      "[a]\noperation = \"x\"\nfamilies = [\"sparse_attention\"]\n"
      "against = \"torch-mask\"\nlengths = [16]\ngoal = 1\n";
  const std::vector<std::pair<std::string, std::string>> mistakes = {
      {good + "colour = 3\n", "[a] sets \"colour\", which is no field of a goal"},
      {good + "top-k = few\n", "[a] top-k takes a whole number"},
      {good + "measure = \"height\"\n", "measure is \"height\""},
      {good + "backend = \"gpu9\"\n", "gpu9"},
      {good + "against-family = \"sorting\"\n", "sorting"},
      {"goal = 3\n" + good, "outside a section"},
      {"# nothing\n", "holds no goal"},
      {good + "scores = []\n", "scores"},
      {good + "values = \"mine\"\n", "values is \"mine\"; it takes own or in-keys"},
      {good + "values = \"in-keys\"\nv-width = 65\n", "it must be at most width 64"},
  };
  for (const auto& [file, sentence] : mistakes) {
    const Outcome outcome = goals(bench, file);
    INFO(file << "\n" << outcome.err);
    CHECK(outcome.code == 1);
    CHECK_THAT(outcome.err, StartsWith("dsa-bench: ") && ContainsSubstring(sentence));
    CHECK(!std::filesystem::exists(bench.out));
  }
}

TEST_CASE("the goals at K = 256 are those of the main job", "[goals]") {
  const auto goals = dsa::goals_from(std::filesystem::path(DSA_PRESETS) / "goals-k256.toml");
  REQUIRE(goals.size() == 2);
  for (const auto& goal : goals) {
    CHECK(goal.families == std::vector<std::string>{"sparse_attention"});
    CHECK(goal.lengths == std::vector<int64_t>{8192});
    CHECK(goal.top_k == 256);
  }
  CHECK(goals[0].against == "torch-gather");
  CHECK(goals[1].against == "torch-sdpa");
  CHECK(goals[0].goal == std::vector<double>{20});
  CHECK(goals[1].goal == std::vector<double>{3});
}

TEST_CASE("the project's goals are those of the issue, and all are benchmarks", "[goals]") {
  const auto goals = dsa::goals_from(std::filesystem::path(DSA_PRESETS) / "goals.toml");
  CHECK(goals.size() == 14);
  std::vector<double> values;
  for (const auto& goal : goals) values.insert(values.end(), goal.goal.begin(), goal.goal.end());
  CHECK(values == std::vector<double>{7.5, 30, 1.6, 15, 4.5, 3, 1.8, 0.9, 0.5, 3.5, 2, 2.5, 3.3,
                                      4.2, 3.5, 1500});
}
