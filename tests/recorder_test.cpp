// What a run's folder holds at every moment, also one that a crash or a resume left.
#include "harness/recorder.h"

#include "attention/fields.h"
#include "harness/run_files.h"
#include "tests/process.h"

#include <catch2/catch_test_macros.hpp>
#include <nlohmann/json.hpp>

#include <cmath>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>

using namespace dsa;
namespace fs = std::filesystem;

namespace {

const std::string kId = "sparse_attention/pass:fwd/backend:cpu/L:16";

struct Folder {
  fs::path path = fs::temp_directory_path() / ("dsa_recorder_test_" + std::to_string(getpid()));
  Folder() { fs::remove_all(path); }
  ~Folder() { fs::remove_all(path); }
};

record::Run run() {
  record::Run run;
  run.id = "20261125T010203";
  run.started = "2026-11-25T01:02:03Z";
  run.config_json = "{}";
  return run;
}

Sample sample(const std::string& id, int64_t repetition, double seconds) {
  Sample s;
  s.id = id;
  s.level = "kernel";
  s.repetition = repetition;
  s.seconds = seconds;
  s.cpu_seconds = 2 * seconds;
  s.values = {{"flops", 100}, {"flop_rate", 100 / seconds}};
  return s;
}

record::Metric time_of(const std::string& id, std::vector<double> samples) {
  return {
      {"time", "s", record::Quantity::Better::kLower}, {{"level", "kernel"}, {"id", id}}, samples};
}

/// Strict: nlohmann refuses NaN, Infinity, comments and trailing commas.
nlohmann::json json_of(const fs::path& file) {
  return nlohmann::json::parse(tests::text_of(file));
}

}  // namespace

TEST_CASE("a run that was just started is a readable record with status running", "[recorder]") {
  Folder out;
  Recorder recorder(out.path, run(), {});
  REQUIRE(json_of(recorder.folder() / "record.json")["status"] == "running");
  recorder.add(sample(kId, 0, 0.5));
  // No write(), no finish(): as after kill -9.
  const auto lines = whole_lines(recorder.folder() / "samples.jsonl");
  REQUIRE(lines.size() == 2);
  REQUIRE(nlohmann::json::parse(lines[1])["seconds"] == 0.5);
}

TEST_CASE("a second run of the same second gets a folder of its own", "[recorder]") {
  Folder out;
  Recorder first(out.path, run(), {}), second(out.path, run(), {});
  REQUIRE(first.folder() != second.folder());
  REQUIRE(second.run().id == second.folder().filename());
}

TEST_CASE("an output folder that cannot be written is one sentence", "[recorder]") {
  Folder out;
  fs::create_directories(out.path);
  std::ofstream(out.path / "file") << "x";
  REQUIRE_THROWS_AS(Recorder(out.path / "file", run(), {}), Error);
  REQUIRE_THROWS_AS(Recorder("/proc/no", run(), {}), Error);
}

TEST_CASE("results.json has a row a sample, track.json a median an id, both strict", "[recorder]") {
  Folder out;
  MachineContext context;
  context.host = "h";
  context.cpus = 2;
  Recorder recorder(out.path, run(), context);
  for (const double seconds : {0.5, 0.25, 1.0}) {
    recorder.add(sample(kId, 0, seconds));
    recorder.add(sample("train/variant:dsa/L:16", 0, seconds));
  }
  Sample broken = sample("dense_attention/pass:fwd/L:16", 0, 0);  // a time of 0 is no row
  broken.values["error"] = std::numeric_limits<double>::quiet_NaN();
  recorder.add(broken);
  recorder.finish("done");

  const auto results = json_of(recorder.folder() / "results.json");
  REQUIRE(results["context"]["json_schema_version"] == 1);
  REQUIRE(results["context"]["caches"].is_array());
  REQUIRE(results["benchmarks"].size() == 6);
  REQUIRE(results["benchmarks"][0]["name"] == kId);
  REQUIRE(results["benchmarks"][0]["real_time"] == 0.5e6);
  REQUIRE(results["benchmarks"][0]["repetitions"] == 3);
  REQUIRE(results["benchmarks"][3]["family_index"] == 1);
  const auto track = json_of(recorder.folder() / "track.json")["benchmarks"];
  REQUIRE(track.size() == 2);
  REQUIRE(track[0]["real_time"] == 0.5e6);
  REQUIRE(track[0]["flop_rate"] == 200);
  REQUIRE(whole_lines(recorder.folder() / "samples.jsonl").back().find("\"end\"") !=
          std::string::npos);
}

TEST_CASE("track.json has what CI trackers read", "[recorder]") {
  // github-action-benchmark's reader `googlecpp` and Bencher's adapter `cpp_google`, field by field.
  Folder out;
  MachineContext context;
  context.caches.push_back({"Data", 1, 49152, 1});
  Recorder recorder(out.path, run(), context);
  for (const double seconds : {0.5, 0.25, 1e-9}) recorder.add(sample(kId, 0, seconds));
  recorder.add(sample("train/variant:dsa/L:16", 0, 2));
  recorder.finish("done");
  const std::string text = tests::text_of(recorder.folder() / "track.json");
  CHECK(text.find("NaN") == std::string::npos);
  CHECK(text.find("Infinity") == std::string::npos);
  const auto track =
      json_of(recorder.folder() / "track.json");   // throws where the JSON is not strict
  REQUIRE(track["context"]["caches"].is_array());  // Bencher: a list of objects
  CHECK(track["context"]["caches"][0].is_object());
  REQUIRE(track["benchmarks"].is_array());
  std::set<std::string> names;
  for (const auto& row : track["benchmarks"]) {
    const auto name = row.at("name").get<std::string>();
    CHECK(names.insert(name).second);  // a second row of a name would replace the first
    CHECK((!name.empty() && name.size() <= 1024));
    CHECK(row.at("real_time").is_number_float());
    CHECK(row["real_time"].get<double>() > 0);
    CHECK(row.at("cpu_time").is_number());
    const auto unit = row.at("time_unit").get<std::string>();
    CHECK((unit == "ns" || unit == "us" || unit == "ms" || unit == "s"));
    CHECK(row.at("iterations").is_number_integer());
    CHECK(row.at("threads").is_number_integer());
  }
  CHECK(names.size() == 2);
}

