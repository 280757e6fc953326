#include "bench/audits.h"

#include "harness/corpus_facts.h"
#include "harness/sparsity.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dsa::bench {
namespace {

using Labels = std::map<std::string, std::string>;

constexpr double kUnknown = AuditEvidence::kUnknown;
constexpr double kCurveMemory = 6.0 * 1024 * 1024 * 1024;  // bytes a call may take at most
constexpr size_t kTrulySparse = 4;                         // its place in audits()
constexpr int kCurveRepetitions = 5;

std::vector<double> finite(const std::vector<double>& samples) {
  std::vector<double> kept;
  std::copy_if(samples.begin(), samples.end(), std::back_inserter(kept),
               [](double x) { return std::isfinite(x); });
  return kept;
}

double median_or_unknown(const std::vector<double>& samples) {
  const std::vector<double> kept = finite(samples);
  return kept.empty() ? kUnknown : median(kept);
}

bool has(const Labels& labels, const Labels& wanted) {
  return std::all_of(wanted.begin(), wanted.end(), [&](const auto& label) {
    const auto found = labels.find(label.first);
    return found != labels.end() && found->second == label.second;
  });
}

/// The record's metrics of one quantity with these labels.
std::vector<const record::Metric*> metrics(const record::Run& run, const std::string& quantity,
                                           const Labels& wanted) {
  std::vector<const record::Metric*> found;
  for (const record::Metric& metric : run.metrics) {
    if (metric.quantity.name == quantity && has(metric.labels, wanted)) found.push_back(&metric);
  }
  return found;
}

/// Median over seeds, mean over layers.
double trained(const record::Run& run, const std::string& quantity, const Labels& wanted) {
  double sum = 0;
  const auto found = metrics(run, quantity, wanted);
  for (const auto* metric : found) sum += median_or_unknown(metric->samples);
  return found.empty() ? kUnknown : sum / static_cast<double>(found.size());
}

/// Of rows that differ by K, the largest median.
double most(const record::Run& run, const std::string& quantity, const Labels& wanted) {
  double largest = kUnknown;
  for (const auto* metric : metrics(run, quantity, wanted))
    largest = std::fmax(largest, median_or_unknown(metric->samples));
  return largest;
}

int64_t seeds_with_result(const record::Run& run, const Labels& wanted) {
  const auto found = metrics(run, "final_validation_loss", wanted);
  return found.empty() ? 0 : static_cast<int64_t>(finite(found.front()->samples).size());
}

/// Steps that every seed with a curve has done.
int64_t finished_steps(const record::Run& run, const Labels& wanted) {
  double least = std::numeric_limits<double>::infinity();
  for (const record::Series& series : run.series) {
    if (series.y.name != "training_loss" || !has(series.labels, wanted)) continue;
    least = std::min(least, series.xs.back());
  }
  return std::isfinite(least) ? static_cast<int64_t>(least) : 0;
}

Labels training_labels(const std::string& variant, int64_t length) {
  return {{"level", "training"}, {"variant", variant}, {"L", std::to_string(length)}};
}

Labels curve_labels(const std::string& variant) {
  return {{"level", "audit"}, {"variant", variant}};
}

constexpr const char* kMissingCpus = "missing_cpus";  // that others took while a curve was timed
constexpr const char* kCurves[] = {"attention_time", "layer_memory", "attention_flops"};
constexpr double AuditEvidence::Point::*kCurveFields[] = {
    &AuditEvidence::Point::seconds, &AuditEvidence::Point::bytes, &AuditEvidence::Point::flops};

void record_curve(Recorder& recorder, const std::string& variant,
                  const std::vector<AuditEvidence::Point>& points) {
  const char* const units[] = {"s", "bytes", "FLOP"};
  for (int i = 0; i < 3; ++i) {
    record::Series series{{"L", "tokens"}, {kCurves[i], units[i]}, curve_labels(variant), {}, {}};
    for (const auto& point : points) {
      series.xs.push_back(point.length);
      series.ys.push_back(point.*kCurveFields[i]);
    }
    recorder.put(series);
  }
}

std::vector<AuditEvidence::Point> recorded_curve(const record::Run& run,
                                                 const std::string& variant) {
  std::vector<AuditEvidence::Point> points;
  for (const record::Series& series : run.series) {
    if (!has(series.labels, curve_labels(variant))) continue;
    points.resize(series.xs.size());
    for (size_t i = 0; i < points.size(); ++i) {
      points[i].length = series.xs[i];
      for (int c = 0; c < 3; ++c) {
        if (series.y.name == kCurves[c]) points[i].*kCurveFields[c] = series.ys[i];
      }
    }
  }
  return points;
}

/// What cannot be judged is no reason to stop a run.
AuditFinding judged_or_open(const AuditRow& audit, const AuditSubject& subject) {
  try {
    return audit.before(subject);
  } catch (const std::exception& error) {
    return {AuditFinding::Verdict::kOpen, kUnknown, kUnknown, "",
            "could not be judged: " + sentence_of(error)};
  }
}

/// Where the baseline has learnt most: a step has the most tokens there.
int64_t longest(const std::vector<int64_t>& lengths) {
  return *std::max_element(lengths.begin(), lengths.end());
}

}  // namespace

