// One benchmark over commits: ratio to the anchor, its levels, where they change, and what was set
// aside. Segments stand side by side and nothing crosses from one into the next.
#include "reports/gate_report.h"
#include "reports/history.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace dsa::report {
namespace {

constexpr int kHistoryWidth = 620, kHistoryHeight = 230;

struct HistoryPlot {
  Json points = Json::array(), levels = Json::array(), changes = Json::array(),
       borders = Json::array();
  std::vector<std::string> commits;  ///< by place on the x axis
  theme::Span y = {1, 1};
};

void add_levels(HistoryPlot& plot, const HistorySeries& series, const std::vector<size_t>& x) {
  std::vector<size_t> starts = {0};
  for (const Change& change : series.found.changes) starts.push_back(change.after);
  for (size_t i = 0; i < starts.size(); ++i) {
    const size_t end = i + 1 < starts.size() ? starts[i + 1] : series.points.size();
    std::vector<double> values;
    size_t last = starts[i];
    for (size_t j = starts[i]; j < end; ++j) {
      if (series.found.set_aside[j]) continue;
      values.push_back(series.points[j]->log_ratio);
      last = j;
    }
    const Summary level = summarise(values);
    if (level.n < 2) continue;
    plot.levels.push_back({{"from", static_cast<double>(x[starts[i]]) - 0.3},
                           {"to", static_cast<double>(x[last]) + 0.3},
                           {"level", theme::rounded(std::exp(level.median))}});
  }
}

void add_points(HistoryPlot& plot, const HistorySeries& series, const std::vector<size_t>& x) {
  for (size_t i = 0; i < series.points.size(); ++i) {
    const HistoryEntry& one = *series.points[i];
    if (!std::isfinite(one.log_ratio)) continue;
    const bool aside = series.found.set_aside[i];
    const double ratio = std::exp(one.log_ratio), low = std::exp(one.low),
                 high = std::exp(one.high);
    const bool bounded = std::isfinite(low) && std::isfinite(high) && low > 0;
    plot.y.low = std::min({plot.y.low, ratio, bounded && !aside ? low : ratio});
    plot.y.high = std::max({plot.y.high, ratio, bounded && !aside ? high : ratio});
    plot.points.push_back({{"x", x[i]},
                           {"ratio", theme::rounded(ratio)},
                           {"low", bounded ? theme::rounded(low) : Json()},
                           {"high", bounded ? theme::rounded(high) : Json()},
                           {"aside", aside},
                           {"commit", short_commit(one.commit)},
                           {"date", one.date},
                           {"verdict", one.verdict},
                           {"rounds", one.rounds}});
  }
  for (const Change& change : series.found.changes) {
    plot.changes.push_back({{"x", static_cast<double>(x[change.before] + x[change.after]) / 2},
                            {"label", change_percent(change.shift)},
                            {"name", change.shift > 0 ? "slower" : "faster"}});
  }
}

HistoryPlot plot_of(const History& history, const HistoryBenchmark& benchmark) {
  HistoryPlot plot;
  for (const HistorySeries& series : benchmark.series) {
    const HistorySegment& segment = history.segments[series.segment];
    const size_t start = plot.commits.size();
    std::map<std::string, size_t> place;
    for (const auto& [date, commit] : segment.commits) {
      place[commit] = plot.commits.size();
      plot.commits.push_back(short_commit(commit));
    }
    std::vector<size_t> x;
    x.reserve(series.points.size());
    for (const HistoryEntry* point : series.points) x.push_back(place.at(point->commit));
    add_points(plot, series, x);
    add_levels(plot, series, x);
    if (benchmark.series.size() < 2) continue;
    const std::string anchor = segment.anchor_git.empty() ? segment.anchor : segment.anchor_git;
    plot.borders.push_back(
        {{"x", static_cast<double>(start) - 0.5}, {"label", "anchor " + short_commit(anchor)}});
  }
  const double pad = std::max(1.01, std::pow(plot.y.high / plot.y.low, 0.08));
  plot.y = {plot.y.low / pad, plot.y.high * pad * pad};  // labels stand at the top
  return plot;
}

/// A tick for at most eight commits, named by a look-up in the expression: x is a place, not a name.
Json commit_axis(const std::vector<std::string>& commits) {
  const size_t n = commits.size(), step = std::max<size_t>(1, (n + 7) / 8);
  Json places = Json::array(), names = Json::array();
  for (size_t i = 0; i < n; i += step) {
    places.push_back(i);
    names.push_back(commits[i].substr(0, 8));
  }
  return {{"type", "quantitative"},
          {"title", "Commit, in order of time"},
          {"scale",
           {{"domain", {-0.5, static_cast<double>(n) - 0.5}}, {"nice", false}, {"zero", false}}},
          {"axis",
           {{"values", places},
            {"labelExpr", names.dump() + "[indexof(" + places.dump() + ",datum.value)]"},
            {"labelOverlap", false},
            {"grid", false}}}};
}

struct HistoryAxes {
  Json x, y;
  Json x_of(const char* field) const { return named(x, field); }
  Json y_of(const char* field) const { return named(y, field); }

