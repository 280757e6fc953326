// What the numbers decide: quality and speed of every variant against the baseline, whole DSA
// against dense kernels, and one sentence that says it. Undecided is a verdict too.
#pragma once
#include "reports/kernel_view.h"
#include "reports/text.h"
#include "reports/training_view.h"

#include <string>
#include <vector>

namespace dsa::report {

/// Differences smaller than these are no differences: docs/reports.md says why.
inline constexpr double kLossMargin = 0.02;   ///< nats/token
inline constexpr double kSpeedMargin = 0.02;  ///< 2 %

enum class Outcome { kWins, kLoses, kTrades, kEven, kUndecided };

struct TrainingEvidence {
  const Arm* arm = nullptr;
  double length = 0;
  std::string top_k;
  Summary gap;    ///< best validation loss minus the baseline's, nats/token
  Summary speed;  ///< baseline's step time over this one's: > 1 is faster
  Outcome outcome = Outcome::kUndecided;
  bool decided = false;  ///< both intervals are 95 % intervals
};

/// Every arm but the baseline, at every length where both ran.
std::vector<TrainingEvidence> training_evidence(const TrainingView& training);

Text reading(const TrainingEvidence& evidence);  ///< "wins: same loss, faster"
Text reading(const Summary& speed_up);           ///< of kernels: "faster", "slower", "undecided"

Text verdict_sentence(const TrainingView& training, const KernelView& kernels);
/// Flawed variants, controls that do as well as the candidate, runs that did not finish, samples
/// that are not finite.
std::vector<Text> warnings(const record::Run& run, const TrainingView& training);

}  // namespace dsa::report
