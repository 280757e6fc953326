// Runs that ended between the seeds of a row, or before their record was written.
#include "tests/process.h"

#include <catch2/catch_test_macros.hpp>

#include <csignal>
#include <fstream>

using namespace dsa::tests;
using Json = nlohmann::json;

TEST_CASE("a run that has only its first seed is resumed with the others", "[cli]") {
  Bench bench;
  const pid_t child = bench.start(
      {"--suites", "training", "--variants", "dense", "--seeds", "1,2,3", "--train.steps", "400"});
  REQUIRE(bench.wait_for_lines("seq_16/dense-seed2.metrics.jsonl", 3));
  REQUIRE(bench.end(child, SIGINT) == 130);
  const Outcome rest = bench.plain({"--resume", bench.folder().string()});
  INFO(rest.out << rest.err);
  REQUIRE(rest.code == 0);
  const auto record = bench.json("record.json");
  CHECK(record["status"] == "done");
  for (const auto& metric : record["metrics"]) {
    if (metric["quantity"]["name"] == "step_time") CHECK(metric["samples"].size() == 3);
  }
}

TEST_CASE("a run killed after its last step is resumed with its throughput", "[cli]") {
  Bench bench;
  REQUIRE(bench.run({"--suites", "training", "--variants", "dense"}).code == 0);
  // What a kill between the last checkpoint and the record leaves behind.
  Json record = bench.json("record.json");
  record["status"] = "running";
  record["metrics"] = record["series"] = Json::array();
  std::ofstream(bench.folder() / "record.json") << record.dump();
  REQUIRE(bench.plain({"--resume", bench.folder().string()}).code == 0);
  double throughput = -1;
  const Json resumed = bench.json("record.json");
  for (const auto& metric : resumed["metrics"]) {
    if (metric["quantity"]["name"] == "throughput") throughput = metric["samples"][0];
  }
  CHECK(throughput > 0);
}
