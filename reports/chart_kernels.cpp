// Kernel charts: dense attention beside whole DSA (selecting the keys, then reading them) over
// length, in time and in memory, and the speed-up over K and L where K was swept.
#include "reports/charts.h"
#include "reports/line_chart.h"
#include "reports/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace dsa::report {
namespace {

namespace words = vocabulary;

/// The first scenario of each pass: the one with most lengths.
std::vector<const Scenario*> main_scenarios(const KernelView& kernels) {
  std::vector<const Scenario*> out;
  std::set<std::string> seen;
  for (const Scenario& scenario : kernels.scenarios()) {
    if (seen.insert(scenario.pass).second) out.push_back(&scenario);
  }
  return out;
}

std::string pass_words(const std::string& pass) {
  if (pass == words::kForward) return "forward";
  if (pass == words::kForwardBackward) return "forward + backward";
  return pass;
}

/// One line a backend: dense in the baseline's colour, DSA in the candidate's; the others thinner,
/// paler by dash and told apart by shape.
void add_lines(LineChart& chart, const Scenario& scenario, bool sparse, Summary Contender::*value) {
  std::vector<std::string> backends;
  std::map<std::string, Line> lines;
  std::string best;
  for (const ScenarioPoint& point : scenario.points) {
    const Contender* fastest = sparse ? point.best_sparse() : point.best_dense();
    if (fastest) best = fastest->backend;
    for (const Contender& one : sparse ? point.sparse : point.dense) {
      if (one.role == words::kOracle) continue;  // its job is to be right, not fast
      if (!lines.contains(one.backend)) backends.push_back(one.backend);
      lines[one.backend].points.push_back({point.length, one.*value});
    }
  }
  int place = 0;
  for (const std::string& backend : backends) {
    Line line = lines[backend];
    line.name = (sparse ? "DSA · " : "dense · ") + backend;
    const bool strongest = backend == best;
    const theme::Look own = theme::look(sparse ? 1 : 0);
    line.look = strongest ? own : theme::look(place++ % 6 + 2);
    line.look.colour = own.colour;
    line.look.dash = strongest ? Json{1, 0} : Json{5, 3};
    line.width = strongest ? 3 : 1.5;
    const bool any = std::any_of(line.points.begin(), line.points.end(),
                                 [](const Line::Point& p) { return p.value.median > 0; });
    if (any) chart.lines.push_back(line);
  }
}

std::vector<double> lengths_of(const Scenario& scenario) {
  std::vector<double> out;
  for (const ScenarioPoint& point : scenario.points) out.push_back(point.length);
  return out;
}

int samples_of(const Scenario& scenario) {
  int n = 0;
  for (const ScenarioPoint& point : scenario.points) {
    for (const auto* contenders : {&point.dense, &point.sparse}) {
      for (const Contender& one : *contenders) n = std::max(n, one.time.n);
    }
  }
  return n;
}

std::string memory_title(const Scenario& scenario) {
  const ScenarioPoint& point = scenario.points.back();
  const Contender *dense = point.best_dense(), *sparse = point.best_sparse();
  if (!dense || !sparse || dense->memory.empty() || sparse->memory.empty()) {
    return "Peak memory above the inputs, " + pass_words(scenario.pass);
  }
  return "Memory at L = " + length(point.length) + ": DSA on " + sparse->backend + " " +
         with_unit(sparse->memory.median, "bytes") + ", dense on " + dense->backend + " " +
         with_unit(dense->memory.median, "bytes");
}

Json speed_up_cells(const std::vector<const Scenario*>& sweep, double& largest) {
  std::map<double, std::set<double>> seen;
  std::set<double> top_ks;
  Json values = Json::array();
  for (const Scenario* scenario : sweep) {
    for (const ScenarioPoint& point : scenario->points) {
      const Summary speed_up = point.speed_up();
      if (speed_up.empty()) continue;
      const double power = std::log2(speed_up.median);
      largest = std::max(largest, std::fabs(power));
      seen[point.length].insert(point.top_k);
      top_ks.insert(point.top_k);
      values.push_back({{"L", theme::rounded(point.length, 9)},
                        {"K", theme::rounded(point.top_k, 9)},
                        {"s", theme::rounded(speed_up.median, 3)},
                        {"lg", theme::rounded(power, 4)}});
    }
  }
  for (const auto& [length, present] : seen) {
    for (double k : top_ks) {
      if (present.contains(k)) continue;
      values.push_back({{"L", theme::rounded(length, 9)},
                        {"K", theme::rounded(k, 9)},
                        {"s", nullptr},
                        {"lg", nullptr}});
    }
  }
  return values;
}

Json heat_map_layers(double bound) {
  const std::string length_label =
      "datum.value>=1024 ? format(datum.value/1024,'.3~r')+'k' : format(datum.value,'d')";
  const Json x = {{"field", "K"},
                  {"type", "ordinal"},
                  {"title", "Keys read per query K"},
                  {"axis", {{"labelAngle", 0}, {"domain", false}, {"ticks", false}}}};
  const Json y = {{"field", "L"},
                  {"type", "ordinal"},
                  {"title", "Sequence length L"},
                  {"sort", "descending"},
                  {"axis", {{"labelExpr", length_label}, {"domain", false}, {"ticks", false}}}};
  const Json colour = {{"condition", {{"test", "!isValid(datum.lg)"}, {"value", "#E5E7EB"}}},
                       {"field", "lg"},
                       {"type", "quantitative"},
                       {"title", "speed-up"},
                       {"scale",
                        {{"type", "linear"},
                         {"domain", {-bound, 0, bound}},
                         {"range", {"#2166AC", "#F7F7F7", "#B2182B"}},
                         {"clamp", true}}},
                       {"legend",
                        {{"orient", "right"},
                         {"direction", "vertical"},
                         {"gradientLength", 140},
                         {"tickCount", 5},
                         {"labelExpr", "format(pow(2,datum.value),'.3~r')+'×'"}}}};
  const std::string dark =
      "isValid(datum.lg) && abs(datum.lg) > " + theme::rounded(bound * 0.65, 3).dump();
  return {{{"mark",
            {{"type", "rect"},
             {"stroke", "#FFFFFF"},
             {"strokeWidth", 2},
             {"cornerRadius", 2},
             {"invalid", nullptr}}},
           {"encoding", {{"x", x}, {"y", y}, {"color", colour}}}},
          {{"transform", Json::array({{{"filter", "isValid(datum.s)"}}})},
           {"mark", {{"type", "text"}, {"fontSize", 11}}},
           {"encoding",
            {{"x", x},
             {"y", y},
             {"text", {{"field", "s"}, {"type", "quantitative"}, {"format", ".3~r"}}},
             {"color",
              {{"condition", {{"test", dark}, {"value", "#FFFFFF"}}}, {"value", theme::kInk}}}}}}};
}

}  // namespace

