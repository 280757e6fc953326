// The whole markdown report of a made-up record, and records with holes in them. After a change
// that is meant: tests/accept.sh, then review the diff.
#include "reports/report.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "report_runs.h"
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>
#include <unistd.h>

using namespace dsa::report;
using Catch::Matchers::ContainsSubstring;
namespace fs = std::filesystem;
namespace record = dsa::record;

static const fs::path kGolden = fs::path(DSA_TEST_DIR) / "golden";

TEST_CASE("the golden record gives the golden report", "[report]") {
  const Document document = build(load(kGolden));
  CHECK(markdown(document, true) == read_file(kGolden / "report.md"));
}

TEST_CASE("the same record gives the same charts, byte by byte", "[report]") {
  const LoadedRun loaded = load(kGolden);
  const std::vector<Chart> first = figures(build(loaded)), second = figures(build(loaded));
  REQUIRE(first.size() == second.size());
  CHECK(first.size() == 8);
  for (size_t i = 0; i < first.size(); ++i) CHECK(first[i].spec.dump() == second[i].spec.dump());
}

TEST_CASE("no chart knows a variant or backend by name", "[report]") {
  std::string text = record::to_json(load(kGolden).run);
  const auto rename = [&](const std::string& from, const std::string& to) {
    for (size_t at = 0; (at = text.find("\"" + from + "\"", at)) != std::string::npos;
         at += to.size()) {
      text.replace(at + 1, from.size(), to);
    }
  };
  rename("dense", "alpha"), rename("dsa", "beta"), rename("window", "gamma");
  rename("dsa_as_published", "delta"), rename("cpu", "left"), rename("torch-sdpa", "right");
  const std::vector<Chart> renamed = figures(build({".", record::from_json(text), {}}));
  const std::vector<Chart> original = figures(build(load(kGolden)));
  REQUIRE(renamed.size() == original.size());
  for (size_t i = 0; i < renamed.size(); ++i) CHECK(renamed[i].id == original[i].id);
}

static std::set<std::string> chart_ids(const record::Run& run) {
  std::set<std::string> out;
  const Document document = build({".", run, {}});
  markdown(document, true);
  html(document, "");
  for (const Chart& chart : figures(document)) out.insert(chart.id);
  return out;
}

TEST_CASE("a record with kernels only leaves the training charts out", "[report]") {
  record::Run run = record::empty_run();
  add_kernel(run, "dense_attention", "theirs", 1024, {1, 2});
  add_kernel(run, "sparse_attention", "mine", 1024, {1, 2}, 64);
  add_kernel(run, "indexer_select", "mine", 1024, {1, 2}, 64);
  CHECK(chart_ids(run) == std::set<std::string>{"kernel_time_fwd"});
}

TEST_CASE("a record with training only, one length, one seed, still draws", "[report]") {
  record::Run run = record::empty_run();
  add_training(run, "plain", 64, {3}, {1});
  add_training(run, "picky", 64, {3}, {1});
  CHECK(chart_ids(run) ==
        std::set<std::string>{"sequence_length_comparison", "training_throughput"});
}

TEST_CASE("a record without a baseline or candidate still reports", "[report]") {
  record::Run run = record::empty_run();
  add_training(run, "near", 64, {3}, {1});
  CHECK(chart_ids(run).contains("training_throughput"));
  CHECK_THAT(markdown(build({".", run, {}}), true), ContainsSubstring("compares nothing"));
}

TEST_CASE("samples that are not finite, zero, negative or huge crash nothing", "[report]") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), huge = 1e308;
  for (const std::vector<double>& samples :
       {std::vector<double>{nan, nan}, {nan, 1}, {0, 0}, {-1, -2}, {huge, huge}, {5e-324, 1}, {}}) {
    record::Run run = record::empty_run();
    for (int length : {64, 128}) {
      add_training(run, "plain", length, samples, samples);
      add_training(run, "picky", length, samples, {1, 2});
      add_kernel(run, "dense_attention", "theirs", length, samples);
      add_kernel(run, "sparse_attention", "mine", length, samples, 16);
      add_kernel(run, "indexer_select", "mine", length, {1, 2}, 16);
      run.series.push_back(
          {{"step", "1"},
           {"validation_loss", "nats/token"},
           {{"level", "training"}, {"variant", "plain"}, {"L", "64"}, {"seed", "1"}},
           std::vector<double>(samples.size(), 1),
           samples});
    }
    CHECK_NOTHROW(chart_ids(run));
    for (const Chart& chart : figures(build({".", run, {}}))) {
      CHECK_THAT(chart.spec.dump(), !ContainsSubstring("inf"));
    }
  }
}

