// Curves of a training run with the gap to the baseline beneath: loss over steps, and loss over
// the position in the sequence. One column a length, three columns a figure.
#include "reports/charts.h"
#include "reports/comparison.h"
#include "reports/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <set>

namespace dsa::report {
namespace {

namespace words = vocabulary;

/// x -> seed -> y of one arm at one length.
using Curve = std::map<double, std::map<std::string, double>>;

Curve curve_of(const TrainingView& training, const std::string& quantity, const Arm& arm,
               double length) {
  Curve out;
  for (const record::Series* series : training.curves(quantity, arm, length)) {
    const std::string seed = label(series->labels, words::kSeed);
    for (size_t i = 0; i < series->xs.size(); ++i) {
      if (std::isfinite(series->xs[i])) out[series->xs[i]][seed] = series->ys[i];
    }
  }
  return out;
}

/// Same seed, same x: what the seeds share cancels.
Summary gap_at(const Curve& baseline, double x, const std::map<std::string, double>& ys) {
  const auto found = baseline.find(x);
  std::vector<double> gaps;
  for (const auto& [seed, y] : ys) {
    if (found == baseline.end() || !found->second.contains(seed)) continue;
    gaps.push_back(y - found->second.at(seed));
  }
  return summarise(gaps);
}

struct CurveFigure {
  std::string id, title, subtitle, x_title, y_title, gap_title;
  Text caption;
};

struct Plot {
  Json values = Json::array();
  std::vector<std::string> columns, names, colours;
  Json dashes = Json::array();
  double y_low = INFINITY, y_high = 0;
  double gap_low = 0, gap_high = 0;
  bool has_gap = false;
  int seeds = 0;
};

void add_arm(Plot& plot, const Arm& arm, const std::string& column, const Curve& curve,
             const Curve& baseline, double unfitted) {
  // 150 points a curve are more than 210 pixels show; every k-th keeps the file small.
  const size_t step = curve.size() / 150 + 1;
  size_t at = 0;
  const double late = curve.rbegin()->first * unfitted;
  for (const auto& [x, ys] : curve) {
    if (at++ % step != 0 && x != curve.rbegin()->first) continue;
    std::vector<double> samples;
    for (const auto& [seed, y] : ys) samples.push_back(y);
    const Summary value = summarise(samples);
    if (value.empty()) continue;
    const bool sound = arm.variant.role != words::kFlawed;
    const Summary gap = sound ? gap_at(baseline, x, ys) : Summary{};
    plot.values.push_back({{"L", column},
                           {"name", arm.name},
                           {"x", theme::rounded(x, 7)},
                           {"y", theme::rounded(value.median, 5)},
                           {"low", theme::rounded(value.low, 5)},
                           {"high", theme::rounded(value.high, 5)},
                           {"n", value.n},
                           {"gap", gap.empty() ? Json(nullptr) : theme::rounded(gap.median, 4)}});
    plot.seeds = std::max(plot.seeds, value.n);
    plot.y_low = std::min(plot.y_low, value.low), plot.y_high = std::max(plot.y_high, value.high);
    if (gap.empty() || x < late) continue;
    plot.has_gap = true;
    plot.gap_low = std::min(plot.gap_low, gap.median),
    plot.gap_high = std::max(plot.gap_high, gap.median);
  }
}

/// The gap axis is fitted to what comes after the share `unfitted` of x; the rest is clipped.
Plot plot_of(const TrainingView& training, const std::string& quantity,
             const std::vector<double>& lengths, double unfitted) {
  Plot plot;
  const Arm* baseline = training.first(words::kBaseline);
  std::set<std::string> drawn;
  for (double length : lengths) {
    const std::string column = "L = " + report::length(length);
    const Curve reference = baseline ? curve_of(training, quantity, *baseline, length) : Curve{};
    const size_t before = plot.values.size();
    for (const Arm& arm : training.arms()) {
      const Curve curve = curve_of(training, quantity, arm, length);
      if (curve.empty()) continue;
      add_arm(plot, arm, column, curve, reference, unfitted);
      drawn.insert(arm.name);
    }
    if (plot.values.size() > before) plot.columns.push_back(column);
  }
  for (const Arm& arm : training.arms()) {
    if (!drawn.contains(arm.name)) continue;
    plot.names.push_back(arm.name);
    plot.colours.push_back(theme::look(arm.slot).colour);
    plot.dashes.push_back(theme::look(arm.slot).dash);
  }
  return plot;
}

Json x_axis(const std::string& title, bool labelled) {
  Json axis = {{"tickCount", 4},
               {"grid", false},
               {"labels", labelled},
               {"labelFlush", false},
               {"format", "~s"}};
  return {{"field", "x"},
          {"type", "quantitative"},
          {"title", labelled ? Json(title) : Json(nullptr)},
          {"scale", {{"zero", false}, {"nice", false}}},
          {"axis", axis}};
}

Json row_spec(const Plot& plot, Json encoding, int height, bool band, bool labelled_x) {
  Json colour = theme::categories(plot.names, plot.colours);
  Json dash = {{"field", "name"},
               {"type", "nominal"},
               {"title", nullptr},
               {"scale", {{"domain", plot.names}, {"range", plot.dashes}}}};
  Json layers = Json::array();
  if (band) {
    Json area = encoding;
    area["y"]["field"] = "low";
    area["y2"] = {{"field", "high"}};
    // Without this the legend would show the pale band instead of the line.
    colour["legend"] = {
        {"symbolType", "stroke"}, {"symbolOpacity", 1}, {"symbolFillColor", "transparent"}};
    area["color"] = colour;
    layers.push_back(
        {{"mark", {{"type", "area"}, {"opacity", 0.15}, {"clip", true}}}, {"encoding", area}});
  }
  encoding["color"] = colour;
  encoding["strokeDash"] = dash;
  encoding["tooltip"] = {{{"field", "name"}, {"title", "variant"}},
                         {{"field", "x"}},
                         {{"field", "y"}, {"format", ".4f"}},
                         {{"field", "gap"}, {"title", "gap to baseline"}, {"format", "+.4f"}},
                         {{"field", "n"}, {"title", "seeds"}}};
  layers.push_back(
      {{"mark", {{"type", "line"}, {"strokeWidth", 2}, {"clip", true}}}, {"encoding", encoding}});
  const Json header = labelled_x && height < 120
                          ? Json{{"labels", false}}
                          : Json{{"labelAnchor", "start"}, {"labelPadding", 4}};
  return {
      {"facet",
       {{"column",
         {{"field", "L"},
          {"type", "nominal"},
          {"title", nullptr},
          {"sort", plot.columns},
          {"header", header}}}}},
      // Flush bounds leave labels out of the layout, so the columns of both rows line up.
      {"bounds", "flush"},
      {"spacing", 84},
      {"spec",
       {{"width", plot.columns.size() >= 3 ? 208 : 250}, {"height", height}, {"layer", layers}}},
      {"resolve", {{"scale", {{"x", "independent"}, {"y", "independent"}}}}}};
}

/// Two thirds of a decade or less read best on a linear axis; a loss that starts at 200 does not.
bool needs_log(const Plot& plot) {
  return plot.y_low > 0 && plot.y_high / plot.y_low > 12;
}

Chart draw(const CurveFigure& figure, const Plot& plot) {
  if (plot.values.empty()) return {};
  Json y = {{"field", "y"},
            {"type", "quantitative"},
            {"title", figure.y_title},
            {"scale", {{"zero", false}, {"nice", true}}},
            {"axis", {{"tickCount", 5}, {"minExtent", 38}, {"maxExtent", 38}}}};
  if (needs_log(plot)) {
    y["scale"] = {{"type", "log"}, {"nice", false}};
    y["axis"]["values"] = {1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000};
    y["title"] = figure.y_title + ", log";
  }
  Json spec = theme::base(figure.title, figure.subtitle, 760);
  spec["data"] = {{"values", plot.values}};
  Json rows = Json::array({row_spec(plot, {{"x", x_axis(figure.x_title, !plot.has_gap)}, {"y", y}},
                                    150, plot.seeds > 1, !plot.has_gap)});
  if (plot.has_gap) {
    const double pad = std::max(0.15 * (plot.gap_high - plot.gap_low), 1e-4);
    const Json gap = {
        {"field", "gap"},
        {"type", "quantitative"},
        {"title", figure.gap_title},
        {"scale",
         {{"domain",
           {theme::rounded(plot.gap_low - pad, 3), theme::rounded(plot.gap_high + pad, 3)}},
          {"nice", false}}},
        {"axis", {{"tickCount", 4}, {"format", "+.2~f"}, {"minExtent", 38}, {"maxExtent", 38}}}};
    rows.push_back(
        row_spec(plot, {{"x", x_axis(figure.x_title, true)}, {"y", gap}}, 90, false, true));
  }
  spec["spacing"] = 10;
  spec["vconcat"] = rows;
  return {figure.id, figure.title, figure.caption, spec};
}

/// Three columns a figure: the shortest, a middle and the longest length when there are more.
std::vector<double> three_of(const std::vector<double>& lengths) {
  if (lengths.size() <= 3) return lengths;
  return {lengths.front(), lengths[lengths.size() / 2], lengths.back()};
}

std::string gap_sentence(const TrainingView& training) {
  const Arm *baseline = training.first(words::kBaseline),
            *candidate = training.first(words::kCandidate);
  if (!baseline || !candidate) return "Validation loss during training";
  const double longest = training.lengths().back();
  const Mean gap = loss_difference(training, *candidate, *baseline, longest);
  if (gap.empty()) return "Validation loss during training";
  return "Validation loss: " + candidate->name + " ends " + signed_gap(gap) + " nats/token from " +
         baseline->name + " at L = " + length(longest);
}

/// "+0.02 below position K, +0.06 beyond", of the candidate's longest run.
std::string position_sentence(const TrainingView& training) {
  const std::string plain = "Validation loss by position in the sequence";
  const Arm *baseline = training.first(words::kBaseline),
            *candidate = training.first(words::kCandidate);
  if (!baseline || !candidate) return plain;
  const double longest = training.lengths().back();
  const double top_k = std::strtod(training.top_k(*candidate, longest).c_str(), nullptr);
  const Curve dense = curve_of(training, words::kLossByPosition, *baseline, longest);
  std::vector<double> below, beyond;
  for (const auto& [x, ys] : curve_of(training, words::kLossByPosition, *candidate, longest)) {
    (x < top_k ? below : beyond).push_back(gap_at(dense, x, ys).median);
  }
  const Summary early = summarise(below), late = summarise(beyond);
  if (early.empty() || late.empty()) return plain;
  return candidate->name + " at L = " + length(longest) + ": gap " +
         signed_gap(summarise({early.median})) + " below position K = " + count(top_k) + ", " +
         signed_gap(summarise({late.median})) + " beyond";
}

}  // namespace

std::vector<Chart> loss_curves(const Material& material) {
  if (material.training.empty()) return {};
  const Plot plot = plot_of(material.training, words::kValidationLoss,
                            three_of(material.training.lengths()), 0.25);
  const std::string seeds = plot.seeds > 1 ? " · median of " + std::to_string(plot.seeds) +
                                                 " seeds, band = smallest to largest"
                                           : " · one seed";
  const CurveFigure figure{
      "loss_curves",
      gap_sentence(material.training),
      "Top: loss, own y axis a length · bottom: gap to the baseline at the same step and seed" +
          seeds,
      "Step",
      "Loss (nats/token)",
      "Gap",
      "All of validation at every evaluation; same batches in the same order for every "
      "variant. The gap is drawn for sound variants only, its axis fitted to what comes "
      "after the first quarter of training."};
  return {draw(figure, plot)};
}

std::vector<Chart> loss_by_position(const Material& material) {
  if (material.training.empty()) return {};
  const Plot plot =
      plot_of(material.training, words::kLossByPosition, three_of(material.training.lengths()), 0);
  const CurveFigure figure{
      "loss_by_position",
      position_sentence(material.training),
      "Last evaluation · top: loss · bottom: gap to the baseline at the same position",
      "Position (tokens)",
      "Loss (nats/token)",
      "Gap",
      "A query at a position below K sees every key, with or without selection; a gap that "
      "grows beyond K is what the selection loses."};
  return {draw(figure, plot)};
}

}  // namespace dsa::report
