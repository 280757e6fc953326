// Kernel rows of the built dsa-bench: their axes, and the ceiling they are held against.
#include "tests/process.h"
#include "tests/sanitizer.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <nlohmann/json.hpp>

#include <map>
#include <set>

using Catch::Matchers::ContainsSubstring;
using dsa::tests::Bench;
using dsa::tests::Outcome;
using Json = nlohmann::json;

TEST_CASE("the last T queries are rows with an axis T, forward only", "[cli]") {
  Bench bench;
  const std::vector<std::string> decode = {"--kernels.queries", "0,1,3,16", "--kernels.families",
                                           "indexer_select,sparse_attention,dense_attention"};
  auto arguments = decode;
  arguments.insert(arguments.end(), {"list", "--select", "T=1"});
  const Outcome listed = bench.run(arguments);
  CHECK_THAT(listed.out, ContainsSubstring("pass:fwd/backend:cpu/L:16/T:1/K:4"));
  CHECK_THAT(listed.out, !ContainsSubstring("fwdbwd") && !ContainsSubstring("T:16"));

  arguments = decode;
  arguments.insert(arguments.end(), {"--suites", "kernels", "--select", "T=1|3"});
  const Outcome outcome = bench.run(arguments);
  INFO(outcome.err << outcome.out);
  CHECK(outcome.code == 0);
  for (const Json& failure : bench.json("failures.json")) {  // without AMX, and nothing else
    CHECK(failure["labels"]["backend"] == "cpu-int8");
    CHECK_THAT(failure["reason"].get<std::string>(), ContainsSubstring("needs AMX"));
  }
  std::set<std::string> families;
  const Json track = bench.json("track.json");
  for (const auto& row : track["benchmarks"]) {
    const std::string name = row["name"];
    CHECK_THAT(name, ContainsSubstring("/T:"));
    families.insert(name.substr(0, name.find('/')));
  }
  CHECK(families.size() == 3);
}

TEST_CASE("kernel rows say how much of the measured ceiling they use", "[cli]") {
  dsa::testing::need_plain_speed();
  Bench bench;
  REQUIRE(bench
              .run({"--suites", "kernels", "--kernels.families", "dense_attention,gemm",
                    "--kernels.backends", "torch-sdpa,torch-gemm", "--kernels.passes", "fwd",
                    "--kernels.ceilings"})
              .code == 0);
  const Json record = bench.json("record.json");
  CHECK(std::stod(record["machine"]["ceiling_f32_flops"].get<std::string>()) > 1e8);
  size_t rows = 0;
  for (const auto& metric : record["metrics"]) {
    if (metric["quantity"]["name"] != "ceiling_percent") continue;
    ++rows;
    CHECK(metric["quantity"]["unit"] == "%");
    CHECK((metric["labels"]["bound"] == "flops" || metric["labels"]["bound"] == "bytes"));
    CHECK(metric["samples"].size() == 2);
    for (const double percent : metric["samples"]) CHECK(percent > 0);
  }
  CHECK(rows == 2);
}

TEST_CASE("values in the keys are rows of their own beside those of own values", "[cli]") {
  Bench bench;
  const std::vector<std::string> axes = {
      "--kernels.values", "own,in-keys", "--kernels.v-width", "4", "--kernels.kv-heads", "1"};
  auto arguments = axes;
  arguments.insert(arguments.end(),
                   {"--suites", "kernels", "--kernels.families", "sparse_attention"});
  const Outcome outcome = bench.run(arguments);
  INFO(outcome.err << outcome.out);
  CHECK(outcome.code == 0);
  CHECK(bench.json("failures.json").empty());
  std::map<std::string, int> rows;
  const Json record = bench.json("record.json");
  for (const auto& metric : record["metrics"])
    if (metric["quantity"]["name"] == "time") ++rows[metric["labels"].value("values", "own")];
  CHECK(rows["own"] > 4);
  CHECK(rows["own"] == rows["in-keys"]);
  arguments = axes;
  arguments.insert(arguments.end(), {"list", "--select", "values=in-keys"});
  CHECK_THAT(bench.run(arguments).out, ContainsSubstring("/V:4/values:in-keys/dtype:f32"));

  const Outcome wide = bench.run({"--kernels.values", "in-keys", "--kernels.v-width", "9"});
  CHECK(wide.code == 1);
  CHECK_THAT(wide.err, ContainsSubstring("it must be at most --kernels.widths 8"));
}

TEST_CASE("a kernel row shows and records what its implementation settled on", "[cli]") {
  Bench bench;
  const Outcome outcome =
      bench.run({"--suites", "kernels", "--kernels.families", "sparse_attention",
                 "--kernels.backends", "cpu,torch-gather", "--kernels.passes", "fwd"});
  INFO(outcome.err << outcome.out);
  CHECK(outcome.code == 0);
  CHECK_THAT(outcome.err + outcome.out, ContainsSubstring("scores:uniform  forward chunk "));
  size_t notes = 0;
  const Json record = bench.json("record.json");
  for (const auto& metric : record["metrics"]) {
    const bool noted = metric["labels"].contains("note");
    CHECK(noted == (metric["quantity"]["name"] == "note"));
    if (!noted) continue;
    if (metric["labels"]["backend"] != "torch-gather") continue;  // the cpu row has one on AMX
    ++notes;
    CHECK_THAT(metric["labels"]["note"].get<std::string>(), ContainsSubstring("forward chunk "));
  }
  CHECK(notes == 1);
}
