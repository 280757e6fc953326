// Where a training step goes: stacked bars of its stages, a row a length.
#include "reports/charts.h"
#include "reports/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace dsa::report {
namespace {

namespace words = vocabulary;

struct Stages {
  std::vector<std::string> names;  ///< in the order of the record
  Json values = Json::array();
  std::vector<std::string> rows, arms;
  std::map<std::string, double> longest;  ///< step of each row, in seconds

  double longest_of_all() const {
    double out = 0;
    for (const auto& [row, seconds] : longest) out = std::max(out, seconds);
    return out;
  }
  /// Bars of a row would vanish on the axis of the longest.
  bool own_axes() const {
    for (const auto& [row, seconds] : longest) {
      if (seconds * 8 < longest_of_all()) return true;
    }
    return false;
  }

  size_t index(const std::string& stage) {
    const auto at = std::find(names.begin(), names.end(), stage);
    if (at != names.end()) return static_cast<size_t>(at - names.begin());
    names.push_back(stage);
    return names.size() - 1;
  }
};

void remember(std::vector<std::string>& list, const std::string& name) {
  if (std::find(list.begin(), list.end(), name) == list.end()) list.push_back(name);
}

/// What the variants differ in comes first, side by side.
bool under_discussion(const std::string& stage) {
  return theme::stage_colour(stage, 0) != theme::stage_colour("", 0);
}

std::vector<std::string> stage_order(const TrainingView& training) {
  std::vector<std::string> first, rest;
  for (double length : training.lengths()) {
    for (const Arm& arm : training.arms()) {
      for (const record::Metric* metric : training.stages(arm, length)) {
        const std::string stage = label(metric->labels, words::kStage);
        remember(under_discussion(stage) ? first : rest, stage);
      }
    }
  }
  std::sort(first.begin(), first.end());  // attention, indexer, topk
  first.insert(first.end(), rest.begin(), rest.end());
  return first;
}

/// The stages of one run, added to `out`; their sum.
double collect_run(const TrainingView& training, const Arm& arm, double length, Stages& out) {
  double total = 0;
  for (const record::Metric* metric : training.stages(arm, length)) {
    const Summary time = summarise(metric->samples);
    if (time.empty() || time.median < 0) continue;
    const std::string stage = label(metric->labels, words::kStage);
    out.values.push_back({{"L", "L = " + report::length(length)},
                          {"name", arm.name},
                          {"stage", stage},
                          {"order", out.index(stage)},
                          {"seconds", time.median}});
    total += time.median;
  }
  return total;
}

Stages collect(const TrainingView& training) {
  Stages out;
  out.names = stage_order(training);
  for (double length : three_lengths(training.lengths())) {
    const std::string row = "L = " + report::length(length);
    for (const Arm& arm : training.arms()) {
      const double total = collect_run(training, arm, length, out);
      if (!(total > 0)) continue;
      remember(out.rows, row);
      remember(out.arms, arm.name);
      out.longest[row] = std::max(out.longest[row], total);
    }
  }
  return out;
}

std::vector<std::string> colours(const std::vector<std::string>& stages) {
  std::vector<std::string> out;
  int grey = 0;
  for (const std::string& stage : stages) {
    out.push_back(theme::stage_colour(stage, grey));
    if (!under_discussion(stage)) ++grey;
  }
  return out;
}

Json dark_test(const std::vector<std::string>& stages) {
  std::string test = "false";
  const std::vector<std::string> fills = colours(stages);
  for (size_t i = 0; i < stages.size(); ++i) {
    if (theme::is_dark(fills[i])) test += " || datum.stage == " + Json(stages[i]).dump();
  }
  return test;
}

/// What the layers of a row share.
struct Row {
  Json x, y, order;
  Json encoding() const { return {{"x", x}, {"y", y}, {"order", order}}; }
};

Json bar_layer(const Row& row, const Stages& stages, const std::string& unit) {
  Json encoding = row.encoding();
  encoding["color"] = {
      {"field", "stage"},
      {"type", "nominal"},
      {"title", nullptr},
      {"sort", stages.names},
      {"scale", {{"domain", stages.names}, {"range", colours(stages.names)}}},
      {"legend", {{"symbolType", "square"}, {"symbolStrokeWidth", 0}, {"columns", 8}}}};
  encoding["tooltip"] = {
      {{"field", "name"}}, {{"field", "stage"}}, {{"field", "time"}, {"title", unit}}};
  return {
      {"mark",
       {{"type", "bar"}, {"stroke", "#FFFFFF"}, {"strokeWidth", 1}, {"height", {{"band", 0.82}}}}},
      {"encoding", encoding}};
}

/// Numbers inside the segments that have room for them.
Json segment_layer(const Row& row, const Stages& stages) {
  Json encoding = row.encoding();
  encoding["x"]["bandPosition"] = 0.5;
  encoding["detail"] = {{"field", "stage"}};
  encoding["text"] = {
      {"condition",
       {{"test", "datum.wide"}, {"field", "time"}, {"type", "quantitative"}, {"format", ".3~r"}}},
      {"value", ""}};
  encoding["color"] = {{"condition", {{"test", dark_test(stages.names)}, {"value", "#FFFFFF"}}},
                       {"value", theme::kInk}};
  return {{"mark", {{"type", "text"}, {"fontSize", 10}}}, {"encoding", encoding}};
}

/// The whole step in bold at the bar's end, and an unseen point that keeps room for it.
Json total_layers(const Row& row) {
  Json end = row.x;
  end.erase("stack");
  end["field"] = "total";
  Json room = end;
  room["field"] = "room";
  const Json sum = {{"op", "sum"}, {"field", "time"}, {"as", "total"}};
  const Json text = {{"field", "total"}, {"type", "quantitative"}, {"format", ".3~r"}};
  return {
      {"transform",
       {{{"aggregate", Json::array({sum})}, {"groupby", {"L", "name"}}},
        {{"calculate", "datum.total * 1.1"}, {"as", "room"}}}},
      {"layer",
       {{{"mark", {{"type", "point"}, {"opacity", 0}}}, {"encoding", {{"y", row.y}, {"x", room}}}},
        {{"mark",
          {{"type", "text"},
           {"align", "left"},
           {"dx", 6},
           {"fontWeight", 600},
           {"color", theme::kInk}}},
         {"encoding", {{"y", row.y}, {"x", end}, {"text", text}}}}}}};
}

Json row_spec(const Stages& stages, const std::string& unit) {
  Row row;
  row.y = {{"field", "name"},
           {"type", "nominal"},
           {"title", nullptr},
           {"sort", stages.arms},
           {"axis", {{"domain", false}, {"ticks", false}, {"grid", false}, {"labelLimit", 160}}}};
  row.x = {{"field", "time"},
           {"type", "quantitative"},
           {"stack", "zero"},
           {"title", "Time of one training step (" + unit + ")"},
           {"scale", {{"zero", true}, {"nice", false}}},
           {"axis", {{"tickCount", 6}}}};
  // With an axis a row, each would repeat the title.
  if (stages.own_axes()) row.x["title"] = nullptr;
  row.order = {{"field", "order"}, {"type", "quantitative"}};
  return {{"width", 560},
          {"height", {{"step", 24}}},
          {"layer", {bar_layer(row, stages, unit), segment_layer(row, stages), total_layers(row)}}};
}

/// Share of a step in the stages under discussion, in percent; NaN without stages.
double discussed_share(const TrainingView& training, const Arm& arm, double length) {
  double discussed = 0, total = 0;
  for (const record::Metric* metric : training.stages(arm, length)) {
    const double time = summarise(metric->samples).median;
    if (!std::isfinite(time)) continue;
    total += time;
    if (under_discussion(label(metric->labels, words::kStage))) discussed += time;
  }
  return 100 * discussed / total;
}

std::string title_of(const TrainingView& training) {
  const Arm *baseline = training.first(words::kBaseline),
            *candidate = training.first(words::kCandidate);
  if (!candidate) return "Where a training step goes";
  const double longest = training.lengths().back();
  const double share = discussed_share(training, *candidate, longest);
  if (!(share > 0)) return "Where a training step goes";
  std::string title = "Attention and selection: " + significant(share, 2) + " % of a " +
                      candidate->name + " step at L = " + length(longest);
  const double dense = baseline ? discussed_share(training, *baseline, longest) : 0;
  return dense > 0 ? title + " (" + baseline->name + ": " + significant(dense, 2) + " %)" : title;
}

}  // namespace

