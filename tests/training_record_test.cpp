// What a training run records for those who compare it: the margin, the conditions, the sizes.
#include "harness/recorder.h"
#include "tests/process.h"

#include <catch2/catch_test_macros.hpp>
#include <nlohmann/json.hpp>

#include <csignal>

using dsa::tests::Bench;
using Json = nlohmann::json;

namespace {

/// Samples of a quantity of one variant; null where there is none.
Json samples(const Json& record, const std::string& quantity, const std::string& variant) {
  for (const auto& metric : record["metrics"]) {
    if (metric["quantity"]["name"] != quantity) continue;
    if (metric["labels"].value("variant", "") == variant) return metric["samples"];
  }
  return {};
}

}  // namespace

TEST_CASE("the margin is in the record before the first step", "[cli]") {
  Bench bench;
  const pid_t child = bench.start({"--suites", "training", "--variants", "dense", "--train.steps",
                                   "100000", "--train.equivalence-margin", "0.03"});
  REQUIRE(bench.wait_for_lines("seq_16/dense-seed1.metrics.jsonl", 1));
  const Json record = bench.json("record.json");
  CHECK(record["status"] == "running");
  CHECK(record["config"]["train"]["equivalence-margin"] == 0.03);
  REQUIRE(bench.end(child, SIGINT) == 130);
  SECTION("and a resume cannot move it") {
    CHECK(bench.plain({"--resume", bench.folder().string(), "--train.equivalence-margin", "0.05"})
              .code == 1);
  }
}

TEST_CASE("a run records its sizes, and under what conditions it was timed", "[cli]") {
  Bench bench;
  REQUIRE(bench.run({"--suites", "training", "--variants", "dense,dsa", "--seeds", "1,2"}).code ==
          0);
  const Json record = bench.json("record.json");
  CHECK(samples(record, "indexer_parameters", "dense") == Json({0, 0}));
  CHECK(samples(record, "indexer_parameters", "dsa")[0] > 0);
  CHECK(samples(record, "resumed_steps", "dsa") == Json({0, 0}));
  for (const auto& missing : samples(record, "missing_cpus", "dsa")) CHECK(missing >= 0);
}

TEST_CASE("a resumed run says how many of its steps an earlier process took", "[cli]") {
  Bench bench;
  const pid_t child =
      bench.start({"--suites", "training", "--variants", "dsa", "--train.steps", "400"});
  REQUIRE(bench.wait_for_lines("seq_16/dsa-seed1.metrics.jsonl", 5));
  REQUIRE(bench.end(child, SIGINT) == 130);
  REQUIRE(bench.plain({"--resume", bench.folder().string()}).code == 0);
  const Json resumed = samples(bench.json("record.json"), "resumed_steps", "dsa");
  REQUIRE(resumed.size() == 1);
  CHECK(resumed[0] > 0);
  CHECK(resumed[0] < 400);
}