 private:
  static Json named(Json axis, const char* field) {
    axis["field"] = field;
    return axis;
  }
};

Json rule_with_label(const Json& values, const Json& colour, const HistoryAxes& axes,
                     const Json& rule, int row) {
  Json rule_encoding = {{"x", axes.x_of("x")}}, text_encoding = rule_encoding;
  text_encoding["y"] = {{"value", row}};
  text_encoding["text"] = {{"field", "label"}};
  Json text = {{"type", "text"}, {"align", "left"}, {"baseline", "top"}, {"dx", 4}};
  if (colour.is_object()) {
    rule_encoding["color"] = text_encoding["color"] = colour;
    text["fontWeight"] = 600;
  } else {
    text["color"] = colour;
  }
  Json halo = text;
  halo.update({{"stroke", "#FFFFFF"}, {"strokeWidth", 4}, {"color", "#FFFFFF"}});
  Json halo_encoding = text_encoding;
  halo_encoding.erase("color");
  return {{"data", {{"values", values}}},
          {"layer",
           {{{"mark", rule}, {"encoding", rule_encoding}},
            {{"mark", halo}, {"encoding", halo_encoding}},
            {{"mark", text}, {"encoding", text_encoding}}}}};
}

Json history_layers(const HistoryPlot& plot) {
  HistoryAxes axes{commit_axis(plot.commits),
                   theme::log_value_axis("Time / time of the anchor (log scale)", "1", plot.y)};
  axes.y["axis"]["labelExpr"] = "format(datum.value,'.4~r')+'×'";
  const std::string blue = theme::look(0).colour;
  const Json tooltip = {{{"field", "commit"}},
                        {{"field", "date"}},
                        {{"field", "ratio"}, {"title", "to the anchor"}, {"format", ".4~g"}},
                        {{"field", "low"}, {"format", ".4~g"}},
                        {{"field", "high"}, {"format", ".4~g"}},
                        {{"field", "rounds"}},
                        {{"field", "verdict"}}};
  const Json layers = {
      {{"mark",
        {{"type", "rule"}, {"color", theme::tint(blue)}, {"strokeWidth", 1.5}, {"clip", true}}},
       {"transform", Json::array({{{"filter", "isValid(datum.low)"}}})},
       {"encoding", {{"x", axes.x_of("x")}, {"y", axes.y_of("low")}, {"y2", {{"field", "high"}}}}}},
      {{"mark", {{"type", "rule"}, {"color", theme::kInk}, {"strokeWidth", 2}}},
       {"data", {{"values", plot.levels}}},
       {"encoding",
        {{"x", axes.x_of("from")}, {"x2", {{"field", "to"}}}, {"y", axes.y_of("level")}}}},
      {{"mark", {{"type", "point"}, {"color", blue}, {"size", 32}, {"opacity", 1}}},
       {"encoding",
        {{"x", axes.x_of("x")},
         {"y", axes.y_of("ratio")},
         {"fill",
          {{"condition", {{"test", "datum.aside"}, {"value", "#FFFFFF"}}}, {"value", blue}}},
         {"tooltip", tooltip}}}}};
  Json all = Json::array();
  if (!plot.changes.empty()) {
    Json colour =
        theme::categories({"slower", "faster"}, {theme::look(1).colour, theme::look(8).colour});
    colour["legend"] = nullptr;
    all.push_back(rule_with_label(plot.changes, colour, axes,
                                  {{"type", "rule"}, {"strokeDash", {5, 4}}, {"strokeWidth", 1.5}},
                                  2));
  }
  if (!plot.borders.empty()) {
    all.push_back(rule_with_label(plot.borders, theme::kGuide, axes,
                                  {{"type", "rule"}, {"color", theme::kGuide}, {"strokeWidth", 1}},
                                  kHistoryHeight - 14));
  }
  all.push_back({{"data", {{"values", plot.points}}}, {"layer", layers}});
  return all;
}

std::string history_finding(const HistoryBenchmark& benchmark) {
  std::string out;
  for (const HistorySeries& series : benchmark.series) {
    for (const Change& change : series.found.changes) {
      out += (out.empty() ? "" : "; ") + change_sentence(series, change);
    }
  }
  if (benchmark.changes() > 2) return std::to_string(benchmark.changes()) + " changes of level";
  if (!out.empty()) return out;
  const size_t n = benchmark.measured();
  return "no change of level in " + std::to_string(n) + (n == 1 ? " commit" : " commits");
}

}  // namespace

Chart history_chart(const History& history, const HistoryBenchmark& benchmark, size_t number) {
  if (benchmark.measured() == 0) return {};
  const HistoryPlot plot = plot_of(history, benchmark);
  std::string finding = history_finding(benchmark);
  const std::string title = benchmark.name + ": " + finding;
  finding[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(finding[0])));
  Json spec = theme::base(finding, benchmark.name, kHistoryWidth);
  spec["width"] = kHistoryWidth;
  spec["height"] = kHistoryHeight;
  spec["layer"] = history_layers(plot);
  return {"history_" + std::to_string(number), title,
          "Point = median ratio of one gate, line = its interval, black = level. Hollow: set aside "
          "as a "
          "spike, timed too rarely, or because the gate's certificate did not hold.",
          spec};
}

}  // namespace dsa::report
