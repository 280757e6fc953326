#include "reports/wall_clock.h"

#include "reports/text.h"
#include "reports/vocabulary.h"

#include <algorithm>
#include <cmath>

namespace dsa::report {
namespace {

namespace words = vocabulary;

/// From here on a row of kernels is called busy, too (docs/bench.md).
constexpr double kBusyCpus = 0.1;
/// The same steps of the same model: seeds that differ by more than this were not timed alike.
constexpr double kTimeSpread = 1.2;

const record::Series* curve_of_seed(const TrainingView& training, const char* quantity,
                                    const Arm& arm, double length, const std::string& seed) {
  for (const record::Series* series : training.curves(quantity, arm, length)) {
    if (label(series->labels, words::kSeed) == seed) return series;
  }
  return nullptr;
}

/// Seconds of training after 0, 1, 2, ... steps; empty if a step's time is missing.
std::vector<double> elapsed(const record::Series& step_times) {
  std::vector<double> out{0};
  for (size_t i = 0; i < step_times.xs.size(); ++i) {
    const bool next = step_times.xs[i] == static_cast<double>(i + 1);
    if (!next || !(step_times.ys[i] > 0) || !std::isfinite(step_times.ys[i])) return {};
    out.push_back(out.back() + step_times.ys[i]);
  }
  return out;
}

}  // namespace

LossOverTime loss_over_time(const TrainingView& training, const Arm& arm, double length,
                            const std::string& seed) {
  const auto* times = curve_of_seed(training, words::kStepTime, arm, length, seed);
  const auto* losses = curve_of_seed(training, words::kValidationLoss, arm, length, seed);
  if (!times || !losses) return {};
  const std::vector<double> seconds = elapsed(*times);
  LossOverTime out;
  for (size_t i = 0; i < losses->xs.size(); ++i) {
    const double step = losses->xs[i];
    if (!(step >= 0) || !(step < static_cast<double>(seconds.size()))) continue;
    const double at = seconds[static_cast<size_t>(step)];
    if (!std::isfinite(losses->ys[i]) || (!out.seconds.empty() && at <= out.seconds.back()))
      continue;
    out.seconds.push_back(at);
    out.losses.push_back(losses->ys[i]);
  }
  if (!out.losses.empty()) out.total = seconds.back();
  return out;
}

std::optional<LossAt> loss_at(const LossOverTime& run, double seconds) {
  const std::vector<double>&x = run.seconds, &y = run.losses;
  const auto after = std::lower_bound(x.begin(), x.end(), seconds);
  if (after == x.end()) return std::nullopt;
  const auto b = static_cast<size_t>(after - x.begin());
  if (x[b] == seconds) return LossAt{y[b], 0};
  if (b == 0) return std::nullopt;
  const size_t a = b - 1;
  const double slope = (y[b] - y[a]) / (x[b] - x[a]);
  LossAt out{y[a] + slope * (seconds - x[a]), 0};
  // Newton's form: the parabola through a third point adds f[a, b, c] (x - a)(x - b).
  const auto parabola = [&](size_t c) {
    const double bend = ((y[c] - y[b]) / (x[c] - x[b]) - slope) / (x[c] - x[a]);
    out.error = std::max(out.error, std::fabs(bend * (seconds - x[a]) * (seconds - x[b])));
  };
  if (x.size() == 2) out.error = std::max(std::fabs(out.loss - y[a]), std::fabs(out.loss - y[b]));
  if (a > 0) parabola(a - 1);
  if (b + 1 < x.size()) parabola(b + 1);
  return out;
}

std::string time_doubt(const TrainingView& training, const Arm& arm, double length,
                       const std::vector<std::string>& seeds) {
  int resumed = 0;
  for (const double steps : training.samples(words::kResumedSteps, arm, length))
    resumed += steps > 0;
  if (resumed > 0) {
    return std::to_string(resumed) + (resumed == 1 ? " of its seeds was" : " of its seeds were") +
           " interrupted and resumed";
  }
  const Summary missing = training.summary(words::kMissingCpus, arm, length);
  if (!missing.empty() && missing.high >= kBusyCpus) {
    return "other processes had up to " + significant(missing.high, 2) + " CPUs that it needed";
  }
  double shortest_run = INFINITY, longest_run = 0;
  for (const std::string& seed : seeds) {
    const double total = loss_over_time(training, arm, length, seed).total;
    if (!(total > 0)) continue;
    shortest_run = std::min(shortest_run, total), longest_run = std::max(longest_run, total);
  }
  if (longest_run <= kTimeSpread * shortest_run) return "";
  return "its seeds took from " + with_unit(shortest_run, "s") + " to " +
         with_unit(longest_run, "s") + " for the same steps";
}

}  // namespace dsa::report