AuditBook::AuditBook(Session& session, const std::vector<std::string>& names) : session_(session) {
  const RunConfig& config = session.config;
  for (const auto& name : names) {
    AuditSubject subject;
    subject.variant = name;
    subject.baseline = variant(name).baseline;
    subject.attention = config.attention;
    subject.model = config.model;
    if (subject.model.vocab_size == 0) subject.model.vocab_size = session.corpus->vocab_size;
    subject.train = config.train;
    subject.task = config.task;
    if (!config.task.top_k.empty()) {  // the hardest of the rows that a sweep trains
      subject.attention.top_k =
          *std::min_element(config.task.top_k.begin(), config.task.top_k.end());
    }
    subject.corpus = session.corpus.get();
    subject.lengths = config.lengths;
    subject.seed = config.seeds.front();
    all_.push_back({subject, std::vector<AuditFinding>(audits().size())});
  }
}

void AuditBook::put(const Judged& judged, size_t row, const AuditFinding& finding) {
  const record::Audit audit = audit_record(audits()[row], judged.subject.variant, finding);
  auto& all = session_.recorder->run().audits;
  const auto same = [&](const record::Audit& other) {
    return other.name == audit.name && has(other.labels, {{"variant", judged.subject.variant}});
  };
  const auto at = std::find_if(all.begin(), all.end(), same);
  if (at == all.end()) {
    all.push_back(audit);
  } else {
    *at = audit;
  }
}

void AuditBook::show(const AuditRow& audit, const std::string& variant) {
  session_.progress.begin("audit " + std::to_string(audit.number) + " " + audit.name + ": " +
                          variant);
  session_.progress.tick(0, "");
}

void AuditBook::before() {
  for (size_t row = 0; row < audits().size(); ++row) {
    const AuditRow& audit = audits()[row];
    for (size_t i = 0; i < all_.size(); ++i) {
      if (stop_requested()) return;
      Judged& judged = all_[i];
      if (!audit.before) {
        judged.findings[row] = {AuditFinding::Verdict::kOpen, kUnknown, kUnknown, "",
                                "training has not ended"};
      } else if (audit.of_the_data && i > 0) {
        judged.findings[row] = all_.front().findings[row];
      } else {
        show(audit, judged.subject.variant);
        judged.findings[row] = judged_or_open(audit, judged.subject);
      }
      AuditFinding so_far = judged.findings[row];
      if (audit.after && so_far.verdict == AuditFinding::Verdict::kPassed)
        so_far.verdict = AuditFinding::Verdict::kOpen;
      put(judged, row, so_far);
    }
  }
  session_.recorder->write();
}

