// Every variant against its baseline, and the candidate against each control: loss at equal steps and
// at equal training time, paired by seed, and what may be concluded from it.
#pragma once
#include "reports/inference.h"
#include "reports/training_view.h"

namespace dsa::report {

enum class Finding {
  kEquivalent,    ///< two one-sided tests within the margin
  kBetter,        ///< not equivalent, and below 0
  kWorse,         ///< not equivalent, and above 0
  kInconclusive,  ///< neither
  kFewSeeds,      ///< fewer than kSeedsNeeded pairs
  kNotJudged      ///< the times are not to be trusted
};

/// One question at one length.
struct Criterion {
  Mean difference;   ///< first's loss minus second's, nats/token; below 0 = the first is better
  double slack = 0;  ///< by how much interpolation may shift the mean
  Finding finding = Finding::kFewSeeds;
  Finding alone = Finding::kFewSeeds;  ///< without Holm's correction for the other lengths
  std::string doubt;  ///< why it is not judged, or not in somebody's favour; a clause
};

struct Comparison {
  const Arm *first = nullptr, *second = nullptr;
  double length = 0;
  int seeds = 0;  ///< asked for
  Criterion equal_steps, equal_time;
  Summary speed;  ///< second's step time over first's: > 1 means the first is faster
};

/// The doubt of equal time in a record that does not say how long its steps took.
inline constexpr const char* kNoTimes =
    "the record holds no time of every step and validation loss of both";

/// The equivalence margin that the record fixed before the run, nats/token.
struct Margin {
  double value = 0.02;
  bool fixed = false;  ///< false: a record of before there was one; the value is today's default
};
Margin margin_of(const record::Run& run);

/// Arms must outlive it. By pair, then by length. @param training of `run`
std::vector<Comparison> comparisons(const record::Run& run, const TrainingView& training);

/// The arm it is compared with; null for the first baseline, and where that did not run.
const Arm* baseline_of(const TrainingView& training, const Arm& arm);

/// Final loss of `first` minus that of `second`, same seeds.
Mean loss_difference(const TrainingView& training, const Arm& first, const Arm& second,
                     double length);

}  // namespace dsa::report
