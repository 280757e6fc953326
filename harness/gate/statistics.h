// What rounds of two binaries say about one benchmark.
#pragma once
#include "harness/record/gate.h"

namespace dsa::gate {

/// Verdict on ln(second / first), a number a round, from the sign-test interval of its median at
/// 1 - alpha. regression: the interval lies above 0 and the median above ln(1 + effect); improvement:
/// the mirror image; same: the interval lies inside +-ln(1 + effect); else inconclusive, also while
/// the rounds are too few for an interval.
record::Pairing judged(std::vector<double> log_ratios, double alpha, double effect);

/// Fewest rounds, at least `wished`, for which judged() has an interval at alpha.
int least_rounds(int wished, double alpha);

}  // namespace dsa::gate
