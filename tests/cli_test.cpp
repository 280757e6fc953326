// The built dsa-bench as a user meets it: exit codes, sentences, files, kills and resumes.
#include "harness/machine.h"
#include "harness/recorder.h"
#include "tests/process.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <nlohmann/json.hpp>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <set>

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;
using dsa::tests::Bench;
using dsa::tests::Outcome;
namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

const std::vector<std::string> kKernelsOnly = {"--suites",           "kernels",
                                               "--kernels.families", "dense_attention,select_top_k",
                                               "--kernels.backends", "reference"};
const std::vector<std::string> kTrainingOnly = {"--suites", "training", "--variants", "dense,dsa"};

Json sample_lines(const fs::path& folder) {
  Json samples = Json::array();
  for (const auto& line : dsa::whole_lines(folder / "samples.jsonl")) {
    const Json json = Json::parse(line);
    if (json["type"] == "sample") samples.push_back(json);
  }
  return samples;
}

/// The record without what time, memory and the clock put into it.
Json without_times(Json record) {
  // A note is about the last timed call, and on which set of inputs that was, time decides.
  const std::set<std::string> timed = {"time",        "flop_rate",  "byte_rate",
                                       "step_time",   "throughput", "stage_time",
                                       "peak_memory", "note",       "missing_cpus"};
  for (const char* key : {"id", "started", "ended", "command"}) record.erase(key);
  record["config"].erase("out");
  record["config"]["data"].erase("path");
  Json metrics = Json::array(), series = Json::array();
  for (const auto& m : record["metrics"]) {
    if (!timed.contains(m["quantity"]["name"])) metrics.push_back(m);
  }
  for (const auto& s : record["series"]) {
    if (!timed.contains(s["y"]["name"])) series.push_back(s);
  }
  record["metrics"] = metrics;
  record["series"] = series;
  return record;
}

}  // namespace

TEST_CASE("a mistake is one sentence and exit code 1, before anything is written", "[cli]") {
  Bench bench;
  const auto toml = bench.write("x.toml", "[train]\nstepz = 3\n");
  const auto file = bench.write("file", "not a folder");
  fs::create_directory(bench.root / "newer");
  const fs::path newer = bench.write("newer/record.json", R"({"version": 999, "id": "x"})");
  const std::vector<std::pair<std::vector<std::string>, std::string>> mistakes = {
      {{"--train.stepz", "3"}, "did you mean train.steps?"},
      {{"--variants", "denze"}, "denze"},
      {{"--kernels.backends", "gpu9"}, "gpu9"},
      {{"--kernels.families", "sorting"}, "sorting"},
      {{"--isa", "sse9"}, "sse9"},
      {{"--config", toml}, "train.stepz"},
      {{"--config", "/no/such.toml"}, "/no/such.toml"},
      {{"--train.steps", "0"}, "steps"},
      {{"--lengths", "1"}, "--lengths is 1"},
      {{"--select", "L"}, "axis=value"},
      {{"--select", "colour=red"}, "no axis \"colour\""},
      {{"--benchmark_colour=red"}, "--benchmark_colour"},
      {{"--benchmark_format=xml"}, "xml"},
      {{"--benchmark_out=/no/such/x.json"}, "--benchmark_out /no/such/x.json"},
      {{"--kernels.scores", "captured", "--kernels.captured-weights", "/no/such"}, "/no/such"},
      {{"--data", "/no/such.txt"}, "/no/such.txt"},
      {{"--resume", "/no/such"}, "record.json"},
      {{"--resume", newer.parent_path().string()}, "record version 999"},
      {{"--out", file}, file},
      {{"--filter", "top_k[", "--suites", "kernels"}, "--filter"},
      {{"--dry-run=maybe"}, "--dry-run"},
      {{"--attention.dropout", "0.1", "--variants", "dsa"}, "dsa has no dropout"},
      {{"--attention.backend", "torch-gather", "--variants", "dsa"}, "indexer_select"},
      {{"run", "--gate.budget", "3m"}, "--gate.budget is for `dsa-bench gate`; `dsa-bench run`"},
      {{"--budget=3m"}, "--budget is for `dsa-bench gate`"},
      {{"list", "--time-equal"}, "`dsa-bench list` would ignore it"},
      {{"audit", "--rounds", "15"}, "`dsa-bench audit` would ignore it"},
      {{"goals", "--filter", "no_such_goal", "--gate.seed", "2"}, "`dsa-bench goals` would ignore it"},
      {{"steps", "--cores", "2"}, "`dsa-bench steps` would ignore it"},
      {{"--model.vocab-size", "200", "--variants", "dense"}, "model.vocab-size is 200"},
  };
  for (const auto& [arguments, sentence] : mistakes) {
    const Outcome outcome = bench.run(arguments);
    INFO(arguments.front() << " " << arguments.back() << "\n" << outcome.err);
    CHECK(outcome.code == 1);
    CHECK_THAT(outcome.err, StartsWith("dsa-bench: ") && ContainsSubstring(sentence));
    CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1);
    CHECK(!fs::exists(bench.out));
  }
}

