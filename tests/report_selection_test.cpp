// Selections in a report: every metric by layer, whichever the record brings, drawn and tabled.
#include "reports/charts.h"
#include "reports/report.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "report_runs.h"

using namespace dsa::report;
using Catch::Matchers::ContainsSubstring;
namespace record = dsa::record;

namespace {

void add_layer(record::Run& run, const record::Quantity& quantity, const std::string& variant,
               const std::string& layer, double last) {
  std::map<std::string, std::string> labels = {{"level", "training"}, {"id", variant},
                                               {"variant", variant},  {"L", "256"},
                                               {"K", "64"},           {"layer", layer}};
  run.metrics.push_back({quantity, labels, {last, last}});
  labels.erase("K");
  for (const char* seed : {"1", "2"}) {
    labels["seed"] = seed;
    run.series.push_back({{"step", "1"}, quantity, labels, {100, 200}, {0.5 * last, last}});
  }
}

}  // namespace

TEST_CASE("a record with metrics by layer gets a chart and a table of them", "[report]") {
  record::Run run = record::empty_run();
  add_training(run, "plain", 256, {3, 3}, {1, 1});
  add_training(run, "picky", 256, {2, 2}, {1, 1});
  CHECK(selection_section(Material(run)).empty());
  CHECK(selection_curves(Material(run)).empty());
  add_layer(run, {"selection_recall", "1"}, "picky", "0", 0.75);
  add_layer(run, {"selection_recall", "1"}, "picky", "1", 0.25);
  add_layer(run, {"selection_kl", "nats"}, "picky", "1", 1.25);
  const std::string text = markdown(build({".", run, {}}), true);
  CHECK_THAT(text, ContainsSubstring("| L | variant | layer | recall | KL (nats) |"));
  CHECK_THAT(text, ContainsSubstring("| 256 | `picky` | 0 | 0.750 | – |"));
  CHECK_THAT(text, ContainsSubstring("| 256 | `picky` | 1 | 0.250 | 1.25 |"));
  const auto charts = selection_curves(Material(run));
  REQUIRE(charts.size() == 1);
  const auto& values = charts[0].spec["data"]["values"];
  CHECK(values.size() == 4);  // two steps of two metrics: layers averaged, seeds by their median
  CHECK(values[1]["y"] == 0.5);
  // Two panels in three columns: a shared axis would stand below the empty third.
  CHECK(charts[0].spec["resolve"]["axis"]["x"] == "independent");
}
