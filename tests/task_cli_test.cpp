// Tasks through the built dsa-bench: rows, labels, files, refusals, a resume.
#include "harness/recorder.h"
#include "tests/process.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <csignal>
#include <map>
#include <set>

using Catch::Matchers::ContainsSubstring;
using dsa::tests::Bench;
using dsa::tests::Outcome;
namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

/// After flags for tiny shapes.
std::vector<std::string> with_task(std::vector<std::string> words, const std::string& name) {
  words.insert(words.end(), {"--suites", "training", "--task.name", name});
  return words;
}

std::vector<Json> metrics(const Json& record, const std::string& name) {
  std::vector<Json> found;
  for (const auto& metric : record["metrics"]) {
    if (metric["quantity"]["name"] == name) found.push_back(metric);
  }
  return found;
}

}  // namespace

TEST_CASE("audits judge a sweep, and a resume measures nothing twice", "[cli][task][audits]") {
  Bench bench;
  const Outcome outcome =
      bench.run(with_task({"--variants", "dense,dsa", "--task.top-k", "4,2", "--task.test-examples",
                           "20", "--audit.with-training"},
                          "mqar"));
  INFO(outcome.out << outcome.err);
  REQUIRE(outcome.code == 0);
  const Json record = bench.json("record.json");
  std::map<std::string, std::string> words, statuses;  // of dsa, by number
  for (const auto& audit : record["audits"]) {
    if (audit["labels"]["variant"] != "dsa") continue;
    words[audit["labels"]["number"]] = audit["detail"];
    statuses[audit["labels"]["number"]] = audit["labels"]["status"];
  }
  CHECK_THAT(words["2"], ContainsSubstring("of 20 test examples are among the 6 training"));
  CHECK_THAT(words["3"], ContainsSubstring("guessing 25.0 %"));
  CHECK_THAT(words["4"], ContainsSubstring("recall@2 of"));
  CHECK(statuses["8"] != "open");

  const auto curves = [&] {
    std::vector<Json> found;
    const Json now = bench.json("record.json");
    for (const auto& series : now["series"])
      if (series["labels"]["level"] == "audit") found.push_back(series);
    return found;
  };
  const std::vector<Json> before = curves();
  CHECK(before.size() == 3);
  REQUIRE(bench.plain({"--resume", bench.folder().string()}).code == 0);
  CHECK(curves() == before);
}

TEST_CASE("a task sweeps K over variants that select and trains dense once", "[cli][task]") {
  Bench bench;
  const auto arguments = with_task({"--variants", "dense,dsa,window", "--task.top-k", "2,4",
                                    "--task.test-examples", "20", "--seeds", "1,2"},
                                   "mqar");
  const Outcome outcome = bench.run(arguments);
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  const Json record = bench.json("record.json");
  std::set<std::string> ids;
  for (const Json& metric : metrics(record, "final_accuracy")) {
    ids.insert(metric["labels"]["id"]);
    CHECK(metric["labels"]["task"] == "mqar");
    CHECK(metric["samples"].size() == 2);
  }
  CHECK(ids == std::set<std::string>{"train/variant:dense/L:16/task:mqar",
                                     "train/variant:dsa/L:16/task:mqar/K:2",
                                     "train/variant:dsa/L:16/task:mqar/K:4",
                                     "train/variant:window/L:16/task:mqar/K:2",
                                     "train/variant:window/L:16/task:mqar/K:4"});
  CHECK(fs::exists(bench.folder() / "seq_16/dsa-K2-seed1.metrics.jsonl"));
  CHECK(fs::exists(bench.folder() / "seq_16/dense-seed2.metrics.jsonl"));
  const auto guesses = metrics(record, "guess");
  REQUIRE(guesses.size() == 2);
  CHECK(guesses[0]["samples"][0] == 0.25);  // four pairs
  CHECK(bench.json("summary.json")["16"]["dsa/K:4"]["seeds"] == 2);
  // Text, which is not trained here, was published; a task was not.
  CHECK(record["reference_series"].empty());
  std::set<std::string> curves;
  for (const auto& series : record["series"]) {
    if (series["y"]["name"] != "accuracy") continue;
    CHECK(series["labels"]["task"] == "mqar");
    curves.insert(series["labels"].value("K", "all"));
  }
  CHECK(curves == std::set<std::string>{"all", "2", "4"});
  const Json selected = metrics(record, "selection_recall");
  CHECK(!selected.empty());  // windows are judged although most of their tokens are not scored
}

