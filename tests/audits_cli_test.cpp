// `dsa-bench audit`, and audits inside a run, as a user meets them.
#include "tests/process.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <map>

using Catch::Matchers::ContainsSubstring;
using dsa::tests::Bench;
using dsa::tests::Outcome;
using Json = nlohmann::json;

namespace {

/// variant -> number of the audit -> status
std::map<std::string, std::map<std::string, std::string>> statuses(const Bench& bench) {
  std::map<std::string, std::map<std::string, std::string>> all;
  const Json record = bench.json("record.json");
  for (const auto& audit : record["audits"]) {
    CHECK(!audit["detail"].get<std::string>().empty());
    all[audit["labels"]["variant"]][audit["labels"]["number"]] = audit["labels"]["status"];
  }
  return all;
}

}  // namespace

TEST_CASE("audit fails the published experiment, and --strict makes it exit code 4",
          "[cli][audits]") {
  Bench bench;
  const Outcome outcome =
      bench.run({"audit", "--variants", "dsa_as_published", "--strict", "--data.split",
                 "random_windows", "--model.embedding-std", "1", "--attention.top-k-fraction",
                 "0.5", "--train.quality-windows", "2"});
  INFO(outcome.out << outcome.err);
  CHECK(outcome.code == 4);
  auto all = statuses(bench);
  REQUIRE(all.size() == 2);  // the baseline is trained beside it
  for (const char* number : {"1", "2", "3", "4", "5"}) {
    CHECK(all["dsa_as_published"][number] == "failed");
  }
  CHECK(all["dsa_as_published"]["7"] == "passed");
  CHECK(all["dense"]["1"] == "passed");
  CHECK_THAT(outcome.out, ContainsSubstring("audit 1 causality       dsa_as_published  FAILED"));
}

TEST_CASE("audit judges the candidates when no variant is named, at one length and seed",
          "[cli][audits]") {
  Bench bench;
  const Outcome outcome = bench.run({"audit", "--lengths", "32,16", "--seeds", "1,2"});
  INFO(outcome.out << outcome.err);
  CHECK(outcome.code == 0);
  auto all = statuses(bench);
  REQUIRE(all.contains("dsa"));
  for (const char* number : {"1", "6", "7"}) CHECK(all["dsa"][number] == "passed");
  CHECK(all["dsa"].size() == 8);
  CHECK_THAT(outcome.out,
             ContainsSubstring("train/variant:dsa/L:32 seed 1") && !ContainsSubstring("seed 2"));
}

TEST_CASE("a run is judged before and after its training, unless told otherwise", "[cli][audits]") {
  Bench bench;
  const std::vector<std::string> window = {"--suites", "training", "--variants", "dense,window"};
  auto judged = window;
  judged.push_back("--audit.with-training");
  const Outcome outcome = bench.run(judged);
  INFO(outcome.out << outcome.err);
  CHECK(outcome.code == 0);
  auto all = statuses(bench);
  REQUIRE(all.size() == 2);
  CHECK(all["window"]["1"] == "passed");
  CHECK(all["window"]["4"] == "open");  // it has no indexer
  CHECK(all["window"]["8"] == "passed");
  // Audit 5 may be open on a busy machine, but never for want of a measurement.
  for (const auto& audit : bench.json("record.json")["audits"]) {
    if (audit["labels"]["variant"] != "window" || audit["labels"]["number"] != "5") continue;
    CHECK_THAT(audit["detail"].get<std::string>(),
               ContainsSubstring("L = 512 to 2048: time grows as"));
  }
  CHECK(bench.json("record.json").dump().find("layer_memory") != std::string::npos);
  Bench plain;
  CHECK(plain.run(window).code == 0);
  CHECK(statuses(plain).empty());
}

TEST_CASE("audit refuses stages that leave no sparse step", "[cli][audits]") {
  Bench bench;
  const Outcome outcome = bench.run({"audit", "--train.steps", "9", "--train.indexer-steps", "5"});
  CHECK(outcome.code == 1);
  CHECK_THAT(outcome.err, ContainsSubstring("--audit.steps is 3"));
}