TEST_CASE("a variant swept over K gives an arm for every K", "[report]") {
  record::Run run = record::empty_run();
  for (const char* k : {"16", "32"}) {
    add_training(run, "picky", 64, {3}, {1});
    for (size_t i = run.metrics.size() - 4; i < run.metrics.size(); ++i)
      run.metrics[i].labels["K"] = k;
  }
  const TrainingView view(run);
  REQUIRE(view.arms().size() == 2);
  CHECK(view.arms()[0].name == "picky K=16");
  CHECK(view.arms()[0].slot != view.arms()[1].slot);
}

TEST_CASE("K swept over lengths gives the heat map", "[report]") {
  record::Run run = record::empty_run();
  for (int length : {1024, 2048}) {
    add_kernel(run, "dense_attention", "theirs", length, {1, 2});
    for (int k : {64, 128}) {
      add_kernel(run, "sparse_attention", "mine", length, {1, 2}, k);
      add_kernel(run, "indexer_select", "mine", length, {1, 2}, k);
    }
  }
  CHECK(chart_ids(run) == std::set<std::string>{"kernel_time_fwd", "kernel_speed_up"});
}

static Chart chart_of(const record::Run& run, const std::string& id) {
  for (const Chart& chart : figures(build({".", run, {}}))) {
    if (chart.id == id) return chart;
  }
  FAIL("no chart " << id);
  return {};
}

TEST_CASE("dense and DSA lines have markers of their own, and count their samples", "[report]") {
  record::Run run = record::empty_run();
  for (int length : {1024, 2048}) {
    add_kernel(run, "sparse_attention", "mine", length, {1, 2, 3}, 64);
    add_kernel(run, "indexer_select", "mine", length, {1, 2, 3}, 64);
  }
  CHECK_THAT(chart_of(run, "kernel_time_fwd").spec.dump(), ContainsSubstring("n = 3"));
  for (int length : {1024, 2048}) add_kernel(run, "dense_attention", "theirs", length, {1, 2, 3});
  CHECK_THAT(chart_of(run, "kernel_time_fwd").spec.dump(),
             ContainsSubstring(R"("range":["square","circle"])"));
}

TEST_CASE("the gap by position stays inside its plot from the first position on", "[report]") {
  record::Run run = load(kGolden).run;
  int raised = 0;
  for (record::Series& series : run.series) {
    if (series.y.name != "loss_by_position" || series.labels["variant"] != "dsa") continue;
    series.ys.front() += 5;
    ++raised;
  }
  REQUIRE(raised > 0);
  const Json gap = chart_of(run, "loss_by_position").spec["vconcat"][1];
  const Json& layers = gap["spec"]["layer"];
  CHECK(layers.back()["encoding"]["y"]["scale"]["domain"][1].get<double>() > 5);
}

TEST_CASE("stages out of discussion have greys that can be told apart", "[report]") {
  std::vector<long> levels;
  for (int i = 0; i < 6; ++i) {
    levels.push_back(std::stol(theme::stage_colour("x", i).substr(3, 2), nullptr, 16));
  }
  for (size_t i = 0; i < levels.size(); ++i) {
    for (size_t j = 0; j < i; ++j) CHECK(std::abs(levels[i] - levels[j]) >= 20);
  }
}

TEST_CASE("the closing sections tell this run's inputs and folder", "[report]") {
  record::Run run = record::empty_run();
  add_kernel(run, "dense_attention", "theirs", 64, {1, 2});
  std::string text = markdown(build({".", run, {}}), true);
  CHECK_THAT(text, ContainsSubstring("Inputs are synthetic.") &&
                       ContainsSubstring("dsa-report make results/test\n"));
  add_kernel(run, "sparse_attention", "mine", 64, {1, 2}, 16);
  run.metrics.back().labels["scores"] = "captured";
  run.config_json = R"({"out": "/data/runs"})";
  text = markdown(build({".", run, {}}), true);
  CHECK_THAT(text, !ContainsSubstring("Inputs are synthetic.") &&
                       ContainsSubstring("scores = captured come from one small trained model") &&
                       ContainsSubstring("dsa-report make /data/runs/test\n"));
}

TEST_CASE("goals are a table of their own, not audits of variants", "[report]") {
  record::Run run = record::empty_run();
  const auto add = [&](const std::string& status, double found, const std::string& words) {
    run.audits.push_back({"g-" + status,
                          {{"level", "goal"}, {"status", status}, {"operation", "op " + status}},
                          status == "reached",
                          found,
                          7.5,
                          "x",
                          words});
  };
  add("reached", 8.1, "reached 8.10x (goal 7.50x)");
  add("missed", 6.6, "missing by 12 % (6.60x, goal 7.50x)");
  add("unmeasured", std::nan(""), "cannot be measured here: needs amx_bf16");
  const std::string text = markdown(build({".", run, {}}), true);
  CHECK_THAT(text, ContainsSubstring("1 of 3 goals are reached, 1 missed, 1 cannot be measured"));
  CHECK_THAT(text, ContainsSubstring("| op reached | reached | 8.10\u00a0x | 7.50\u00a0x |"));
  CHECK_THAT(text, ContainsSubstring("| op missed | **missed** | 6.60\u00a0x |"));
  CHECK_THAT(text, ContainsSubstring("| op unmeasured | **unmeasured** | – |"));
  CHECK_THAT(text, !ContainsSubstring("## Audits"));
}

