// Runs that ended between the seeds of a row, or before their record was written.
#include "bench/run_record.h"
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

TEST_CASE("a row above the ceilings of a busy machine is held against new ones", "[cli]") {
  Bench bench;
  const std::vector<std::string> words = {"--suites", "kernels", "--filter",
                                          "sparse_attention/pass:fwd/backend:cpu/",
                                          "--kernels.ceilings=true"};
  REQUIRE(bench.run(words).code == 0);
  Json record = bench.json("record.json");
  // As if the ceilings had been measured on a machine that others kept busy.
  for (auto& [name, fact] : record["machine"].items()) {
    const bool rate = name.starts_with("torch_gemm") ||
                      (name.starts_with("ceiling_") && !name.ends_with("_size"));
    if (rate) fact = "1e3";
  }
  record["status"] = "running";
  record["metrics"] = Json::array();
  std::ofstream(bench.folder() / "record.json") << record.dump();
  REQUIRE(bench.plain({"--resume", bench.folder().string()}).code == 0);
  const Json again = bench.json("record.json");
  CHECK(again["machine"]["ceiling_f32_flops"] == "1e3");  // what its rows were compared with
  CHECK_FALSE(again["metrics"].empty());
}

TEST_CASE("work that the machine cannot have done in that time is no result", "[cli]") {
  const Bench bench;
  dsa::bench::Session session;
  dsa::record::Run run;
  run.id = "20261125T010203";
  session.recorder = std::make_unique<dsa::Recorder>(bench.out, run, dsa::MachineContext{});
  const dsa::Cost much{1e18, 1e6, 1e6}, little{1, 1, 1};
  CHECK(dsa::bench::physics_failure(session, much, 1e-3).empty());  // nothing was measured
  session.ceilings = dsa::measure_ceilings();
  CHECK(dsa::bench::physics_failure(session, little, 1).empty());
  const std::string why = dsa::bench::physics_failure(session, much, 1e-3);
  CHECK(why.find("times what this machine can do at most") != std::string::npos);
}
