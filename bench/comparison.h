// Two sides of a claim timed by turns, so that whatever slows the machine slows both: the claim is
// the median of the ratios of neighbours, not the ratio of two medians minutes apart.
#pragma once
#include "bench/kernel_record.h"
#include "harness/goals.h"

namespace dsa::bench {

/// One kernel of a side.
struct Part {
  KernelCase kernel;
  std::shared_ptr<const Inputs> inputs;
  size_t turn = 0;
  Verdict verdict;
  std::vector<Repetition> repetitions;
  std::string note;  ///< of the last timed call

  Checked checked() const;
};

/// A goal at one length and one distribution.
struct Comparison {
  int64_t length = 0;
  std::string scores;
  std::vector<Part> ours;      ///< run one after the other
  std::vector<Part> theirs;    ///< of one
  std::vector<double> ratios;  ///< of paired repetitions: theirs over ours, or our rate over theirs
};

/// In the goal's order: lengths, each with every distribution.
std::vector<Comparison> comparisons(const Goal& goal);

/// Why this build on this machine cannot measure the goal, in words, or empty.
std::string not_measurable(const Goal& goal, const std::vector<Comparison>& all,
                           const KernelConfig& config);

/// Checks both sides, times them by turns and checks ours again. Ends early when interrupted.
/// @return why a side's results are wrong, or empty
std::string measure(Comparison& comparison, const Goal& goal, Session& session);

}  // namespace dsa::bench
