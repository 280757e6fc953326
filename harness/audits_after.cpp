// The audits of what training and measuring gave: 5, 8 and the second halves of 3 and 4.
#include "harness/audit_setting.h"
#include "harness/sparsity.h"

#include <algorithm>
#include <cmath>

namespace dsa {
namespace {

constexpr double kTimeTolerance = 0.15;  // of a log-log slope
constexpr double kMostMemorySlope = 1.05;
constexpr double kBusy = 0.1;  // CPUs that others took from us
constexpr size_t kLeastPoints = 3;
constexpr double kLeastLearnt = 0.1;  // of the way from guessing to 1
// Small models pay more for an indexer of the same width.
constexpr double kMostFlops = 1.1, kMostParameters = 1.1;

/// Slope of the least-squares line through (ln length, ln value).
double slope(const std::vector<AuditEvidence::Point>& points, double AuditEvidence::Point::*value) {
  double x = 0, y = 0, xx = 0, xy = 0;
  const auto n = static_cast<double>(points.size());
  for (const auto& point : points) {
    const double u = std::log(point.length), v = std::log(point.*value);
    x += u, y += v, xx += u * u, xy += u * v;
  }
  return (xy - x * y / n) / (xx - x * x / n);
}

/// Mean chance that a random selection of K of the visible keys holds a given one, over the queries
/// that selections are judged on.
double random_recall(int64_t length, int64_t top_k) {
  double sum = 0, queries = 0;
  for (const RowTile& run : judged_runs(length, top_k)) {
    for (int64_t row = 0; row < run.rows; ++row) {
      sum += static_cast<double>(top_k) / static_cast<double>(run.first + row + 1);
      ++queries;
    }
  }
  return sum / queries;
}

/// Of a task. A model that guesses well by chance is no sane baseline, so it must come some way from
/// guessing to answering everything.
AuditFinding beats_guessing(const AuditSubject& subject, const AuditEvidence& evidence) {
  double guess = 0;
  for (const Guess& one : task(subject.task.name).guesses(subject.task))
    guess = std::max(guess, one.accuracy);
  if (guess >= 1) return open("guessing answers everything: more is not to be had");
  if (!std::isfinite(evidence.baseline_accuracy)) {
    return open("no trained " + subject.baseline + " to hold against guessing");
  }
  const double least = guess + kLeastLearnt * (1 - guess);
  return {
      verdict(evidence.baseline_accuracy >= least), evidence.baseline_accuracy, least, "accuracy",
      sentence(
          "%s answers %.1f %% at L = %lld; guessing %.1f %%, and at least %.1f %% are asked for",
          subject.baseline.c_str(), 100 * evidence.baseline_accuracy,
          static_cast<long long>(evidence.length), 100 * guess, 100 * least)};
}

}  // namespace

AuditFinding baseline_after(const AuditSubject& subject, const AuditEvidence& evidence) {
  if (task(subject.task.name).fill != nullptr) return beats_guessing(subject, evidence);
  if (!std::isfinite(evidence.baseline_loss)) {
    return open("no trained " + subject.baseline + " to hold against the bigrams of the text");
  }
  return {verdict(evidence.baseline_loss < evidence.bigram_loss), evidence.baseline_loss,
          evidence.bigram_loss, "nats/token",
          sentence("%s reaches %.3f nats/token of validation at L = %lld, a bigram model %.3f",
                   subject.baseline.c_str(), evidence.baseline_loss,
                   static_cast<long long>(evidence.length), evidence.bigram_loss)};
}

AuditFinding indexer_after(const AuditSubject& subject, const AuditEvidence& evidence) {
  if (!std::isfinite(evidence.recall) || !std::isfinite(evidence.untrained_recall)) {
    return open("no trained selection was judged");
  }
  const int64_t top_k = resolved_top_k(subject.attention, evidence.length);
  const double chance = random_recall(evidence.length, top_k);
  const double least = std::max(chance, evidence.untrained_recall);
  const bool falls = evidence.kl < evidence.untrained_kl;
  return {
      verdict(falls && evidence.recall > least), evidence.recall, least, "recall",
      sentence(
          "after training, recall@%lld of the oracle's keys is %.3f against %.3f with the indexer "
          "as drawn and %.3f at random, and KL(attention || indexer) %.3f against %.3f nats",
          static_cast<long long>(top_k), evidence.recall, evidence.untrained_recall, chance,
          evidence.kl, evidence.untrained_kl)};
}

AuditFinding sparse_after(const AuditSubject& subject, const AuditEvidence& evidence) {
  if (!selects(variant(subject.variant))) {
    return open("does not apply: " + subject.variant + " reads every key");
  }
  const auto& curve = evidence.curve;
  if (curve.size() < kLeastPoints) {
    return open(
        "fewer than 3 lengths could be measured; give --audit.lengths that need less than 6 GiB "
        "each");
  }
  const double time = slope(curve, &AuditEvidence::Point::seconds);
  const double model = slope(curve, &AuditEvidence::Point::flops);
  const double memory = slope(curve, &AuditEvidence::Point::bytes);
  const double square = curve.back().length * curve.back().length;
  const bool allocates = curve.back().bytes >= square;
  const bool small = memory <= kMostMemorySlope && !allocates;
  const bool fast = std::abs(time - model) <= kTimeTolerance;
  const bool busy = small && !fast && evidence.missing_cpus >= kBusy;
  const std::string noise = busy ? "the machine was busy, run it again: " : "";
  return {busy ? Verdict::kOpen : verdict(small && fast), time, model, "slope",
          noise + sentence("attention of a layer at K = %lld, L = %.0f to %.0f: time grows as "
                           "L^%.2f (its cost model: L^%.2f), peak memory as "
                           "L^%.2f; at the last it takes %.2f bytes for each of the L*L pairs",
                           static_cast<long long>(kSparsityTopK), curve.front().length,
                           curve.back().length, time, model, memory, curve.back().bytes / square)};
}

AuditFinding budget_after(const AuditSubject& subject, const AuditEvidence& e) {
  if (e.seeds == 0 || e.baseline_seeds == 0) {
    return open("no trained " + subject.variant + " and " + subject.baseline + " to compare");
  }
  const double flops = e.flops_per_token / e.baseline_flops_per_token;
  const double parameters = e.parameters / e.baseline_parameters;
  const bool rest = e.parameters - e.indexer_parameters == e.baseline_parameters;
  const bool holds = rest && e.seeds == e.baseline_seeds && e.steps == e.baseline_steps &&
                     flops <= kMostFlops && parameters <= kMostParameters;
  return {
      verdict(holds), flops, kMostFlops, "FLOP ratio",
      sentence("%.0f parameters (%.0f of them the indexer) against %.0f, %lld seeds of %lld steps "
               "against %lld of %lld, %.3f times the baseline's training FLOPs a token",
               e.parameters, e.indexer_parameters, e.baseline_parameters,
               static_cast<long long>(e.seeds), static_cast<long long>(e.steps),
               static_cast<long long>(e.baseline_seeds), static_cast<long long>(e.baseline_steps),
               flops)};
}

}  // namespace dsa
