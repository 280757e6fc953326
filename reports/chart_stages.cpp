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
  double longest = 0;

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

Stages stages_of(const TrainingView& training) {
  Stages out;
  out.names = stage_order(training);
  for (double length : training.lengths()) {
    for (const Arm& arm : training.arms()) {
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
      if (total > 0) {
        remember(out.rows, "L = " + report::length(length));
        remember(out.arms, arm.name);
        out.longest = std::max(out.longest, total);
      }
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
    if (theme::is_dark(fills[i])) test += " || datum.stage == '" + stages[i] + "'";
  }
  return test;
}

/// What the layers of a row share.
struct RowFrame {
  const Stages& stages;
  const std::string& unit;
  Json x, y, order;
};

RowFrame row_frame(const Stages& stages, const std::string& unit) {
  const Json y = {
      {"field", "name"},
      {"type", "nominal"},
      {"title", nullptr},
      {"sort", stages.arms},
      {"axis", {{"domain", false}, {"ticks", false}, {"grid", false}, {"labelLimit", 160}}}};
  const Json x = {
      {"field", "time"},
      {"type", "quantitative"},
      {"stack", "zero"},
      {"title", "Time of one training step (" + unit + ")"},
      {"scale", {{"domain", {0, theme::rounded(stages.longest * 1.1, 4)}}, {"nice", false}}},
      {"axis", {{"tickCount", 6}}}};
  return {stages, unit, x, y, {{"field", "order"}, {"type", "quantitative"}}};
}

Json bar_layer(const RowFrame& row) {
  const std::vector<std::string>& names = row.stages.names;
  const Json colour = {
      {"field", "stage"},
      {"type", "nominal"},
      {"title", nullptr},
      {"sort", names},
      {"scale", {{"domain", names}, {"range", colours(names)}}},
      {"legend", {{"symbolType", "square"}, {"symbolStrokeWidth", 0}, {"columns", 8}}}};
  return {
      {"mark",
       {{"type", "bar"}, {"stroke", "#FFFFFF"}, {"strokeWidth", 1}, {"height", {{"band", 0.82}}}}},
      {"encoding",
       {{"y", row.y},
        {"x", row.x},
        {"color", colour},
        {"order", row.order},
        {"tooltip",
         {{{"field", "name"}}, {{"field", "stage"}}, {{"field", "time"}, {"title", row.unit}}}}}}};
}

/// The number inside a segment that is wide enough for it.
Json share_layer(const RowFrame& row) {
  const std::string wide = "datum.time >= " + theme::rounded(row.stages.longest * 0.055, 3).dump();
  Json middle = row.x;
  middle["bandPosition"] = 0.5;
  return {{"mark", {{"type", "text"}, {"fontSize", 10}}},
          {"encoding",
           {{"y", row.y},
            {"x", middle},
            {"order", row.order},
            {"detail", {{"field", "stage"}}},
            {"text",
             {{"condition",
               {{"test", wide}, {"field", "time"}, {"type", "quantitative"}, {"format", ".3~r"}}},
              {"value", ""}}},
            {"color",
             {{"condition", {{"test", dark_test(row.stages.names)}, {"value", "#FFFFFF"}}},
              {"value", theme::kInk}}}}}};
}

Json total_layer(const RowFrame& row) {
  Json end = row.x;
  end.erase("stack");
  end["field"] = "total";
  return {{"transform",
           Json::array(
               {{{"aggregate", Json::array({{{"op", "sum"}, {"field", "time"}, {"as", "total"}}})},
                 {"groupby", {"L", "name"}}}})},
          {"mark",
           {{"type", "text"},
            {"align", "left"},
            {"dx", 6},
            {"fontWeight", 600},
            {"color", theme::kInk}}},
          {"encoding",
           {{"y", row.y},
            {"x", end},
            {"text", {{"field", "total"}, {"type", "quantitative"}, {"format", ".3~r"}}}}}};
}

Json bars_of(const Stages& stages, const std::string& unit) {
  const RowFrame row = row_frame(stages, unit);
  return {{"width", 560},
          {"height", {{"step", 24}}},
          {"layer", {bar_layer(row), share_layer(row), total_layer(row)}}};
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

std::string stages_title(const TrainingView& training) {
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
  Stages stages = stages_of(training);
  if (stages.rows.empty()) return {};
  const bool milliseconds = stages.longest < 1;
  const double factor = milliseconds ? 1e3 : 1;
  stages.longest *= factor;
  for (Json& value : stages.values) {
    value["time"] = theme::rounded(value["seconds"].get<double>() * factor, 4);
    value.erase("seconds");
  }
  const std::string unit = milliseconds ? "ms" : "s";
  const std::string title = stages_title(training);
  Json spec = theme::base(title, "One traced step · bold = whole step in " + unit +
                                     " · a segment carries its number where it is wide enough");
  spec["data"] = {{"values", stages.values}};
  spec["facet"] = {
      {"row",
       {{"field", "L"},
        {"type", "ordinal"},
        {"title", nullptr},
        {"sort", stages.rows},
        {"header", {{"labelAngle", 0}, {"labelAlign", "left"}, {"labelAnchor", "middle"}}}}}};
  spec["spacing"] = 14;
  spec["spec"] = bars_of(stages, unit);
  return {
      {"stage_split", title,
       "Stages of one training step, forward and backward together. Attention, indexer and top-k "
       "are in colour: they are what the variants differ in.",
       spec}};
}

}  // namespace dsa::report
