#include "bench/kernel_record.h"

#include <cmath>

namespace dsa::bench {
namespace {

using Better = record::Quantity::Better;

/// What work alone would allow; the indexer of the configuration stands beside the attention row.
std::optional<double> row_flop_ratio(const KernelCase& kernel, const KernelConfig& config) {
  if (kernel.gemm > 0 || kernel.op != Op::kSparse || kernel.backward()) return std::nullopt;
  Problem problem = kernel.problem;
  problem.index_heads = config.index_heads.front();
  problem.index_width = config.index_widths.front();
  return flop_ratio(problem);
}

}  // namespace

std::string id_of(const KernelCase& kernel) {
  std::string id = kernel.family();
  for (const auto& [axis, value] : axes(kernel)) id += "/" + axis + ":" + value;
  return id;
}

std::map<std::string, std::string> labels_of(const KernelCase& kernel) {
  std::map<std::string, std::string> labels = {
      {"level", "kernel"}, {"family", kernel.family()}, {"id", id_of(kernel)}};
  for (const auto& [axis, value] : axes(kernel)) labels[axis] = value;
  return labels;
}

std::string too_large(const KernelCase& kernel, const KernelConfig& config) {
  const double gib = bytes_of_set(kernel) / (1024.0 * 1024 * 1024);
  if (gib <= config.memory_budget) return "";
  char text[160];
  std::snprintf(text, sizeof text,
                "its inputs need %.1f GiB, more than --kernels.memory-budget %.1f", gib,
                config.memory_budget);
  return text;
}

std::optional<CeilingShare> share_of(const Session& session, const Checked& row, double seconds) {
  if (!session.ceilings) return std::nullopt;
  return ceiling_share(*session.ceilings, row.kernel.work(), row.kernel.problem.dtype,
                       row.working_set, seconds);
}

Sample sample_of(const Session& session, const Checked& row, int64_t place,
                 const Repetition& repetition) {
  Sample sample;
  sample.id = id_of(row.kernel);
  sample.level = "kernel";
  sample.repetition = place;
  sample.iterations = repetition.iterations;
  sample.seconds = repetition.seconds;
  sample.cpu_seconds = repetition.cpu_seconds;
  sample.label = session.label();
  const Cost work = row.kernel.work();
  const double bytes = work.bytes_read + work.bytes_written;
  sample.values = {{"flops", work.flops},
                   {"bytes", bytes},
                   {"flop_rate", work.flops / repetition.seconds},
                   {"byte_rate", bytes / repetition.seconds},
                   {"error", row.verdict.error}};
  if (const auto used = share_of(session, row, repetition.seconds)) {
    sample.values["ceiling_percent"] = used->percent;
  }
  return sample;
}

void put_metrics(Session& session, const Checked& row, const std::vector<double>& seconds) {
  auto labels = labels_of(row.kernel);
  if (!session.label().empty()) labels[session.label()] = "true";
  if (!session.config.kernels.checked) labels["unchecked"] = "true";
  const auto put = [&](const char* name, const char* unit, Better better,
                       std::vector<double> samples) {
    session.recorder->put(record::Metric{{name, unit, better}, labels, std::move(samples)});
  };
  const Cost work = row.kernel.work();
  const double bytes = work.bytes_read + work.bytes_written;
  std::vector<double> flop_rates, byte_rates, percents;
  for (const double s : seconds) {
    flop_rates.push_back(work.flops / s);
    byte_rates.push_back(bytes / s);
    if (const auto used = share_of(session, row, s)) percents.push_back(used->percent);
  }
  put("time", "s", Better::kLower, seconds);
  put("flops", "FLOP", Better::kNeither, {work.flops});
  put("bytes", "bytes", Better::kNeither, {bytes});
  put("flop_rate", "FLOP/s", Better::kHigher, flop_rates);
  put("byte_rate", "bytes/s", Better::kHigher, byte_rates);
  if (row.verdict.recall) put("selection_recall", "1", Better::kHigher, {*row.verdict.recall});
  if (row.kernel.selects())
    put("wrong_members", "1", Better::kLower, {row.verdict.wrong_members});
  else
    put("error", "1", Better::kLower, {row.verdict.error});
  if (const auto ratio = row_flop_ratio(row.kernel, session.config.kernels)) {
    put("flop_ratio", "1", Better::kNeither, {*ratio});
  }
  if (const auto& facts = row.facts) {
    put("union16", "1", Better::kNeither, {facts->union16});
    put("recall", "1", Better::kHigher, {facts->recall});
    put("recent_share", "1", Better::kNeither, {facts->recent});
  }
  if (!row.note.empty()) {
    auto noted = labels;
    noted["note"] = row.note;
    session.recorder->put(record::Metric{{"note", "1", Better::kNeither}, noted, {1}});
  }
  if (const auto used = share_of(session, row, median(seconds))) {
    labels["bound"] = used->bound;
    put("ceiling_percent", "%", Better::kHigher, percents);
  }
}

}  // namespace dsa::bench