static std::string load_error(const std::string& record_text) {
  const fs::path folder =
      fs::temp_directory_path() / ("dsa_report_test_" + std::to_string(::getpid()));
  fs::create_directories(folder);
  std::ofstream(folder / "record.json") << record_text;
  std::string said;
  try {
    load(folder);
  } catch (const Error& error) {
    said = error.what();
  }
  fs::remove_all(folder);
  return said;
}

TEST_CASE("a broken record is one sentence with the file and its first mistake", "[report]") {
  CHECK_THAT(
      load_error("{\n \"id\": 1,,\n}"),
      ContainsSubstring("record.json is not valid JSON: first mistake at line 2, column 10"));
  CHECK_THAT(load_error("{\"id\": \"a\""), ContainsSubstring("it ends too early"));
  CHECK_THAT(load_error(R"({"version":1,"id":"a","metrics":[{"samples":["x"]}]})"),
             ContainsSubstring("/metrics/0/samples/0"));
  CHECK_THAT(load_error(R"({"version":99,"id":"a"})"),
             ContainsSubstring("record version 99 is newer than"));
  CHECK_THAT(load_error("[]"), ContainsSubstring("is not a record"));
  CHECK_THAT(load_error("{}"), ContainsSubstring("has no \"id\""));
  CHECK_THAT(load_error(R"({"id":"a","series":[{"xs":[1,2],"ys":[1]}]})"),
             ContainsSubstring("2 xs and 1 ys"));
  CHECK_THROWS_WITH(load("/nonexistent"), ContainsSubstring("/nonexistent is not a folder"));
}

namespace {

/// Two rungs of the anatomy at L = 64, three seeds each.
record::Run anatomy(const std::vector<double>& dense, const std::vector<double>& sparse,
                    const std::vector<double>& repaired) {
  record::Run run = record::empty_run();
  const auto add = [&](int rung, const char* arm, std::vector<double> losses) {
    run.metrics.push_back({{"best_validation_loss", "nats/token"},
                           {{"level", "anatomy"},
                            {"rung", std::to_string(rung)},
                            {"rung_name", rung == 0 ? "published" : "causal_selection"},
                            {"repair", "something"},
                            {"arm", arm},
                            {"L", "64"}},
                           std::move(losses)});
  };
  add(0, "dense", dense);
  add(0, "sparse", sparse);
  add(1, "dense", dense);
  add(1, "sparse", repaired);
  for (const double loss : {8.52, 3.561}) {
    run.reference_series.push_back(
        {{"L", "tokens"}, {"best_validation_loss", "nats/token"}, {}, {64}, {loss}});
  }
  return run;
}

}  // namespace

TEST_CASE("the anatomy is a table of repairs with shares of our own gap", "[report]") {
  const record::Run run = anatomy({9.0, 9.2, 9.1}, {7.0, 7.2, 7.1}, {8.5, 8.7, 8.6});
  const std::string text = markdown(build({".", run, {}}), true);
  CHECK_THAT(text, ContainsSubstring("## The anatomy of a headline"));
  CHECK_THAT(text,
             ContainsSubstring(
                 "| 0 published | something | 9.10\u00a0±\u00a00.10 | 7.10\u00a0±\u00a00.10 |"));
  CHECK_THAT(text, ContainsSubstring("75.0\u00a0% of the gap at L = 64 goes with one repair"));
  CHECK_THAT(text, ContainsSubstring("dense 8.520, sparse 3.561"));
  CHECK_THAT(text, ContainsSubstring("at rung published and "));
  CHECK_THAT(text, !ContainsSubstring("compares nothing"));
}

TEST_CASE("the anatomy divides no gap that the seeds do not agree on", "[report]") {
  const record::Run run = anatomy({5.4, 5.7, 6.2}, {5.41, 5.6, 5.5}, {5.5, 5.7, 5.6});
  const std::string text = markdown(build({".", run, {}}), true);
  CHECK_THAT(text,
             ContainsSubstring("The published setting again: sparse not better for every seed"));
  CHECK_THAT(text, ContainsSubstring("No shares: sparse is not better for every seed at rung 0"));
  CHECK_THAT(text, !ContainsSubstring("goes with one repair"));
}
