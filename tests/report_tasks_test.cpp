// Tasks in a report: apart from text, accuracy over K drawn in the variants' own colours, the finding
// computed, depths as a heat map.
#include "reports/charts.h"
#include "reports/report.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "report_runs.h"

using namespace dsa::report;
using Catch::Matchers::ContainsSubstring;
namespace record = dsa::record;

namespace {

std::map<std::string, std::string> task_labels(const std::string& variant, int top_k) {
  std::map<std::string, std::string> labels = {{"level", "training"},
                                               {"id", variant + std::to_string(top_k)},
                                               {"variant", variant},
                                               {"L", "64"},
                                               {"task", "recall"}};
  if (top_k > 0) labels["K"] = std::to_string(top_k);
  return labels;
}

void add_accuracy(record::Run& run, const std::string& variant, int top_k, double accuracy) {
  auto labels = task_labels(variant, top_k);
  run.metrics.push_back({{"final_accuracy", "1"}, labels, {accuracy, accuracy}});
  labels["seed"] = "1";
  run.series.push_back({{"step", "1"}, {"accuracy", "1"}, labels, {100, 200}, {0.1, accuracy}});
}

record::Run task_run() {
  record::Run run = record::empty_run();
  run.metrics.push_back({{"guess", "1"},
                         {{"level", "task"},
                          {"task", "recall"},
                          {"summary", "keys and values"},
                          {"guess", "any value"}},
                         {0.25}});
  add_accuracy(run, "plain", 0, 0.99);
  const int top_ks[] = {4, 8, 16};
  const double picky[] = {0.6, 0.98, 0.99}, near[] = {0.3, 0.41, 0.8};
  for (int i = 0; i < 3; ++i) {
    add_accuracy(run, "picky", top_ks[i], picky[i]);
    add_accuracy(run, "near", top_ks[i], near[i]);
  }
  return run;
}

const Chart* chart_of(const std::vector<Chart>& charts, const std::string& id) {
  for (const Chart& chart : charts) {
    if (chart.id == id) return &chart;
  }
  return nullptr;
}

/// Every value of a key, wherever in the specification.
void collect(const Json& node, const std::string& key, std::vector<Json>& out) {
  if (node.is_object() && node.contains(key)) out.push_back(node[key]);
  for (const auto& child : node) {
    if (child.is_structured()) collect(child, key, out);
  }
}

}  // namespace

TEST_CASE("a task has a section of its own and leaves the tables of text alone", "[report]") {
  record::Run run = task_run();
  const Document tasks_only = build({".", run, {}});
  const std::string text = markdown(tasks_only, true);
  CHECK_THAT(text, ContainsSubstring("## Task: recall") && !ContainsSubstring("## Training"));
  CHECK_THAT(text, ContainsSubstring("| L | K | `plain` | `picky` | `near` |"));
  CHECK_THAT(text, ContainsSubstring("| 64 | 8 | – | 98.0\u00a0% | 41.0\u00a0% |"));
  CHECK_THAT(text, ContainsSubstring("| 64 | all | 99.0\u00a0% | – | – |"));
  CHECK_THAT(text, ContainsSubstring("Recall at L = 64: picky is within 2 points of plain"));
  CHECK_THAT(text, !ContainsSubstring("compares nothing"));
  CHECK_THAT(text, ContainsSubstring("trained at that K from the first step"));
  record::Run continued = run;
  continued.config_json = R"({"train": {"start-from": "dense.safetensors"}})";
  const std::string later = markdown(build({".", continued, {}}), true);
  CHECK_THAT(later, ContainsSubstring("went on from one model, dense.safetensors,"));
  CHECK_THAT(later, !ContainsSubstring("from the first step"));

  add_training(run, "plain", 64, {3, 3}, {1, 1});
  add_training(run, "picky", 64, {2, 2}, {1, 1});
  const Material both(run);
  CHECK(both.training.arms().size() == 2);  // not one for each K of the task
  CHECK(both.training.top_k(both.training.arms()[1], 64).empty());
  CHECK(both.tasks.size() == 1);
  CHECK_THAT(markdown(build({".", run, {}}), true), ContainsSubstring("## Training"));
}

TEST_CASE("accuracy over K: one line a variant in its own colour, dense a rule", "[report]") {
  const record::Run run = task_run();
  const Document document = build({".", run, {}});
  const std::vector<Chart> charts = figures(document);
  const Chart* chart = chart_of(charts, "accuracy_recall_L64");
  REQUIRE(chart != nullptr);
  CHECK(
      chart->title ==
      "recall at L = 64: picky is within 2 points of plain (99.0\u00a0%) from K = 8 on, where near "
      "has 41.0\u00a0%");
  std::vector<Json> domains, data;
  collect(chart->spec, "range", domains);
  CHECK(std::find(domains.begin(), domains.end(),
                  Json{theme::look(0).colour, theme::look(1).colour, theme::look(2).colour}) !=
        domains.end());
  collect(chart->spec, "values", data);
  int rules = 0, points = 0;
  for (const Json& values : data) {
    for (const Json& row : values) {
      if (!row.is_object() || !row.contains("median")) continue;
      (row["rule"].get<bool>() ? rules : points)++;
    }
  }
  CHECK(rules == 2);  // dense, from the smallest to the largest K
  CHECK(points == 6);
  const Chart* learning = chart_of(charts, "learning_recall");
  REQUIRE(learning != nullptr);
  CHECK(learning->spec["data"]["values"].size() == 3 * 3 * 2);  // K, variant, step
}

TEST_CASE("a finding says when dense has not learnt the task, and when dsa never gets there",
          "[report]") {
  const auto finding = [](double dense, double dsa) {
    record::Run run = task_run();
    for (auto& metric : run.metrics) {
      if (metric.labels["variant"] == "plain") metric.samples = {dense};
      if (metric.labels["variant"] == "picky") metric.samples = {dsa};
    }
    return task_finding(task_views(run).at(0), 64);
  };
  CHECK_THAT(finding(0.3, 0.3), ContainsSubstring("plain itself has not learnt it (30.0"));
  CHECK_THAT(finding(0.99, 0.5),
             ContainsSubstring("picky at K = 16 has 50.0") && ContainsSubstring(", near has 80.0"));
  CHECK_THAT(finding(0.99, 0.98), ContainsSubstring("from K = 4 on"));
}

TEST_CASE("whole answers are a heat map over depth and length", "[report]") {
  record::Run run = task_run();
  for (const char* depth : {"0", "0.5", "1"}) {
    auto labels = task_labels("picky", 8);
    labels["depth"] = depth;
    run.metrics.push_back({{"exact_match", "1"}, labels, {0.25, 0.75}});
    labels["K"] = "4";
    run.metrics.push_back({{"exact_match", "1"}, labels, {0.0, 0.0}});
  }
  const auto charts = task_depths(Material(run));
  REQUIRE(charts.size() == 1);
  const Json& values = charts[0].spec["data"]["values"];
  REQUIRE(values.size() == 3);  // the middle K alone
  CHECK(values[1]["depth"] == "0.5");
  CHECK(values[1]["exact"] == 0.5);
  CHECK_THAT(charts[0].title, ContainsSubstring("K = 8"));
}