std::vector<Chart> kernel_time(const Material& material) {
  std::vector<Chart> out;
  for (const Scenario* scenario : main_scenarios(material.kernels)) {
    LineChart chart;
    chart.id = "kernel_time_" + scenario->pass;
    chart.unit = "s";
    chart.crossing = scenario->crossing();
    chart.title = finding(chart.crossing, "Whole DSA", "dense attention", lengths_of(*scenario)) +
                  " (" + pass_words(scenario->pass) + ")";
    chart.subtitle = scenario->axes + " · " + scenario->top_k +
                     " · median, band = interval, n = " + std::to_string(samples_of(*scenario));
    chart.y_title = "Time of one call (log scale)";
    add_lines(chart, *scenario, false, &Contender::time);
    add_lines(chart, *scenario, true, &Contender::time);
    chart.caption = Text(
        "Whole DSA = selecting the keys (indexer and top-k) plus sparse attention over "
        "them, on one backend. Thick: the fastest of each side, between which the "
        "crossover is drawn.");
    out.push_back(draw(chart));
  }
  return out;
}

std::vector<Chart> kernel_memory(const Material& material) {
  for (const Scenario* scenario : main_scenarios(material.kernels)) {
    LineChart chart;
    chart.id = "kernel_memory";
    chart.unit = "bytes";
    chart.title = memory_title(*scenario);
    chart.subtitle =
        scenario->axes + " · " + scenario->top_k + " · dotted: growth like L·K and like L²";
    chart.y_title = "Peak memory of one call (log scale)";
    add_lines(chart, *scenario, false, &Contender::memory);
    add_lines(chart, *scenario, true, &Contender::memory);
    chart.guides = {{1, "O(L·K)"}, {2, "O(L²)"}};
    chart.caption =
        "Resident memory of one call above its inputs, from an untimed pass; of whole DSA the "
        "larger of its two calls. A call that needed none is not drawn.";
    Chart drawn = draw(chart);
    if (!drawn.id.empty()) return {drawn};
  }
  return {};
}

std::vector<Chart> kernel_speed_up(const Material& material) {
  std::map<std::string, std::vector<const Scenario*>> sweeps;
  for (const Scenario& scenario : material.kernels.scenarios()) {
    sweeps[scenario.pass + " " + scenario.axes].push_back(&scenario);
  }
  const std::vector<const Scenario*>* widest = nullptr;
  for (const auto& [key, sweep] : sweeps) {
    if (sweep.size() >= 2 && (!widest || sweep.size() > widest->size())) widest = &sweep;
  }
  if (!widest) return {};
  double largest = 0.5;
  const Json values = speed_up_cells(*widest, largest);
  if (values.empty()) return {};
  const Scenario& first = *widest->front();
  const std::string title = "Speed-up of whole DSA over dense, by K and L";
  Json spec = theme::base(title, "Red = DSA faster, blue = dense faster, grey = not measured · " +
                                     pass_words(first.pass) + " · " + first.axes);
  spec["data"] = {{"values", values}};
  spec["width"] = {{"step", 62}};
  spec["height"] = {{"step", 34}};
  spec["layer"] = heat_map_layers(std::ceil(largest * 2) / 2);
  return {{"kernel_speed_up", title,
           "Time of the fastest dense row over the time of the fastest whole-DSA row of ours; the "
           "colour "
           "is log2 of it.",
           spec}};
}

}  // namespace dsa::report
