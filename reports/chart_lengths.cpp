// The seed's picture: loss, accuracy and step time over sequence length, grouped by variant, with
// the published numbers as pale bars beside ours.
#include "reports/charts.h"
#include "reports/comparison.h"
#include "reports/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace dsa::report {
namespace {

namespace words = vocabulary;

struct Panel {
  const char* quantity;
  std::string title;
  double factor;
};

struct Bars {
  std::vector<std::string> names, colours;
  Json values = Json::array();
  std::set<double> lengths;

  void add(const std::string& name, const std::string& colour, double length, const Panel& panel,
           const Summary& value) {
    if (value.empty()) return;
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      names.push_back(name);
      colours.push_back(colour);
    }
    lengths.insert(length);
    values.push_back({{"name", name},
                      {"L", report::length(length)},
                      {"quantity", panel.quantity},
                      {"value", theme::rounded(value.median * panel.factor, 4)},
                      {"low", theme::rounded(value.low * panel.factor, 4)},
                      {"high", theme::rounded(value.high * panel.factor, 4)},
                      {"n", value.n}});
  }
};

std::string colour_of(const Material& material, const std::string& variant) {
  for (const Arm& arm : material.training.arms()) {
    if (arm.variant.name == variant) return theme::look(arm.slot).colour;
  }
  for (const auto& info : material.run.variants) {
    if (info.name == variant) return theme::look(info.colour_slot).colour;
  }
  return theme::look(3).colour;
}

void add_published(const Material& material, const Panel& panel, Bars& bars) {
  const auto& lengths = material.training.lengths();
  for (const record::Series& series : material.run.reference_series) {
    if (series.y.name != panel.quantity) continue;
    const std::string variant = label(series.labels, words::kVariant);
    for (size_t i = 0; i < series.xs.size(); ++i) {
      // Published numbers stand beside ours, so only at lengths we ran.
      if (std::find(lengths.begin(), lengths.end(), series.xs[i]) == lengths.end()) continue;
      bars.add(variant + " (published)", theme::tint(colour_of(material, variant)), series.xs[i],
               panel, summarise({series.ys[i]}));
    }
  }
}

Json panel_spec(const Panel& panel, const Bars& bars, const std::vector<std::string>& order,
                int width) {
  Json colour = theme::categories(bars.names, bars.colours);
  colour["legend"] = {{"symbolType", "square"}, {"symbolStrokeWidth", 0}, {"columns", 4}};
  const Json x = {{"field", "L"},
                  {"type", "ordinal"},
                  {"title", "Sequence length L"},
                  {"sort", order},
                  {"axis", {{"labelAngle", 0}, {"ticks", false}}},
                  {"scale", {{"paddingInner", 0.22}, {"paddingOuter", 0.1}}}};
  const Json offset = {
      {"field", "name"}, {"sort", bars.names}, {"scale", {{"domain", bars.names}}}};
  const Json y = {{"field", "value"},
                  {"type", "quantitative"},
                  {"title", panel.title},
                  {"axis", {{"tickCount", 5}, {"minExtent", 34}, {"maxExtent", 34}}}};
  const Json tooltip = {{{"field", "name"}, {"title", "series"}},
                        {{"field", "L"}},
                        {{"field", "value"}, {"title", panel.title}},
                        {{"field", "n"}, {"title", "seeds"}}};
  Json rule_y = y;
  rule_y["field"] = "low";
  const std::string filter = std::string("datum.quantity == '") + panel.quantity + "'";
  return {{"width", width},
          {"height", 200},
          {"transform", Json::array({{{"filter", filter}}})},
          {"layer",
           {{{"mark", {{"type", "bar"}}},
             {"encoding",
              {{"x", x}, {"xOffset", offset}, {"y", y}, {"color", colour}, {"tooltip", tooltip}}}},
            {{"transform", Json::array({{{"filter", "datum.low < datum.high"}}})},
             {"mark", {{"type", "rule"}, {"color", theme::kInk}, {"strokeWidth", 1}}},
             {"encoding",
              {{"x", x}, {"xOffset", offset}, {"y", rule_y}, {"y2", {{"field", "high"}}}}}}}}};
}

std::string title_of(const Material& material) {
  const TrainingView& training = material.training;
  const Arm *baseline = training.first(words::kBaseline),
            *candidate = training.first(words::kCandidate);
  if (!baseline || !candidate) return "Loss, accuracy and step time over sequence length";
  const double longest = training.lengths().back();
  const Mean gap = loss_difference(training, *candidate, *baseline, longest);
  const Summary time = paired_ratio(training.samples(words::kStepTime, *candidate, longest),
                                    training.samples(words::kStepTime, *baseline, longest));
  if (gap.empty() || time.empty()) return candidate->name + " beside " + baseline->name;
  return candidate->name + " at L = " + length(longest) + ": final loss " +
         signed_gap(Mean{1, 0, gap.mean, 0}) + ", " + times(time.median) + " the step time of " +
         baseline->name;
}

}  // namespace

std::vector<Chart> length_comparison(const Material& material) {
  const TrainingView& training = material.training;
  const Panel panels[] = {{words::kBestLoss, "Best validation loss (nats/token)", 1},
                          {words::kBestAccuracy, "Best accuracy (%)", 100},
                          {words::kStepTime, "Step time (s)", 1}};
  Bars bars;
  int n = 0;
  for (const Panel& panel : panels) {
    for (const Arm& arm : training.arms()) {
      for (double length : training.lengths()) {
        const Summary value = training.summary(panel.quantity, arm, length);
        n = std::max(n, value.n);
        bars.add(arm.name, theme::look(arm.slot).colour, length, panel, value);
      }
    }
  }
  if (bars.values.empty()) return {};
  const size_t own = bars.names.size();
  for (const Panel& panel : panels) add_published(material, panel, bars);
  std::vector<std::string> order;
  for (double length : bars.lengths) order.push_back(report::length(length));

  Json present = Json::array();
  std::vector<const Panel*> shown;
  for (const Panel& panel : panels) {
    const bool any = std::any_of(bars.values.begin(), bars.values.end(),
                                 [&](const Json& v) { return v["quantity"] == panel.quantity; });
    if (any) shown.push_back(&panel);
  }
  const int width = shown.size() >= 3 ? 208 : 300;
  for (const Panel* panel : shown) present.push_back(panel_spec(*panel, bars, order, width));
  std::string subtitle =
      "Bars: " + statistics_note(n, n >= 6, "seeds") + (n > 1 ? " (thin rule)" : "");
  if (bars.names.size() > own) subtitle += " · pale bars: published numbers, another machine";
  Json spec = theme::base(title_of(material), subtitle, 720);
  spec["data"] = {{"values", bars.values}};
  spec["spacing"] = 22;
  spec["hconcat"] = present;
  spec["resolve"] = {{"scale", {{"color", "shared"}}}};
  return {{"sequence_length_comparison", title_of(material),
           Text("Every variant at every length.") +
               (bars.names.size() > own
                    ? " Published step times were measured on another machine and compare "
                      "only with each other."
                    : ""),
           spec}};
}

}  // namespace dsa::report