TEST_CASE("text rows keep their names and carry no task", "[cli][task]") {
  Bench bench;
  REQUIRE(bench.run({"--suites", "training", "--variants", "dsa"}).code == 0);
  const Json record = bench.json("record.json");
  const auto found = metrics(record, "final_accuracy");
  REQUIRE(found.size() == 1);
  CHECK(found[0]["labels"]["id"] == "train/variant:dsa/L:16");
  CHECK(!found[0]["labels"].contains("task"));
  CHECK(metrics(record, "guess").empty());
}

TEST_CASE("needles are scored by depth, whole answers", "[cli][task]") {
  Bench bench;
  const auto arguments = with_task(
      {"--variants", "dsa", "--lengths", "128", "--task.needle-trials", "2", "--train.steps", "1"},
      "needle");
  const Outcome outcome = bench.run(arguments);
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  std::vector<std::string> depths;
  for (const Json& metric : metrics(bench.json("record.json"), "exact_match")) {
    depths.push_back(metric["labels"]["depth"]);
    CHECK(metric["samples"][0] == 0);  // one step does not teach it
  }
  CHECK(depths == std::vector<std::string>{"0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7",
                                           "0.8", "0.9", "1"});
}

TEST_CASE("an impossible task is one sentence and exit code 1", "[cli][task]") {
  Bench bench;
  const std::vector<std::pair<std::vector<std::string>, std::string>> mistakes = {
      {with_task({}, "chess"), "task.name is 'chess'"},
      {with_task({"--task.vocab-size", "16"}, "mqar"), "task.vocab-size is 16"},
      {with_task({"--task.pairs", "5"}, "mqar"), "at most 4 at length 16"},
      {with_task({"--task.top-k", "4,4"}, "mqar"), "lists 4 twice"},
      {with_task({"--task.top-k", "0"}, "mqar"), "task.top-k is 0"},
      {with_task({"--task.top-k", "4"}, "text"), "attention.top-k"},
      {with_task({}, "needle"), "the length is 16"},
      {with_task({"--lengths", "128", "--data.tokenizer", "word"}, "needle"), "give byte"},
  };
  for (const auto& [arguments, sentence] : mistakes) {
    const Outcome outcome = bench.run(arguments);
    INFO(arguments.back() << "\n" << outcome.err);
    CHECK(outcome.code == 1);
    CHECK_THAT(outcome.err, ContainsSubstring(sentence));
    CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1);
    CHECK(!fs::exists(bench.out));
  }
}

TEST_CASE("a task that was interrupted goes on at its K", "[cli][task]") {
  Bench bench;
  const auto arguments = with_task(
      {"--variants", "dsa", "--task.top-k", "2,4", "--train.steps", "400"}, "selective-copy");
  auto small = arguments;
  small.insert(small.end(), {"--task.copied-tokens", "4", "--task.test-examples", "10"});
  const pid_t child = bench.start(small);
  REQUIRE(bench.wait_for_lines("seq_16/dsa-K4-seed1.metrics.jsonl", 5));
  REQUIRE(bench.end(child, SIGINT) == 130);
  REQUIRE(bench.plain({"--resume", bench.folder().string()}).code == 0);
  for (const char* log :
       {"seq_16/dsa-K2-seed1.metrics.jsonl", "seq_16/dsa-K4-seed1.metrics.jsonl"}) {
    int64_t steps = 0;
    for (const auto& line : dsa::whole_lines(bench.folder() / log)) {
      if (Json::parse(line)["type"] == "step") ++steps;
    }
    CHECK(steps == 400);
  }
}