TEST_CASE("nothing selected is exit code 5", "[cli]") {
  Bench bench;
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"--filter", "no_such_benchmark"},
        std::vector<std::string>{"--benchmark_filter=no_such_benchmark"},
        std::vector<std::string>{"--select", "L=17"}}) {
    const Outcome outcome = bench.run(arguments);
    INFO(outcome.err);
    CHECK(outcome.code == 5);
    CHECK_THAT(outcome.err, ContainsSubstring("nothing is selected"));
    CHECK(!fs::exists(bench.out));
  }
}

TEST_CASE("select L=16 does not take L:160, several values of an axis work", "[cli]") {
  Bench bench;
  const auto listed = [&](const std::string& select) {
    auto arguments = kKernelsOnly;
    arguments.insert(arguments.end(), {"--kernels.lengths", "16,160,1600", "--select", select,
                                       "--benchmark_list_tests=true"});
    return bench.run(arguments).out;
  };
  CHECK_THAT(listed("L=16"), ContainsSubstring("/L:16/") && !ContainsSubstring("/L:160"));
  const std::string two = listed("L=16|1600,family=select_top_k");
  CHECK_THAT(two, ContainsSubstring("/L:16/") && ContainsSubstring("/L:1600/"));
  CHECK_THAT(two, !ContainsSubstring("/L:160/") && !ContainsSubstring("dense_attention"));
}

TEST_CASE("list names every benchmark, variant and backend", "[cli]") {
  Bench bench;
  const Outcome outcome = bench.run({"list"});
  CHECK(outcome.code == 0);
  for (const char* name : {"train/variant:dsa/L:16", "dsa_as_published", "torch-gather",
                           "reference", "sparse_attention/pass:fwdbwd/backend:"}) {
    CHECK_THAT(outcome.out, ContainsSubstring(name));
  }
}

TEST_CASE("list has one line for every backend and yardstick", "[cli]") {
  Bench bench;
  const std::string text = bench.run({"list"}).out;
  for (const auto& [first, next, least] :
       {std::tuple{"\nbackends", "\nyardsticks", 7}, std::tuple{"\nyardsticks", "\ntasks", 4}}) {
    const size_t from = text.find(first), to = text.find(next);
    REQUIRE(from < to);
    std::istringstream lines(text.substr(from + 1, to - from - 1));
    std::string line;
    std::getline(lines, line);
    int rows = 0;
    size_t column = 0;
    while (std::getline(lines, line)) {
      INFO(line);
      const size_t role = line.find_first_not_of(' ', line.find(' ', 2));
      CHECK_THAT(line, ContainsSubstring("; provides "));
      CHECK((rows == 0 || role == column));
      column = role;
      ++rows;
    }
    CHECK(rows >= least);
  }
}

TEST_CASE("list shows what the same flags would run", "[cli]") {
  Bench bench;
  const std::string all = bench.run({"list"}).out;
  REQUIRE_THAT(all, ContainsSubstring("  train/") && ContainsSubstring("  dense_attention/"));
  const std::string kernels = bench.run({"list", "--suites", "kernels"}).out;
  CHECK_THAT(kernels, ContainsSubstring("  dense_attention/") && !ContainsSubstring("  train/"));
  for (const char* filter : {"--filter=^select_top_k", "--benchmark_filter=^select_top_k"}) {
    const std::string some = bench.run({"list", filter}).out;
    CHECK_THAT(some, ContainsSubstring("  select_top_k/") &&
                         !ContainsSubstring("  dense_attention/") &&
                         !ContainsSubstring("  train/"));
  }
}

TEST_CASE("list tells the instruction set that the same flags would use", "[cli]") {
  Bench bench;
  CHECK_THAT(bench.run({"list", "--isa", "portable"}).out, ContainsSubstring("(now: portable)"));
}

TEST_CASE("every preset is accepted and selects something", "[cli]") {
  Bench bench;
  size_t presets = 0;
  for (const auto& entry : fs::directory_iterator(DSA_PRESETS)) {
    // Tables of goals are no settings.
    const fs::path file = entry.path().filename();
    if (file.extension() != ".toml" || file.string().starts_with("goals")) continue;
    const Outcome outcome = bench.plain({"--config", entry.path().string(), "list"});
    INFO(entry.path() << "\n" << outcome.err);
    CHECK(outcome.code == 0);
    CHECK_THAT(outcome.out, ContainsSubstring("/backend:cpu/") ||
                                ContainsSubstring("train/variant:") ||
                                ContainsSubstring("anatomy/rung:"));
    ++presets;
  }
  CHECK(presets >= 4);
}

