// What a gate found, as a comment and as a page.
#include "reports/gate_report.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "report_gates.h"
#include <limits>
#include <map>

using namespace dsa::report;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;
namespace record = dsa::record;

static std::string comment(const record::GateVerdict& gate) {
  return markdown(build(gate), true);
}

/// Everything before the first fold.
static std::string open_part(const std::string& text) {
  return text.substr(0, text.find("<details>"));
}

TEST_CASE("a gate's comment begins with its sentence", "[report][gate]") {
  CHECK_THAT(comment(record::full_gate()),
             StartsWith("**1 regression among 12 rows: sparse_attention L=8192 takes 1.062x.**\n"));
  record::GateVerdict gate = record::full_gate();
  gate.sentence.clear();
  CHECK_THAT(comment(gate),
             StartsWith("**Gate: 1 regression, 1 worse, 1 crashed, 1 hung, 1 failed, 1 missing, 1 "
                        "inconclusive, 1 unarmed, 1 new, 1 renamed, 1 improvement, 1 same, 1 "
                        "same-build.**\n"));
}

TEST_CASE("rows that need somebody are open, the others folded", "[report][gate]") {
  const std::string text = comment(record::full_gate()), open = open_part(text);
  size_t last = 0;
  for (const char* verdict : {"regression", "worse", "crashed", "hung", "failed", "missing",
                              "inconclusive", "unarmed", "new", "renamed"}) {
    CAPTURE(verdict);
    const size_t at = open.find("| **" + std::string(verdict) + "** |");
    REQUIRE(at != std::string::npos);
    CHECK(at > last);  // most pressing first
    last = at;
  }
  CHECK_THAT(open, !ContainsSubstring("| same |") && !ContainsSubstring("| improvement |"));
  CHECK_THAT(text,
             ContainsSubstring("<summary>The other 3 rows: 1 improvement, 1 same, 1 same-build"));
  CHECK_THAT(text, ContainsSubstring("| improvement | 0.912× | [0.901, 0.923] | 15 |"));
  CHECK_THAT(text, ContainsSubstring("| same-build | – | – | – | Equal .text. |"));
}

TEST_CASE("a row tells ratio, interval, rounds, reason and the second batch", "[report][gate]") {
  const std::string text = comment(record::full_gate());
  CHECK_THAT(text, ContainsSubstring("/L:8192/K:256/H:8/G:8/D:64/V:64/dtype:f32/scores:uniform` | "
                                     "**regression** | 1.062× | [1.044, 1.080] | 15 | Slower. "
                                     "Second batch: 1.060× [1.041, 1.078], 15 rounds. |"));
  CHECK_THAT(text, ContainsSubstring("| `gone/L:64` | **missing** | – | – | – | Only base"));
  CHECK_THAT(text, ContainsSubstring("reference disagrees \\| badly. |"));
}

TEST_CASE("an unknown verdict is not folded away", "[report][gate]") {
  record::GateVerdict gate = record::full_gate();
  gate.rows[0].verdict = "bewitched";
  CHECK_THAT(open_part(comment(gate)), ContainsSubstring("| **bewitched** |"));
  CHECK_THAT(gate_forest(gate).spec.dump(), ContainsSubstring("\"name\":\"other\""));
}

TEST_CASE("checks that changed are shown with as many digits as tell them apart",
          "[report][gate]") {
  const std::string text = comment(record::full_gate());
  CHECK_THAT(text, ContainsSubstring("### Numbers that no clock touches: 2 of 3 changed"));
  CHECK_THAT(text, ContainsSubstring("| final validation loss | 3.5612001\u00a0nats/token | "
                                     "3.5612345\u00a0nats/token |"));
  CHECK_THAT(text, ContainsSubstring("| peak memory | 64.00\u00a0MiB | 48.00\u00a0MiB | "
                                     "4.000\u00a0KiB | better |"));
  record::GateVerdict gate = record::full_gate();
  gate.rows[5].checks.clear();
  CHECK_THAT(comment(gate), ContainsSubstring("Of 1 numbers that no clock touches"));
}

TEST_CASE("certificate, arms and command close the comment", "[report][gate]") {
  const std::string text = comment(record::full_gate());
  CHECK_THAT(text,
             ContainsSubstring("* Certificate: armed; base against its copy came out the same in "
                               "5 of 6 rows, base slowed 1.100× was found in 6 of 6 rows.\n"));
  CHECK_THAT(text, ContainsSubstring(
                       "* base: `old/dsa-bench`, commit `63ca940464`, .text `9d3f6c2b1a0e4857`\n"));
  CHECK_THAT(text, ContainsSubstring("* machine: `Intel(R) Xeon(R) Platinum`\n"));
  CHECK_THAT(text, ContainsSubstring("* spent: 612\u00a0s of at most 900\u00a0s"));
  CHECK_THAT(text, ContainsSubstring("```\ndsa-bench gate --base old/dsa-bench"));
  record::GateVerdict gate = record::full_gate();
  gate.armed = false;
  CHECK_THAT(comment(gate), ContainsSubstring("Certificate: NOT armed;"));
}

