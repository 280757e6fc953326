// Tasks beside text: accuracy over K, accuracy over steps, and whole answers over depth and length.
#include "reports/charts.h"
#include "reports/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace dsa::report {
namespace {

namespace words = vocabulary;

constexpr int kAccuracyWidth = 560, kAccuracyHeight = 320;
constexpr double kAccuracyTop = 1.04;  ///< of the accuracy axis: points at 1 are drawn whole

/// A line of the chart: a variant over K, or a rule for one that has no K.
struct AccuracyLine {
  std::string name;
  theme::Look look;
  std::vector<std::pair<double, Summary>> points;
  bool rule = false;
};

std::vector<AccuracyLine> accuracy_lines(const TaskView& task, double length,
                                         const std::vector<double>& top_ks) {
  std::vector<AccuracyLine> out;
  for (const TaskLine& line : task.lines(words::kFinalAccuracy, length)) {
    AccuracyLine series{line.variant.name, theme::look(line.variant.colour_slot), line.by_top_k,
                        false};
    if (line.all_keys) {
      series.points = {{top_ks.front(), *line.all_keys}, {top_ks.back(), *line.all_keys}};
      series.rule = true;
    }
    if (!series.points.empty()) out.push_back(std::move(series));
  }
  return out;
}

Json top_k_axis(const std::vector<double>& top_ks) {
  return {
      {"field", "K"},
      {"type", "quantitative"},
      {"title", "Keys read per query K (log scale)"},
      {"scale",
       {{"type", "log"},
        {"base", 2},
        {"domain", {top_ks.front(), top_ks.back()}},
        {"nice", false},
        {"padding", 8}}},
      {"axis", {{"values", top_ks}, {"labelExpr", "format(datum.value,'~r')"}, {"grid", false}}}};
}

Json accuracy_axis(const char* field) {
  return {{"field", field},
          {"type", "quantitative"},
          {"title", "Accuracy of answers"},
          {"scale", {{"domain", {0, kAccuracyTop}}, {"nice", false}}},
          {"axis", {{"values", {0, 0.25, 0.5, 0.75, 1}}, {"format", ".0%"}}}};
}

Json by_name(const std::vector<AccuracyLine>& all, Json (*pick)(const AccuracyLine&)) {
  Json names = Json::array(), range = Json::array();
  for (const AccuracyLine& one : all) names.push_back(one.name), range.push_back(pick(one));
  return {{"field", "name"},
          {"type", "nominal"},
          {"legend", nullptr},
          {"scale", {{"domain", names}, {"range", range}}}};
}

/// Lines and guesses that end close together are pushed apart until each has its own line of text.
Json end_labels(const std::vector<AccuracyLine>& all, const TaskView& task, double last_top_k) {
  constexpr double kGap = 15 * kAccuracyTop / kAccuracyHeight;
  struct Label {
    std::string name;
    double y;
    bool guess;
  };
  std::vector<Label> labels;
  for (const AccuracyLine& one : all)
    labels.push_back({one.name, one.points.back().second.median, false});
  for (const auto& [in_words, accuracy] : task.guesses)
    labels.push_back({"guess: " + in_words, accuracy, true});
  std::sort(labels.begin(), labels.end(), [](const Label& a, const Label& b) {
    return a.y != b.y ? a.y > b.y : a.name < b.name;
  });
  for (size_t i = 1; i < labels.size(); ++i)
    labels[i].y = std::min(labels[i].y, labels[i - 1].y - kGap);
  double floor = 0.01;
  for (size_t i = labels.size(); i-- > 0; floor = labels[i].y + kGap)
    labels[i].y = std::max(labels[i].y, floor);
  Json values = Json::array();
  for (const Label& one : labels) {
    values.push_back({{"name", one.name},
                      {"K", theme::rounded(last_top_k, 9)},
                      {"y", theme::rounded(one.y)},
                      {"guess", one.guess}});
  }
  return values;
}

Json label_layers(const Json& labels, const Json& x, const Json& colour) {
  const Json encoding = {{"x", x}, {"y", accuracy_axis("y")}, {"text", {{"field", "name"}}}};
  Json coloured = encoding;
  coloured["color"] = colour;
  Json mark = {{"type", "text"}, {"align", "left"}, {"baseline", "middle"}, {"dx", 10}};
  Json guess = mark;
  guess["color"] = theme::kGuide;
  mark.update({{"fontSize", 12}, {"fontWeight", 600}});
  return {{"data", {{"values", labels}}},
          {"layer",
           {{{"transform", Json::array({{{"filter", "!datum.guess"}}})},
             {"mark", mark},
             {"encoding", coloured}},
            {{"transform", Json::array({{{"filter", "datum.guess"}}})},
             {"mark", guess},
             {"encoding", encoding}}}}};
}

Json guess_rules(const TaskView& task) {
  Json values = Json::array();
  for (const auto& [in_words, accuracy] : task.guesses)
    values.push_back({{"y", theme::rounded(accuracy)}});
  return {
      {"data", {{"values", values}}},
      {"mark",
       {{"type", "rule"}, {"strokeDash", {2, 3}}, {"color", theme::kGuide}, {"strokeWidth", 1}}},
      {"encoding", {{"y", accuracy_axis("y")}}}};
}

Json line_layers(const std::vector<AccuracyLine>& all, const Json& x, const Json& colour) {
  Json values = Json::array();
  for (const AccuracyLine& one : all) {
    for (const auto& [top_k, v] : one.points) {
      values.push_back({{"name", one.name},
                        {"K", theme::rounded(top_k, 9)},
                        {"median", theme::rounded(v.median)},
                        {"low", theme::rounded(v.low)},
                        {"high", theme::rounded(v.high)},
                        {"n", v.n},
                        {"rule", one.rule}});
    }
  }
  const auto encoding = [&](const char* field) {
    return Json{{"x", x}, {"y", accuracy_axis(field)}, {"color", colour}};
  };
  Json band = encoding("low"), line = encoding("median"), point = encoding("median");
  band["y2"] = {{"field", "high"}};
  line["strokeDash"] = by_name(all, [](const AccuracyLine& s) { return s.look.dash; });
  point["shape"] = by_name(all, [](const AccuracyLine& s) { return Json(s.look.shape); });
  point["tooltip"] = {{{"field", "name"}, {"title", "variant"}},
                      {{"field", "K"}},
                      {{"field", "median"}, {"title", "accuracy"}, {"format", ".1%"}},
                      {{"field", "n"}, {"title", "seeds"}}};
  return {{"data", {{"values", values}}},
          {"layer",
           {{{"mark", {{"type", "area"}, {"opacity", 0.15}}}, {"encoding", band}},
            {{"mark", {{"type", "line"}, {"strokeWidth", 2.5}}}, {"encoding", line}},
            {{"transform", Json::array({{{"filter", "!datum.rule"}}})},
             {"mark", {{"type", "point"}, {"filled", true}, {"size", 55}, {"opacity", 1}}},
             {"encoding", point}}}}};
}

int seeds_of(const std::vector<AccuracyLine>& all) {
  int n = 0;
  for (const AccuracyLine& one : all) {
    for (const auto& [top_k, value] : one.points) n = std::max(n, value.n);
  }
  return n;
}

Chart accuracy_chart(const TaskView& task, double length) {
  const std::vector<double> top_ks = task.top_ks(length);
  if (top_ks.size() < 2) return {};
  const auto all = accuracy_lines(task, length, top_ks);
  const int n = seeds_of(all);
  const std::string title = task_finding(task, length);
  Json spec = theme::base(
      title,
      task.summary + " · " + statistics_note(n, n >= 6, "seeds") + " · each point trained at its K",
      kAccuracyWidth);
  spec["width"] = kAccuracyWidth, spec["height"] = kAccuracyHeight;
  const Json x = top_k_axis(top_ks),
             colour = by_name(all, [](const AccuracyLine& s) { return Json(s.look.colour); });
  spec["layer"] = Json::array();
  if (!task.guesses.empty()) spec["layer"].push_back(guess_rules(task));
  spec["layer"].push_back(line_layers(all, x, colour));
  spec["layer"].push_back(label_layers(end_labels(all, task, top_ks.back()), x, colour));
  return {"accuracy_" + task.name + "_L" + count(length), title,
          "Last evaluation over all test examples. A line without points reads every key and has "
          "no K. Dotted: what guessing reaches.",
          spec};
}

}  // namespace

std::vector<Chart> task_accuracy(const Material& material) {
  std::vector<Chart> out;
  for (const TaskView& task : material.tasks) {
    for (const double length : task.training.lengths()) out.push_back(accuracy_chart(task, length));
  }
  return out;
}

}  // namespace dsa::report