TEST_CASE("a run leaves strict JSON in all files, and --dry-run runs everything once", "[cli]") {
  Bench bench;
  const bool dry = GENERATE(true, false);
  auto arguments = kKernelsOnly;
  arguments[1] = "kernels,training";
  arguments.insert(arguments.end(), {"--variants", "dsa", "--quiet"});
  if (dry) arguments.push_back("--dry-run");
  const Outcome outcome = bench.run(arguments);
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  const fs::path folder = bench.folder();
  for (const char* name :
       {"record.json", "results.json", "track.json", "failures.json", "summary.json"}) {
    INFO(name);
    CHECK_NOTHROW(bench.json(name));
  }
  CHECK(bench.json("record.json")["status"] == "done");
  CHECK(bench.json("failures.json").empty());
  const Json samples = sample_lines(folder);
  CHECK(samples.size() ==
        (dry ? 4u : 7u));  // dense fwd, fwdbwd and top-k, twice unless dry; one seed
  CHECK(bench.json("results.json")["benchmarks"].size() == samples.size());
  CHECK(bench.json("track.json")["benchmarks"].size() == 4);
  CHECK(bench.json("summary.json")["16"]["dsa"]["best_val_loss"].is_number());
  CHECK(fs::exists(folder / "seq_16/dsa-seed1.metrics.jsonl"));
  CHECK(fs::exists(folder / "seq_16/dsa-seed1.safetensors"));
  CHECK(Json::parse(dsa::whole_lines(folder / "samples.jsonl").back())["type"] == "end");
}

TEST_CASE("Google Benchmark's flags keep their meaning", "[cli]") {
  Bench bench;
  auto arguments = kKernelsOnly;
  const std::string file = (bench.root / "google.json").string();
  arguments.insert(arguments.end(),
                   {"--benchmark_repetitions=4", "--benchmark_filter=^dense.*pass:fwd/",
                    "--benchmark_out=" + file});
  const Outcome outcome = bench.run(arguments);
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  CHECK(sample_lines(bench.folder()).size() == 4);
  const Json google = bench.json(file);
  CHECK(google["benchmarks"].size() >= 4);
  CHECK(google["context"]["executable"] == "dsa-bench");
  CHECK_THAT(outcome.out + outcome.err, !ContainsSubstring("DEBUG"));
}

TEST_CASE("resuming a finished run measures nothing again; another configuration is refused",
          "[cli]") {
  Bench bench;
  auto arguments = kKernelsOnly;
  arguments.push_back("--benchmark_filter=top_k");
  REQUIRE(bench.run(arguments).code == 0);
  const Json before = sample_lines(bench.folder());
  const std::string folder = bench.folder().string();
  REQUIRE(bench.plain({"--resume", folder}).code == 0);
  CHECK(sample_lines(bench.folder()) == before);
  // A filter by Google Benchmark's flag is part of what is resumed.
  CHECK(bench.json("record.json")["config"]["filter"] == "top_k");
  const Outcome other = bench.plain({"--resume", folder, "--kernels.top-k", "5"});
  CHECK(other.code == 1);
  CHECK_THAT(other.err, ContainsSubstring("kernels.top-k is 4 there and 5 here"));
}

TEST_CASE("kill -9 leaves whole lines and a record with status running", "[cli]") {
  Bench bench;
  auto arguments = kTrainingOnly;
  arguments.insert(arguments.end(), {"--train.steps", "1000000"});
  const pid_t child = bench.start(arguments);
  REQUIRE(bench.wait_for_lines("seq_16/dense-seed1.metrics.jsonl", 5));
  REQUIRE(bench.end(child, SIGKILL) == -SIGKILL);
  CHECK(bench.json("record.json")["status"] == "running");
  for (const char* name : {"samples.jsonl", "seq_16/dense-seed1.metrics.jsonl"}) {
    const auto lines = dsa::whole_lines(bench.folder() / name);
    CHECK(!lines.empty());
    for (const auto& line : lines) CHECK_NOTHROW(Json::parse(line));
  }
}

TEST_CASE("Ctrl-C ends after the step with exit code 130; --resume trains the rest", "[cli]") {
  Bench bench;
  const pid_t child =
      bench.start({"--suites", "training", "--variants", "dsa", "--train.steps", "400"});
  REQUIRE(bench.wait_for_lines("seq_16/dsa-seed1.metrics.jsonl", 5));
  REQUIRE(bench.end(child, SIGINT) == 130);
  CHECK(bench.json("record.json")["status"] == "interrupted");
  CHECK(bench.json("failures.json")[0]["status"] == "interrupted");
  const std::string log = "seq_16/dsa-seed1.metrics.jsonl";
  REQUIRE(dsa::whole_lines(bench.folder() / log).size() < 400);

  REQUIRE(bench.plain({"--resume", bench.folder().string()}).code == 0);
  CHECK(bench.json("record.json")["status"] == "done");
  CHECK(bench.json("failures.json").empty());
  int64_t expected = 1;
  for (const auto& line : dsa::whole_lines(bench.folder() / log)) {
    const Json json = Json::parse(line);
    if (json["type"] == "step") CHECK(json["step"] == expected++);
  }
  CHECK(expected == 401);
}

