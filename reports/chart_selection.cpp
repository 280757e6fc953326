// How well the variants select: every metric that the record gives by layer, over steps, and at the
// end in a table. Which metrics those are is the record's business.
#include "reports/charts.h"
#include "reports/report.h"
#include "reports/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace dsa::report {
namespace {

namespace words = vocabulary;

/// Units in brackets only where there are any: "selection_kl" in nats is "KL (nats)".
std::string heading(const record::Quantity& quantity) {
  std::string text = quantity.name.substr(quantity.name.find('_') + 1);
  std::replace(text.begin(), text.end(), '_', ' ');
  if (text == "kl") text = "KL";
  return quantity.unit == "1" ? text : text + " (" + quantity.unit + ")";
}

/// Metrics by layer, in the order of the record.
std::vector<record::Quantity> quantities_of(const record::Run& run) {
  std::vector<record::Quantity> out;
  for (const record::Metric& metric : run.metrics) {
    if (!metric.labels.contains(words::kLayer)) continue;
    if (!metric.quantity.name.starts_with("selection_")) continue;  // of the trained indexer alone
    const bool known = std::any_of(out.begin(), out.end(),
                                   [&](const auto& q) { return q.name == metric.quantity.name; });
    if (!known) out.push_back(metric.quantity);
  }
  return out;
}

/// step -> seed -> mean over layers.
std::map<double, std::map<std::string, double>> mean_curve(const TrainingView& training,
                                                           const std::string& quantity,
                                                           const Arm& arm, double length) {
  std::map<double, std::map<std::string, std::pair<double, int>>> sums;
  for (const record::Series* series : training.curves(quantity, arm, length)) {
    for (size_t i = 0; i < series->xs.size(); ++i) {
      auto& [sum, layers] = sums[series->xs[i]][label(series->labels, words::kSeed)];
      sum += series->ys[i], ++layers;
    }
  }
  std::map<double, std::map<std::string, double>> out;
  for (const auto& [step, seeds] : sums) {
    for (const auto& [seed, sum] : seeds) out[step][seed] = sum.first / sum.second;
  }
  return out;
}

struct Panels {
  Json values = Json::array();
  std::vector<std::string> metrics, names, colours;
  Json dashes = Json::array();
  int seeds = 0;
};

Panels panels_of(const Material& material, double length) {
  Panels out;
  const auto quantities = quantities_of(material.run);
  for (const record::Quantity& quantity : quantities) out.metrics.push_back(heading(quantity));
  for (const Arm& arm : material.training.arms()) {
    const size_t before = out.values.size();
    for (const record::Quantity& quantity : quantities) {
      for (const auto& [step, seeds] : mean_curve(material.training, quantity.name, arm, length)) {
        std::vector<double> samples;
        for (const auto& [seed, value] : seeds) samples.push_back(value);
        const Summary value = summarise(samples);
        if (value.empty()) continue;
        out.seeds = std::max(out.seeds, value.n);
        out.values.push_back({{"metric", heading(quantity)},
                              {"name", arm.name},
                              {"x", theme::rounded(step, 7)},
                              {"y", theme::rounded(value.median, 5)}});
      }
    }
    if (out.values.size() == before) continue;
    out.names.push_back(arm.name);
    out.colours.push_back(theme::look(arm.slot).colour);
    out.dashes.push_back(theme::look(arm.slot).dash);
  }
  return out;
}

/// Of the table: one row a variant and layer.
void add_rows(Table& table, const Material& material, const Arm& arm, double length,
              const std::vector<record::Quantity>& quantities) {
  std::map<double, std::vector<Text>> rows;
  for (const record::Metric& metric : material.run.metrics) {
    const double layer = number(metric.labels, words::kLayer);
    if (!std::isfinite(layer) || !material.training.is_of(metric.labels, arm, length)) continue;
    const auto at = std::find_if(quantities.begin(), quantities.end(),
                                 [&](const auto& q) { return q.name == metric.quantity.name; });
    if (at == quantities.end()) continue;
    auto& row = rows[layer];
    row.resize(quantities.size() + 3, "–");
    const Summary value = summarise(metric.samples);
    row[static_cast<size_t>(at - quantities.begin()) + 3] =
        value.n > 1 && value.half_width() > 0 ? with_half_width(value.median, value.half_width())
                                              : significant(value.median, 3);
  }
  for (auto& [layer, row] : rows) {
    row[0] = report::length(length), row[1] = code(arm.name), row[2] = count(layer);
    table.rows.push_back(std::move(row));
  }
}

}  // namespace

std::vector<Chart> selection_curves(const Material& material) {
  if (material.training.empty()) return {};
  const double length = material.training.lengths().back();
  const Panels panels = panels_of(material, length);
  if (panels.values.empty()) return {};
  const std::string title = "What the variants select at L = " + report::length(length);
  Json spec =
      theme::base(title,
                  "Mean over layers, own y axis a panel" +
                      (panels.seeds > 1 ? " · median of " + std::to_string(panels.seeds) + " seeds"
                                        : std::string(" · one seed")),
                  760);
  spec["data"] = {{"values", panels.values}};
  spec["facet"] = theme::panels("metric", panels.metrics);
  spec["columns"] = 3;
  const Json x_axis = {{"tickCount", 4}, {"grid", false}, {"format", "~s"}};
  spec["spec"] = {
      {"width", 190},
      {"height", 130},
      {"mark", {{"type", "line"}, {"strokeWidth", 2}, {"point", false}}},
      {"encoding",
       {{"x", {{"field", "x"}, {"type", "quantitative"}, {"title", "Step"}, {"axis", x_axis}}},
        {"y",
         {{"field", "y"},
          {"type", "quantitative"},
          {"title", nullptr},
          {"scale", {{"zero", false}}},
          {"axis", {{"tickCount", 4}}}}},
        {"color", theme::categories(panels.names, panels.colours)},
        {"strokeDash",
         {{"field", "name"},
          {"type", "nominal"},
          {"title", nullptr},
          {"scale", {{"domain", panels.names}, {"range", panels.dashes}}}}},
        {"tooltip", {{{"field", "name"}}, {{"field", "x"}}, {{"field", "y"}}}}}}};
  // An axis a panel: shared ones would also be drawn where the last row has no panel.
  spec["resolve"] = {{"scale", {{"y", "independent"}}}, {"axis", {{"x", "independent"}}}};
  return {{"selection_quality", title,
           "Each evaluation judges a few validation windows against dense attention of the same "
           "heads; see the table of selections for what is counted.",
           spec}};
}

std::vector<Block> selection_section(const Material& material) {
  const auto quantities = quantities_of(material.run);
  if (quantities.empty()) return {};
  Table table;
  table.columns = {{"L", true}, {"variant"}, {"layer", true}};
  for (const record::Quantity& quantity : quantities)
    table.columns.push_back({heading(quantity), true});
  for (const double length : material.training.lengths()) {
    for (const Arm& arm : material.training.arms())
      add_rows(table, material, arm, length, quantities);
  }
  return {
      {Heading{3, "Selections, by layer"}},
      {table},
      {Paragraph{
          "Last evaluation, over queries that see more than K keys. Truth is dense attention of "
          "the layer's own heads, averaged over them. recall: selected share of the K keys it "
          "weighs most; mass: its weight on what was selected; KL: from it to the indexer's "
          "softmax, over every visible key; recent: share of selected keys among the last K; "
          "entropy: of the positions selected in a window, −Σ f ln f of each position's share "
          "f of all selected keys."}}};
}

}  // namespace dsa::report
