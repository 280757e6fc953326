// How much of the published gap each fault made: a chart and a table, in shares of our own gap.
#include "reports/anatomy_view.h"
#include "reports/charts.h"
#include "reports/report.h"
#include "reports/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

namespace dsa::report {
namespace {

namespace words = vocabulary;

bool is_anatomy(const record::Metric& metric) {
  return label(metric.labels, words::kLevel) == words::kAnatomy;
}

/// Whether there is a gap that repairs can have shares of: sparse is better for every seed of rung 0.
bool has_gap(const std::vector<AnatomyRung>& all) {
  const AnatomyRung& published = all.front();
  const size_t seeds = std::min(published.dense_loss.size(), published.sparse_loss.size());
  for (size_t i = 0; i < seeds; ++i) {
    if (!(published.dense_loss[i] > published.sparse_loss[i])) return false;
  }
  return seeds > 0;
}

/// Share of the first rung's gap that this rung took away.
std::string share(const std::vector<AnatomyRung>& all, size_t i) {
  if (i == 0 || !has_gap(all)) return "–";
  const double taken = (all[i - 1].gap().median - all[i].gap().median) / all.front().gap().median;
  return std::isfinite(taken) ? percent(taken) : "–";
}

Table table_of(const std::vector<AnatomyRung>& all) {
  Table table;
  table.columns = {{"rung"},
                   {"what is repaired"},
                   {"dense loss", true},
                   {"sparse loss", true},
                   {"gap", true},
                   {"share of our gap", true},
                   {"dense acc.", true},
                   {"sparse acc.", true},
                   {"dense step", true},
                   {"sparse step", true}};
  for (size_t i = 0; i < all.size(); ++i) {
    const AnatomyRung& rung = all[i];
    const auto value = [](const std::vector<double>& samples) {
      const Summary s = summarise(samples);
      return s.n > 1 ? with_half_width(s.median, s.half_width()) : significant(s.median);
    };
    const auto accuracy = [](const std::vector<double>& samples) {
      return percent(summarise(samples).median);
    };
    table.rows.push_back(
        {std::to_string(i) + " " + spoken(rung.name), rung.repair, value(rung.dense_loss),
         value(rung.sparse_loss), signed_gap(rung.gap()), share(all, i),
         accuracy(rung.dense_accuracy), accuracy(rung.sparse_accuracy),
         with_unit(summarise(rung.dense_step), "s"), with_unit(summarise(rung.sparse_step), "s")});
  }
  return table;
}

/// The published losses at this length: dense first. Empty if the record has none.
std::vector<double> published(const record::Run& run, double length) {
  std::vector<double> found;
  for (const record::Series& series : run.reference_series) {
    if (series.y.name != words::kBestLoss) continue;
    for (size_t i = 0; i < series.xs.size(); ++i) {
      if (series.xs[i] == length) found.push_back(series.ys[i]);
    }
  }
  return found.size() == 2 ? found : std::vector<double>{};
}

std::string headline(const std::vector<AnatomyRung>& all, double length) {
  if (!has_gap(all))
    return "The published setting again: sparse not better for every seed, L = " +
           report::length(length);
  size_t largest = 0;
  double most = 0;
  const double whole = all.front().gap().median;
  for (size_t i = 1; i < all.size(); ++i) {
    const double taken = all[i - 1].gap().median - all[i].gap().median;
    if (taken > most) most = taken, largest = i;
  }
  if (largest == 0) return "The published setting repaired, L = " + report::length(length);
  return percent(most / whole) + " of the gap at L = " + report::length(length) +
         " goes with one repair: " + spoken(all[largest].name);
}

Text caption(const record::Run& run, const std::vector<AnatomyRung>& all, double length) {
  Text text =
      "Cumulative: a rung keeps the repairs to its left. Gap = dense loss minus sparse loss, same "
      "seed, above 0 where sparse is better; share = what a repair takes away of the gap at rung 0 "
      "of this run (above 100 % or below 0 where repairs move it past zero). Where an arm does not "
      "change at a rung its "
      "numbers are those of the rung before. n = " +
      std::to_string(all.front().gap().n) + " seeds, smallest to largest.";
  if (!has_gap(all)) {
    text += " No shares: sparse is not better for every seed at rung 0 (" +
            signed_gap(all.front().gap()) + " nats/token), so there is nothing to divide.";
  }
  const auto numbers = published(run, length);
  if (!numbers.empty()) {
    text += " Published at this length, after 1000 steps on another text: dense " +
            significant(numbers[0]) + ", sparse " + significant(numbers[1]) + " nats/token.";
  }
  return text;
}

Json rows_of(const std::vector<AnatomyRung>& all) {
  Json values = Json::array();
  for (size_t i = 0; i < all.size(); ++i) {
    for (const bool sparse : {false, true}) {
      const Summary loss = summarise(sparse ? all[i].sparse_loss : all[i].dense_loss);
      if (loss.empty()) continue;
      values.push_back({{"rung", std::to_string(i) + " " + spoken(all[i].name)},
                        {"name", sparse ? "sparse" : "dense"},
                        {"loss", theme::rounded(loss.median)},
                        {"low", theme::rounded(loss.low)},
                        {"high", theme::rounded(loss.high)}});
    }
  }
  return values;
}

/// Log axis over what is drawn, with room for the points.
Json encoded(const char* field, const Json& rows) {
  double low = std::numeric_limits<double>::infinity(), high = 0;
  for (const Json& row : rows) {
    low = std::min(low, row["low"].get<double>()), high = std::max(high, row["high"].get<double>());
  }
  return {{"field", field},
          {"type", "quantitative"},
          {"title", "Validation loss (nats/token, log scale)"},
          {"scale", {{"type", "log"}, {"nice", false}, {"domain", {0.95 * low, 1.05 * high}}}},
          {"axis",
           {{"values", {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 30, 50, 100, 200}},
            {"format", "~g"}}}};
}

}  // namespace

std::vector<double> anatomy_lengths(const record::Run& run) {
  std::vector<double> lengths;
  for (const record::Metric& metric : run.metrics) {
    if (is_anatomy(metric)) lengths.push_back(number(metric.labels, words::kLength));
  }
  std::sort(lengths.begin(), lengths.end());
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  return lengths;
}

std::vector<AnatomyRung> anatomy_of(const record::Run& run, double length) {
  std::map<double, AnatomyRung> by_number;
  for (const record::Metric& metric : run.metrics) {
    if (!is_anatomy(metric) || number(metric.labels, words::kLength) != length) continue;
    AnatomyRung& rung = by_number[number(metric.labels, words::kRung)];
    rung.name = label(metric.labels, words::kRungName);
    rung.repair = label(metric.labels, words::kRepair);
    const bool sparse = label(metric.labels, words::kArm) == words::kSparseArm;
    const std::string& name = metric.quantity.name;
    if (name == words::kBestLoss) (sparse ? rung.sparse_loss : rung.dense_loss) = metric.samples;
    if (name == words::kBestAccuracy) {
      (sparse ? rung.sparse_accuracy : rung.dense_accuracy) = metric.samples;
    }
    if (name == words::kStepTime) (sparse ? rung.sparse_step : rung.dense_step) = metric.samples;
  }
  std::vector<AnatomyRung> all;
  for (auto& [place, rung] : by_number) {
    if (rung.complete()) all.push_back(std::move(rung));
  }
  return all;
}

std::vector<Chart> anatomy_chart(const Material& material) {
  std::vector<Chart> out;
  for (const double length : anatomy_lengths(material.run)) {
    const auto all = anatomy_of(material.run, length);
    if (all.size() < 2) continue;
    const std::string title = headline(all, length);
    Json spec = theme::base(title,
                            "Best validation loss, each rung repairs one more fault of the "
                            "published experiment");
    std::vector<std::string> order;
    for (size_t i = 0; i < all.size(); ++i) {
      order.push_back(std::to_string(i) + " " + spoken(all[i].name));
    }
    const Json x = {{"field", "rung"},
                    {"type", "ordinal"},
                    {"sort", order},
                    {"title", nullptr},
                    {"axis", {{"labelAngle", 0}, {"labelExpr", "split(datum.label, ' ')"}}}};
    const Json colour =
        theme::categories({"dense", "sparse"}, {theme::look(0).colour, theme::look(1).colour});
    const Json rows = rows_of(all);
    spec["width"] = 560, spec["height"] = 300;
    spec["data"] = {{"values", rows}};
    spec["layer"] = {
        {{"mark", {{"type", "rule"}, {"strokeWidth", 1.5}}},
         {"encoding",
          {{"x", x}, {"y", encoded("low", rows)}, {"y2", {{"field", "high"}}}, {"color", colour}}}},
        {{"mark", {{"type", "line"}, {"strokeWidth", 2.5}, {"point", {{"size", 60}}}}},
         {"encoding",
          {{"x", x},
           {"y", encoded("loss", rows)},
           {"color", colour},
           {"tooltip",
            {{{"field", "rung"}},
             {{"field", "name"}},
             {{"field", "loss"}},
             {{"field", "low"}},
             {{"field", "high"}}}}}}}};
    out.push_back({"anatomy_L" + count(length), title, caption(material.run, all, length), spec});
  }
  return out;
}

std::vector<Block> anatomy_section(const Material& material) {
  std::vector<Block> out;
  for (const double length : anatomy_lengths(material.run)) {
    const auto all = anatomy_of(material.run, length);
    if (all.empty()) continue;
    if (out.empty()) out.push_back({Heading{2, "The anatomy of a headline"}});
    for (Chart& chart : anatomy_chart(material)) {
      if (chart.id == "anatomy_L" + count(length)) out.push_back({Figure{std::move(chart)}});
    }
    out.push_back({table_of(all)});
  }
  return out;
}

}  // namespace dsa::report
