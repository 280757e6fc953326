// Tasks beside text, in panels: accuracy over steps, one panel a length and K, and whole answers over
// the depth of what was hidden and the length, one panel a variant.
#include "reports/charts.h"
#include "reports/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace dsa::report {
namespace {

namespace words = vocabulary;

constexpr size_t kMostPanels = 9;

struct LearningPanels {
  Json values = Json::array();
  std::vector<std::string> titles, names, colours;
  Json dashes = Json::array();
  int seeds = 0;

  void name(const Arm& arm) {
    if (std::find(names.begin(), names.end(), arm.variant.name) != names.end()) return;
    const theme::Look look = theme::look(arm.variant.colour_slot);
    names.push_back(arm.variant.name), colours.push_back(look.colour), dashes.push_back(look.dash);
  }
};

/// step -> samples of its seeds.
std::map<double, std::vector<double>> curve_of(const TaskView& task, const Arm& arm,
                                               double length) {
  std::map<double, std::vector<double>> out;
  for (const record::Series* series : task.training.curves(words::kAccuracy, arm, length)) {
    for (size_t i = 0; i < series->xs.size(); ++i) out[series->xs[i]].push_back(series->ys[i]);
  }
  return out;
}

void add_curve(LearningPanels& out, const TaskView& task, const Arm& arm, double length,
               const std::string& panel) {
  for (const auto& [step, samples] : curve_of(task, arm, length)) {
    const Summary value = summarise(samples);
    if (value.empty()) continue;
    out.name(arm);
    out.seeds = std::max(out.seeds, value.n);
    out.values.push_back({{"panel", panel},
                          {"name", arm.variant.name},
                          {"x", theme::rounded(step, 7)},
                          {"y", theme::rounded(value.median, 4)}});
  }
}

/// A panel for each K of each length; what reads all keys is in all of them.
LearningPanels learning_panels(const TaskView& task) {
  LearningPanels out;
  const auto& lengths = task.training.lengths();
  for (const double length : lengths) {
    for (const double top_k : task.top_ks(length)) {
      const std::string panel = (lengths.size() > 1 ? "L = " + report::length(length) + ", " : "") +
                                "K = " + count(top_k);
      if (out.titles.size() == kMostPanels) return out;
      out.titles.push_back(panel);
      for (const Arm& arm : task.training.arms()) {
        const std::string own = task.training.top_k(arm, length);
        if (own.empty() || own == count(top_k)) add_curve(out, task, arm, length, panel);
      }
    }
  }
  return out;
}

Json learning_spec(const LearningPanels& panels) {
  const Json x_axis = {{"tickCount", 4}, {"grid", false}, {"format", "~s"}};
  const Json dash = {{"field", "name"},
                     {"type", "nominal"},
                     {"title", nullptr},
                     {"scale", {{"domain", panels.names}, {"range", panels.dashes}}}};
  return {{"width", 190},
          {"height", 120},
          {"mark", {{"type", "line"}, {"strokeWidth", 2}, {"point", false}}},
          {"encoding",
           {{"x", {{"field", "x"}, {"type", "quantitative"}, {"title", "Step"}, {"axis", x_axis}}},
            {"y",
             {{"field", "y"},
              {"type", "quantitative"},
              {"title", nullptr},
              {"scale", {{"domain", {0, 1}}}},
              {"axis", {{"values", {0, 0.5, 1}}, {"format", ".0%"}}}}},
            {"color", theme::categories(panels.names, panels.colours)},
            {"strokeDash", dash},
            {"tooltip",
             {{{"field", "name"}}, {{"field", "x"}}, {{"field", "y"}, {"format", ".1%"}}}}}}};
}

/// Of a K sweep, the middle one: a panel for every variant and K would be a wall.
std::string drawn_top_k(const TaskView& task) {
  std::set<double> all;
  for (const Arm& arm : task.training.arms()) {
    if (!arm.top_k.empty()) all.insert(std::stod(arm.top_k));
  }
  return all.empty() ? "" : count(*std::next(all.begin(), static_cast<long>(all.size() / 2)));
}

struct DepthCells {
  Json values = Json::array();
  std::vector<std::string> names, depths;
  std::set<double> lengths;
};

DepthCells depth_cells(const Material& material, const TaskView& task, const std::string& top_k) {
  DepthCells out;
  for (const Arm& arm : task.training.arms()) {
    if (!arm.top_k.empty() && arm.top_k != top_k) continue;
    for (const record::Metric& metric : material.run.metrics) {
      if (metric.quantity.name != words::kExactMatch) continue;
      const double length = number(metric.labels, words::kLength);
      if (!TrainingView::is_of(metric.labels, arm, length)) continue;
      const Summary value = summarise(metric.samples);
      const std::string depth = label(metric.labels, words::kDepth);
      if (value.empty() || depth.empty()) continue;
      if (std::find(out.depths.begin(), out.depths.end(), depth) == out.depths.end())
        out.depths.push_back(depth);
      if (out.names.empty() || out.names.back() != arm.name) out.names.push_back(arm.name);
      out.lengths.insert(length);
      out.values.push_back({{"name", arm.name},
                            {"depth", depth},
                            {"L", report::length(length)},
                            {"exact", theme::rounded(value.median, 3)}});
    }
  }
  return out;
}

Json depth_spec(const DepthCells& cells) {
  std::vector<std::string> lengths;
  for (auto at = cells.lengths.rbegin(); at != cells.lengths.rend(); ++at)
    lengths.push_back(report::length(*at));
  const Json x = {{"field", "depth"},
                  {"type", "ordinal"},
                  {"sort", cells.depths},
                  {"title", "Depth"},
                  {"axis", {{"labelAngle", 0}, {"domain", false}, {"ticks", false}}}};
  const Json y = {{"field", "L"},
                  {"type", "ordinal"},
                  {"sort", lengths},
                  {"title", "Length L"},
                  {"axis", {{"domain", false}, {"ticks", false}}}};
  const Json colour = {{"field", "exact"},
                       {"type", "quantitative"},
                       {"title", "whole answers"},
                       {"scale", {{"domain", {0, 1}}, {"range", {"#F3F4F6", "#1D4E89"}}}},
                       {"legend", {{"format", ".0%"}, {"gradientLength", 140}, {"tickCount", 3}}}};
  const Json text = {{"text", {{"field", "percent"}, {"type", "quantitative"}, {"format", ".0f"}}},
                     {"color",
                      {{"condition", {{"test", "datum.exact > 0.55"}, {"value", "#FFFFFF"}}},
                       {"value", theme::kInk}}}};
  Json text_encoding = {{"x", x}, {"y", y}};
  text_encoding.update(text);
  return {{"width", {{"step", 21}}},
          {"height", {{"step", 26}}},
          {"transform", Json::array({{{"calculate", "100 * datum.exact"}, {"as", "percent"}}})},
          {"layer",
           {{{"mark", {{"type", "rect"}, {"stroke", "#FFFFFF"}, {"strokeWidth", 1}}},
             {"encoding", {{"x", x}, {"y", y}, {"color", colour}}}},
            {{"mark", {{"type", "text"}, {"fontSize", 9}}}, {"encoding", text_encoding}}}}};
}

}  // namespace

