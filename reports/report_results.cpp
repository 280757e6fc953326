// The sections that show results: the seed's table and charts of training, the kernel tables.
#include "reports/report.h"
#include "reports/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

namespace dsa::report {
namespace {

namespace words = vocabulary;
using Better = record::Quantity::Better;

struct Cell {
  std::optional<double> value;  ///< what "best" compares
  Text text;
};

struct RowKind {
  const char* quantity;
  std::string name;
};

/// What seeds scatter around a mean; times and bytes are disturbed to one side only.
bool is_learned(const std::string& quantity) {
  return quantity == words::kBestLoss || quantity == words::kFinalLoss ||
         quantity == words::kBestAccuracy;
}

std::string cell_text(const record::Quantity& quantity, const std::vector<double>& samples) {
  const Summary times = summarise(samples);
  const Mean mean = mean_of(samples);
  const bool learned = is_learned(quantity.name);
  const double value = learned ? mean.mean : times.median;
  const double half = times.n < 2 ? 0 : learned ? mean.half_width() : times.half_width();
  std::string text;
  if (quantity.name == words::kBestAccuracy && times.n > 0) {
    text = half > 0 ? with_half_width(100 * value, 100 * half) + "\u00a0%" : percent(value);
  } else if (quantity.unit.find('/') != std::string::npos) {
    // The row's name carries these units: in every cell they would push the table apart.
    text = half > 0 ? with_half_width(value, half) : significant(value);
  } else {
    text = with_unit(times, quantity.unit);
  }
  if (times.missing > 0) {
    text += " (" + std::to_string(times.n) + " of " + std::to_string(times.n + times.missing) + ")";
  }
  return text;
}

std::optional<double> published(const record::Run& run, const std::string& quantity,
                                const std::string& variant, double length) {
  for (const record::Series& series : run.reference_series) {
    if (series.y.name != quantity || label(series.labels, words::kVariant) != variant) continue;
    for (size_t i = 0; i < series.xs.size(); ++i) {
      if (series.xs[i] == length && std::isfinite(series.ys[i])) return series.ys[i];
    }
  }
  return std::nullopt;
}

std::vector<std::string> published_variants(const record::Run& run,
                                            const std::vector<double>& lengths) {
  std::vector<std::string> out;
  for (const record::Series& series : run.reference_series) {
    const std::string variant = label(series.labels, words::kVariant);
    const bool shown = std::any_of(series.xs.begin(), series.xs.end(), [&](double x) {
      return std::find(lengths.begin(), lengths.end(), x) != lengths.end();
    });
    if (shown && std::find(out.begin(), out.end(), variant) == out.end()) out.push_back(variant);
  }
  return out;
}

/// One row: our arms, the best sound one in bold, then the published numbers.
std::vector<Text> table_row(const Material& material, const RowKind& kind, double at,
                            const std::vector<std::string>& references, bool& any) {
  const TrainingView& training = material.training;
  std::vector<Cell> cells;
  std::optional<double> best;
  record::Quantity quantity{kind.quantity, "1"};
  for (const Arm& arm : training.arms()) {
    const record::Metric* metric = training.find(kind.quantity, arm, at);
    if (!metric) {
      cells.push_back({std::nullopt, "–"});
      continue;
    }
    any = true;
    quantity = metric->quantity;
    cells.push_back({std::nullopt, cell_text(quantity, metric->samples)});
    const double value = is_learned(quantity.name) ? mean_of(metric->samples).mean
                                                   : summarise(metric->samples).median;
    if (!std::isfinite(value) || arm.variant.role == words::kFlawed) continue;
    cells.back().value = value;
    const bool leads = !best || (quantity.better == Better::kLower ? value < *best : value > *best);
    if (leads) best = value;
  }
  const bool names_unit = quantity.unit.find('/') != std::string::npos;
  std::vector<Text> row{length(at), kind.name + (names_unit ? " (" + quantity.unit + ")" : "")};
  for (const Cell& cell : cells) {
    const bool bolded =
        quantity.better != Better::kNeither && cells.size() > 1 && cell.value && cell.value == best;
    row.push_back(bolded ? bold(cell.text) : cell.text);
  }
  for (const std::string& variant : references) {
    const auto value = published(material.run, kind.quantity, variant, at);
    row.push_back(value ? cell_text(quantity, {*value}) : "–");
  }
  return row;
}

Table seed_table(const Material& material) {
  const TrainingView& training = material.training;
  const std::vector<std::string> references = published_variants(material.run, training.lengths());
  Table table;
  table.columns = {{"L", true}, {"metric"}};
  for (const Arm& arm : training.arms()) {
    const bool flawed = arm.variant.role == words::kFlawed;
    table.columns.push_back({code(arm.name) + (flawed ? " (flawed)" : ""), true});
  }
  for (const std::string& variant : references) {
    table.columns.push_back({code(variant) + " published", true});
  }
  const RowKind kinds[] = {
      {words::kBestLoss, "best validation loss"}, {words::kFinalLoss, "final validation loss"},
      {words::kBestAccuracy, "best accuracy"},    {words::kStepTime, "step time"},
      {words::kThroughput, "throughput"},         {words::kPeakMemory, "peak memory"}};
  for (double at : training.lengths()) {
    bool first = true;
    for (const RowKind& kind : kinds) {
      bool any = false;
      std::vector<Text> row = table_row(material, kind, at, references, any);
      if (!any) continue;
      if (!first) row[0] = "";
      first = false;
      table.rows.push_back(std::move(row));
    }
  }
  return table;
}

std::string source_note(const record::Run& run) {
  std::set<std::string> sources;
  for (const record::Series& series : run.reference_series) {
    const std::string source = label(series.labels, words::kSource);
    if (!source.empty()) sources.insert(source);
  }
  std::string out;
  for (const std::string& source : sources) out += (out.empty() ? " Published: " : "; ") + source;
  return out.empty() ? out : out + ".";
}

List legend(const Material& material) {
  List list;
  for (const Arm& arm : material.training.arms()) {
    list.items.push_back(code(arm.name) + " (" + arm.variant.role + "): " + arm.variant.summary);
  }
  return list;
}

/// "12.3 ± 0.4 GFLOP/s", whatever unit the record gives.
std::string metric_text(const KernelRow& row, const std::string& quantity) {
  const auto found = row.metrics.find(quantity);
  if (found == row.metrics.end()) return "–";
  return with_unit(summarise(found->second->samples).median, found->second->quantity.unit);
}

std::string error_text(const KernelRow& row) {
  const Summary wrong = row.summary(words::kWrongMembers), error = row.summary(words::kError);
  if (!wrong.empty()) return with_unit(wrong.median, "1") + " wrong members";
  return error.empty() ? "–" : significant(error.median, 2);
}

/// "76 % of flops": how much of the machine's peak, and which peak.
std::string ceiling_text(const KernelRow& row) {
  const auto found = row.metrics.find(words::kCeiling);
  if (found == row.metrics.end()) return "–";
  return significant(summarise(found->second->samples).median, 3) + "\u00a0% of " +
         label(found->second->labels, words::kBound);
}

Table kernel_table(const std::vector<KernelRow>& rows, const std::string& family) {
  Table table;
  table.columns = {{"axes"},
                   {"backend"},
                   {"time", true},
                   {"rate", true},
                   {"of ceiling", true},
                   {"error", true},
                   {"peak memory", true},
                   {"× fastest peer", true},
                   {"FLOP ratio", true}};
  for (const KernelRow& row : rows) {
    if (row.family != family) continue;
    const Summary time = row.summary(words::kTime);
    const auto metric = row.metrics.find(words::kTime);
    const std::string unit = metric == row.metrics.end() ? "s" : metric->second->quantity.unit;
    const KernelRow* peer = fastest_peer(rows, row);
    const std::string rate = metric_text(
        row, row.metrics.contains(words::kFlopRate) ? words::kFlopRate : words::kByteRate);
    const Text against = !peer || time.empty() ? Text("–")
                         : peer == &row
                             ? Text("fastest peer")
                             : Text(times(peer->summary(words::kTime).median / time.median));
    table.rows.push_back(
        {axes_text(row) + " " + row.pass, code(row.backend),
         with_unit(time, unit) + (time.n > 0 ? " (n=" + std::to_string(time.n) + ")" : ""), rate,
         ceiling_text(row), error_text(row), metric_text(row, words::kPeakMemory), against,
         metric_text(row, words::kFlopRatio)});
  }
  return table;
}

std::vector<std::string> families(const std::vector<KernelRow>& rows) {
  std::vector<std::string> out;
  for (const KernelRow& row : rows) {
    if (std::find(out.begin(), out.end(), row.family) == out.end()) out.push_back(row.family);
  }
  return out;
}

void append_figures(std::vector<Block>& blocks, const Material& material, Section section) {
  for (Chart& chart : charts(material, section)) blocks.push_back({Figure{std::move(chart)}});
}

}  // namespace

std::vector<Block> training_section(const Material& material) {
  if (material.training.empty()) return {};
  std::vector<Block> out{{Heading{2, "Training"}}};
  out.push_back({seed_table(material)});
  out.push_back({Paragraph{
      "Losses and accuracy: mean over seeds ± half its 95 % interval (Student t). Times and "
      "memory: "
      "median over seeds ± half of smallest to largest (from 6 seeds on of its 95 % interval). (2 "
      "of 3) = finite seeds of all. Bold: the best sound variant of the row." +
      source_note(material.run)}});
  out.push_back({legend(material)});
  append_figures(out, material, Section::kTraining);
  for (Block& block : selection_section(material)) out.push_back(std::move(block));
  return out;
}

std::vector<Block> kernel_section(const Material& material) {
  if (material.kernels.empty()) return {};
  std::vector<Block> out{{Heading{2, "Kernels"}}};
  if (!material.run.backends.empty()) {
    List list;
    for (const auto& info : material.run.backends) {
      list.items.push_back(code(info.name) + " (" + info.role + "): " + info.description);
    }
    out.push_back({list});
  }
  append_figures(out, material, Section::kKernels);
  const auto& rows = material.kernels.rows();
  if (material.kernels.scenarios().empty()) {
    out.push_back(
        {Paragraph{"No chart over length: whole DSA needs a selection and a sparse-attention row "
                   "of one backend and shape."}});
  }
  out.push_back({Heading{3, "Every kernel row"}});
  for (const std::string& family : families(rows)) {
    const Table table = kernel_table(rows, family);
    out.push_back(
        {Details{code(family) + ": " + std::to_string(table.rows.size()) + " rows", {{table}}}});
  }
  out.push_back({Paragraph{
      "Time: median ± half the interval (95 % sign test from n = 6 on, else smallest to "
      "largest). × fastest peer: the peer's time over this row's, same family and axes; "
      "above 1× is faster. Of ceiling: the larger of FLOP rate over the machine's measured FLOP "
      "peak and rate of inputs and outputs over its measured bandwidth. Error: worst row "
      "of ‖out − reference‖ / ‖reference‖."}});
  return out;
}

}  // namespace dsa::report