// Before anything trains: afterwards the heap is full of holes, and what lies in them counts as memory of
// the layer (at L = 16384 window, whose tensors are those of random, took 141 MB and random 91).
void AuditBook::measure_curves() {
  for (const Judged& judged : all_) {
    const std::string& name = judged.subject.variant;
    const bool known = !recorded_curve(session_.recorder->run(), name).empty();
    if (!selects(variant(name)) || stop_requested() || known) continue;
    show(audits().at(kTrulySparse), name);
    try {
      measure_curve(name);
    } catch (const std::exception& error) {  // what cannot be judged is no reason to stop a run
      session_.progress.print("  audit 5 cannot be judged for " + name + ": " + sentence_of(error));
    }
  }
}

void AuditBook::measure_curve(const std::string& name) {
  const RunConfig& config = session_.config;
  const SparsityCurve curve = sparsity_curve(name, config.attention, config.audit.lengths,
                                             kCurveRepetitions, kCurveMemory, stop_requested);
  if (stop_requested()) return;
  session_.recorder->put(record::Metric{{kMissingCpus, "CPUs", record::Quantity::Better::kLower},
                                        curve_labels(name),
                                        {curve.missing_cpus}});
  record_curve(*session_.recorder, name, curve.points);
  session_.recorder->write();
}

AuditEvidence AuditBook::evidence(const AuditSubject& subject) const {
  const record::Run& run = session_.recorder->run();
  AuditEvidence e;
  e.bigram_loss = bigrams_;
  e.length = longest(subject.lengths);
  // A sweep's rows differ by K: the fewest keys are hardest to learn with, the most cost most.
  const Labels of_every_k = training_labels(subject.variant, e.length);
  Labels own = of_every_k;
  if (selects(variant(subject.variant)))
    own["K"] = std::to_string(resolved_top_k(subject.attention, e.length));
  const Labels base = training_labels(subject.baseline, e.length);
  e.baseline_accuracy = trained(run, "final_accuracy", base);
  e.baseline_loss = trained(run, "best_validation_loss", base);
  e.recall = trained(run, "selection_recall", own);
  e.kl = trained(run, "selection_kl", own);
  e.untrained_recall = trained(run, "untrained_selection_recall", own);
  e.untrained_kl = trained(run, "untrained_selection_kl", own);
  e.parameters = trained(run, "parameters", own);
  e.baseline_parameters = trained(run, "parameters", base);
  e.indexer_parameters = trained(run, "indexer_parameters", own);
  e.flops_per_token = most(run, "flops_per_token", of_every_k);
  e.baseline_flops_per_token = trained(run, "flops_per_token", base);
  e.seeds = seeds_with_result(run, own);
  e.baseline_seeds = seeds_with_result(run, base);
  e.steps = finished_steps(run, of_every_k);
  e.baseline_steps = finished_steps(run, base);
  e.curve = recorded_curve(run, subject.variant);
  const double missing = trained(run, kMissingCpus, curve_labels(subject.variant));
  if (std::isfinite(missing)) e.missing_cpus = missing;
  return e;
}

int AuditBook::after() {
  int failed = 0;
  if (task(session_.config.task.name).fill == nullptr)
    bigrams_ = bigram_loss(*session_.corpus, longest(session_.config.lengths));
  for (const Judged& judged : all_) {
    const AuditEvidence seen = evidence(judged.subject);
    for (size_t row = 0; row < audits().size(); ++row) {
      const AuditRow& audit = audits()[row];
      AuditFinding finding = judged.findings[row];
      if (audit.after) {
        show(audit, judged.subject.variant);
        const AuditFinding later = audit.after(judged.subject, seen);
        finding = audit.before ? joined(finding, later) : later;
      }
      put(judged, row, finding);
      failed += finding.verdict == AuditFinding::Verdict::kFailed;
      static const char* const words[] = {"passed", "FAILED", "open"};
      char line[96];
      std::snprintf(line, sizeof line, "  audit %d %-15s %-17s %s  ", audit.number, audit.name,
                    judged.subject.variant.c_str(), words[static_cast<int>(finding.verdict)]);
      const bool plain = finding.verdict == AuditFinding::Verdict::kPassed;
      session_.progress.print(line + (plain ? "" : finding.sentence));
    }
  }
  session_.recorder->write();
  return failed;
}

}  // namespace dsa::bench