std::vector<Chart> task_learning(const Material& material) {
  std::vector<Chart> out;
  for (const TaskView& task : material.tasks) {
    const LearningPanels panels = learning_panels(task);
    if (panels.values.empty()) continue;
    const std::string title = "When each variant learns " + task.name;
    Json spec = theme::base(
        title,
        "Accuracy over all test examples, a panel for each K" +
            (panels.seeds > 1 ? " · median of " + std::to_string(panels.seeds) + " seeds"
                              : std::string(" · one seed")),
        760);
    spec["data"] = {{"values", panels.values}};
    spec["facet"] = theme::panels("panel", panels.titles);
    spec["columns"] = 3;
    spec["spec"] = learning_spec(panels);
    out.push_back({"learning_" + task.name, title,
                   "A curve that still rises at its end has not shown what it can learn.", spec});
  }
  return out;
}

std::vector<Chart> task_depths(const Material& material) {
  std::vector<Chart> out;
  for (const TaskView& task : material.tasks) {
    const std::string top_k = drawn_top_k(task);
    const DepthCells cells = depth_cells(material, task, top_k);
    if (cells.values.empty()) continue;
    const std::string title =
        "Whole answers by depth and length" + (top_k.empty() ? "" : " at K = " + top_k);
    Json spec = theme::base(
        title,
        "Percent of trials with every character right · depth 0 = start of the window, 1 = just "
        "before the question",
        760);
    spec["data"] = {{"values", cells.values}};
    spec["facet"] = theme::panels("name", cells.names);
    spec["columns"] = 3;
    spec["spec"] = depth_spec(cells);
    out.push_back({"depths_" + task.name, title,
                   "Last evaluation; each character is asked for with the right ones before it.",
                   spec});
  }
  return out;
}

}  // namespace dsa::report