TEST_CASE("a comment links nothing that stays behind, the page draws the forest",
          "[report][gate]") {
  const Document document = build(record::full_gate());
  for (bool pictures : {true, false}) {
    CHECK_THAT(markdown(document, pictures), !ContainsSubstring("](") &&
                                                 !ContainsSubstring("charts/") &&
                                                 !ContainsSubstring("vl-convert"));
  }
  CHECK_THAT(html(document, "/* vega */"), ContainsSubstring("id=\"chart-gate_forest\""));
}

TEST_CASE("a gate without timed rows reads well", "[report][gate]") {
  record::GateVerdict gate = record::empty_gate();
  gate.armed = false;
  CHECK_THAT(comment(gate), StartsWith("**The gate compared no benchmark.**\n") &&
                                ContainsSubstring("* Certificate: none, nothing was timed.\n"));
  gate.rows = {record::untimed_row("a/L:1", "same-build", "Equal .text."),
               record::untimed_row("b/L:1", "same-build", "Equal .text.")};
  const std::string text = comment(gate);
  CHECK_THAT(text, StartsWith("**Gate: 2 same-build.**\n\nNo row needs attention.\n\n<details>"));
  CHECK_THAT(text, !ContainsSubstring("head / base is"));
  CHECK_THAT(text, ContainsSubstring("<summary>All 2 rows: 2 same-build</summary>"));
  CHECK(figures(build(gate)).empty());
  CHECK_THAT(html(build(gate), ""), !ContainsSubstring("vl-convert"));  // there is nothing to draw
}

TEST_CASE("a gate that did not end says so", "[report][gate]") {
  record::GateVerdict gate = record::full_gate();
  gate.status = "interrupted";
  CHECK_THAT(comment(gate), ContainsSubstring("> This gate did not end (status: interrupted)"));
}

TEST_CASE("the forest is sorted by ratio and says common axes once", "[report][gate]") {
  const Chart chart = gate_forest(record::full_gate());
  CHECK(chart.title == "Of 6 timed rows 1 is slower, 1 faster");
  const Json& values = chart.spec["data"]["values"];
  REQUIRE(values.size() == 6);
  for (size_t i = 1; i < values.size(); ++i) {
    CHECK(values[i - 1]["ratio"].get<double>() >= values[i]["ratio"].get<double>());
  }
  CHECK(values[0]["name"] == "regression");
  // A micro row is judged at 3 %, a macro row at 2 %.
  std::map<std::string, double> band;
  for (const Json& value : values) band[value["name"]] = value["most"].get<double>();
  CHECK(band["regression"] == 1.03);
  CHECK(band["worse"] == 1.02);
  record::GateVerdict kernels = record::full_gate();
  std::erase_if(kernels.rows, [](const auto& row) { return row.level == "training"; });
  const Json spec = gate_forest(kernels).spec;
  CHECK(spec["data"]["values"][0]["row"] == "sparse_attention/L:8192");
  CHECK_THAT(spec["title"]["subtitle"].dump(), ContainsSubstring("dtype:f32"));
}

TEST_CASE("rows without an interval or with odd ratios do not break the forest", "[report][gate]") {
  record::GateVerdict gate = record::empty_gate();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  gate.rows = {record::timed_row("a/L:1", "inconclusive", 1.5, 0.1)};
  gate.rows[0].pairing.low = gate.rows[0].pairing.high = nan;
  CHECK(gate_forest(gate).spec["data"]["values"][0]["low"].is_null());
  CHECK_THAT(comment(gate), ContainsSubstring("| 1.500× | – | 15 |"));
  gate.rows[0].pairing.ratio = nan;
  CHECK(gate_forest(gate).id.empty());
  gate.rows[0].pairing.ratio = 0;
  CHECK(gate_forest(gate).id.empty());
}

TEST_CASE("a comment about a thousand rows fits into GitHub's 65536 letters", "[report][gate]") {
  record::GateVerdict gate = record::empty_gate();
  for (int i = 0; i < 500; ++i) {
    gate.rows.push_back(record::timed_row(
        record::kernel_id("sparse_attention", i), "inconclusive", 1.01, 0.05,
        "The interval is wider than the least effect after 40 rounds; the budget is spent."));
    gate.rows.back().checks = {{{"peak_memory", "bytes"}, 1, 2, 0, "changed"}};
    gate.rows.push_back(record::timed_row(record::kernel_id("select", i), "same", 1.001, 0.01));
  }
  const Document document = build(gate);
  const std::string text = markdown(document, true);
  CHECK(text.size() < 65536);
  CHECK_THAT(text, ContainsSubstring("And 420 more: `gate.html` has them all."));
  CHECK_THAT(html(document, ""), ContainsSubstring("L:499/"));
  CHECK(gate_forest(gate).spec["data"]["values"].size() == 80);
}
