#include "harness/gate/statistics.h"

#include "harness/record/sign_test.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace dsa::gate {

record::Pairing judged(std::vector<double> log_ratios, double alpha, double effect) {
  std::erase_if(log_ratios, [](double value) { return !std::isfinite(value); });
  std::sort(log_ratios.begin(), log_ratios.end());
  const size_t n = log_ratios.size();
  record::Pairing out;
  out.rounds = static_cast<int>(n);
  out.ratio = out.low = out.high = std::numeric_limits<double>::quiet_NaN();
  out.verdict = "inconclusive";
  if (n == 0) return out;
  const double median =
      n % 2 != 0 ? log_ratios[n / 2] : std::midpoint(log_ratios[n / 2 - 1], log_ratios[n / 2]);
  out.ratio = std::exp(median);
  const int rank = record::sign_test_rank(out.rounds, alpha);
  if (rank == 0) return out;
  const double low = log_ratios[static_cast<size_t>(rank - 1)];
  const double high = log_ratios[n - static_cast<size_t>(rank)];
  const double band = std::log1p(effect);
  out.low = std::exp(low), out.high = std::exp(high);
  if (low > 0 && median > band) out.verdict = "regression";
  if (high < 0 && median < -band) out.verdict = "improvement";
  if (low >= -band && high <= band) out.verdict = "same";
  return out;
}

int least_rounds(int wished, double alpha) {
  return std::max(wished, record::sign_test_samples(alpha));
}

}  // namespace dsa::gate