TEST_CASE("a build that must not be timed records nothing, or says so in the record", "[cli]") {
  Bench bench;
  const std::string unfit = dsa::reason_not_to_time();
  ::unsetenv("DSA_RECORD_UNFIT_BUILD");
  const Outcome refused = bench.run(kKernelsOnly);
  CHECK(refused.code == (unfit.empty() ? 0 : 1));
  CHECK(fs::exists(bench.out) == unfit.empty());
  CHECK_THAT(refused.err, ContainsSubstring(unfit));
  fs::remove_all(bench.out);
  ::setenv("DSA_RECORD_UNFIT_BUILD", "1", 1);
  REQUIRE(bench.run(kKernelsOnly).code == 0);
  CHECK(bench.json("record.json")["build"].value("unfit", "") == unfit);
}

TEST_CASE("a row whose budget is spent keeps the repetitions it has", "[cli]") {
  Bench bench;
  auto arguments = kKernelsOnly;
  // Far from both bounds, so that a machine with other work on it passes too: alone it makes hundreds.
  arguments.insert(arguments.end(), {"--kernels.row-budget", "0.5", "--kernels.min-time", "0.001",
                                     "--benchmark_repetitions=2000", "--filter", "select_top_k"});
  REQUIRE(bench.run(arguments).code == 0);
  const size_t samples = sample_lines(bench.folder()).size();
  CHECK(samples >= 2);
  CHECK(samples < 2000);
}

TEST_CASE("a row that its shorter length predicts to be too slow is skipped and listed", "[cli]") {
  Bench bench;
  const Outcome outcome =
      bench.run({"--suites", "kernels", "--kernels.families", "select_top_k", "--kernels.backends",
                 "reference", "--kernels.lengths", "16,256", "--kernels.call-budget", "1e-6"});
  CHECK(outcome.code == 0);
  CHECK(sample_lines(bench.folder()).size() == 2);  // L=16 has no shorter length to judge it by
  const Json failures = bench.json("failures.json");
  REQUIRE(failures.size() == 1);
  CHECK_THAT(failures[0]["id"].get<std::string>(), ContainsSubstring("L:256"));
  CHECK_THAT(failures[0]["reason"].get<std::string>(), ContainsSubstring("--kernels.call-budget"));
}

TEST_CASE("a seed whose loss explodes is a sample without value; exit code 4 only if strict",
          "[cli]") {
  Bench bench;
  const bool strict = GENERATE(false, true);
  std::vector<std::string> arguments = {
      "--suites", "training", "--variants", "dense", "--seeds", "1,2", "--train.learning-rate",
      "1e30"};
  if (strict) arguments.push_back("--strict");
  CHECK(bench.run(arguments).code == (strict ? 4 : 0));
  CHECK(bench.json("failures.json").size() == 2);
  CHECK(bench.json("failures.json")[1]["labels"]["seed"] == "2");
  CHECK(bench.json("summary.json")["16"]["dense"]["seeds"] == 2);
  CHECK(bench.json("summary.json")["16"]["dense"]["best_val_loss"].is_null());
  CHECK(bench.json("results.json")["benchmarks"].empty());
}

TEST_CASE("what a backend declines is a row with its reason, not a gap", "[cli]") {
  Bench bench;
  const Outcome outcome =
      bench.run({"--suites", "kernels", "--kernels.families", "select_top_k,dense_attention",
                 "--kernels.memory-budget", "1e-9", "--dry-run"});
  CHECK(outcome.code == 0);
  const Json failures = bench.json("failures.json");
  CHECK(failures.size() > 2);
  CHECK(failures[0]["status"] == "skipped");
  CHECK_THAT(failures[0]["reason"].get<std::string>(),
             ContainsSubstring("--kernels.memory-budget"));
}

TEST_CASE("the same command gives the same record, times aside", "[cli]") {
  Bench first, second;
  const std::vector<std::string> arguments = {
      "--variants", "dsa,dense", "--kernels.families", "indexer_select,sparse_attention",
      "--seeds",    "1,7"};
  REQUIRE(first.run(arguments).code == 0);
  REQUIRE(second.run(arguments).code == 0);
  const Json one = without_times(first.json("record.json"));
  CHECK(one["metrics"].size() > 20);
  const Json difference = Json::diff(one, without_times(second.json("record.json")));
  INFO(difference.dump(1));
  CHECK(difference.empty());
}