std::vector<Chart> stage_split(const Material& material) {
  const TrainingView& training = material.training;
  Stages stages = collect(training);
  if (stages.rows.empty()) return {};
  const bool own_axes = stages.own_axes();
  const double factor = stages.longest_of_all() < 1 ? 1e3 : 1;
  const std::string unit = factor == 1 ? "s" : "ms";
  for (Json& value : stages.values) {
    const double seconds = value["seconds"].get<double>();
    const std::string row = value["L"].get<std::string>();
    const double axis = own_axes ? stages.longest[row] : stages.longest_of_all();
    value["time"] = theme::rounded(seconds * factor, 4);
    value["wide"] = seconds >= 0.06 * axis;
    value.erase("seconds");
  }
  const std::string title = title_of(training);
  Json spec = theme::base(
      title, "One traced step · bold = whole step in " + unit +
                 (own_axes ? " · every length on its own axis"
                           : " · a segment carries its number where it is wide enough"));
  spec["data"] = {{"values", stages.values}};
  spec["facet"] = {
      {"row",
       {{"field", "L"},
        {"type", "ordinal"},
        {"title", nullptr},
        {"sort", stages.rows},
        {"header", {{"labelAngle", 0}, {"labelAlign", "left"}, {"labelAnchor", "middle"}}}}}};
  spec["spacing"] = 14;
  spec["spec"] = row_spec(stages, unit);
  if (own_axes) spec["resolve"] = {{"scale", {{"x", "independent"}}}};
  return {
      {"stage_split", title,
       "Stages of one training step, forward and backward together. Attention, indexer and top-k "
       "are in colour: they are what the variants differ in.",
       spec}};
}

}  // namespace dsa::report