TEST_CASE("a counter with a name Google Benchmark uses itself is refused", "[recorder]") {
  Folder out;
  Recorder recorder(out.path, run(), {});
  Sample bad = sample(kId, 0, 1);
  bad.values["iterations"] = 3;
  REQUIRE_THROWS_AS(recorder.add(bad), std::logic_error);
}

TEST_CASE("resuming keeps finished rows and drops what was cut off", "[recorder]") {
  Folder out;
  fs::path folder;
  {
    Recorder recorder(out.path, run(), {});
    folder = recorder.folder();
    recorder.add(sample(kId, 0, 0.5));
    recorder.add(sample(kId, 1, 0.75));
    recorder.put(time_of(kId, {0.5, 0.75}));
    recorder.write();
    recorder.add(sample("dense_attention/L:16", 0, 3));  // no metric yet: its row never ended
  }
  std::ofstream(folder / "samples.jsonl", std::ios::app) << R"({"type":"sample","id":"den)";

  Recorder resumed(folder, {});
  REQUIRE(resumed.metric(kId, "time")->samples == std::vector<double>{0.5, 0.75});
  REQUIRE(resumed.metric("dense_attention/L:16", "time") == nullptr);
  resumed.finish("done");
  const auto rows = json_of(folder / "results.json")["benchmarks"];
  REQUIRE(rows.size() == 2);
  REQUIRE(rows[1]["real_time"] == 0.75e6);
  for (const auto& line : whole_lines(folder / "samples.jsonl")) {
    if (line.find("\"den") == std::string::npos || line.ends_with('}')) {
      REQUIRE_NOTHROW(nlohmann::json::parse(line));
    }
  }
}

TEST_CASE("samples of a row whose gate failed are retracted everywhere", "[recorder]") {
  Folder out;
  Recorder recorder(out.path, run(), {});
  recorder.add(sample(kId, 0, 0.5));
  recorder.retract(kId);
  recorder.put(record::Failure{kId, "failed", "error 1 is above 1e-5", {}});
  recorder.put(record::Failure{kId, "failed", "error 2 is above 1e-5", {}});
  recorder.finish("failed", "1 benchmark failed its correctness gate");
  REQUIRE(json_of(recorder.folder() / "results.json")["benchmarks"].empty());
  const auto failures = json_of(recorder.folder() / "failures.json");
  REQUIRE(failures.size() == 1);
  REQUIRE(failures[0]["reason"] == "error 2 is above 1e-5");
  REQUIRE(json_of(recorder.folder() / "record.json")["status"] == "failed");
}

TEST_CASE("forgetting an interruption keeps a seed's failure", "[recorder]") {
  Folder out;
  Recorder recorder(out.path, run(), {});
  recorder.put(record::Failure{kId, "failed", "loss is not finite", {{"seed", "1"}}});
  recorder.put(record::Failure{kId, "interrupted", "stopped", {}});
  recorder.forget_failures(kId, "interrupted");
  REQUIRE(recorder.failures().size() == 1);
  REQUIRE(recorder.failures()[0].status == "failed");
  recorder.forget_failures(kId);
  REQUIRE(recorder.failures().empty());
}

TEST_CASE("summary.json has the original experiment's shape; failed seeds count", "[recorder]") {
  record::Run r = run();
  const double failed = std::numeric_limits<double>::quiet_NaN();
  const std::map<std::string, std::string> labels = {
      {"level", "training"}, {"id", "train/variant:dsa/L:64"}, {"variant", "dsa"}, {"L", "64"}};
  r.metrics = {{{"best_validation_loss", "nats/token"}, labels, {3, failed, 5}},
               {{"step_time", "s"}, labels, {failed, failed, failed}}};
  const auto json = nlohmann::json::parse(summary_json(r));
  REQUIRE(json["64"]["dsa"]["best_val_loss"] == 4);
  REQUIRE(json["64"]["dsa"]["seeds"] == 3);
  REQUIRE(json["64"]["dsa"]["seconds_per_step"].is_null());
}

TEST_CASE("summary.json tells how well each layer selects", "[recorder]") {
  record::Run r = run();
  for (const char* layer : {"1", "0"}) {
    const double recall = layer[0] == '0' ? 0.75 : 0.5;
    r.metrics.push_back({{"selection_recall", "1"},
                         {{"level", "training"}, {"variant", "dsa"}, {"L", "64"}, {"layer", layer}},
                         {recall, recall + 0.25, std::numeric_limits<double>::quiet_NaN()}});
  }
  const auto json = nlohmann::json::parse(summary_json(r));
  REQUIRE(json["64"]["dsa"]["selection_recall"] == nlohmann::json({0.875, 0.625}));
}

TEST_CASE("a file is replaced whole or not at all", "[recorder]") {
  Folder out;
  fs::create_directories(out.path);
  write_atomically(out.path / "a", "one");
  write_atomically(out.path / "a", "two");
  REQUIRE(tests::text_of(out.path / "a") == "two");
  REQUIRE_THROWS_AS(write_atomically(out.path / "no" / "a", "x"), Error);
  REQUIRE(std::distance(fs::directory_iterator(out.path), {}) == 1);
}
