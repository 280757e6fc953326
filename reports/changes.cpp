#include "reports/changes.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>

namespace dsa::report {
namespace {

constexpr int kShuffles = 1999;
// A series repeated to the last digit has no noise to compare a step with. 0.01 % is below what
// any gate resolves.
constexpr double kLeastNoise = 1e-4;
constexpr double kMostCorrelation = 0.9;
// A pulse is hard to see with one cut: of what is proposed at this share of false alarms, most is
// taken back once its neighbours are known.
constexpr double kProposals = 0.1;

double median_of(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return std::midpoint(*std::max_element(values.begin(), middle), *middle);
}

/// SplitMix64: std's distributions give other numbers in other libraries.
class Shuffler {
 public:
  explicit Shuffler(uint64_t seed) : state_(seed) {}

  void shuffle(std::vector<double>& values) {
    for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[next() % i]);
  }

 private:
  uint64_t next() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15U;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
  }
  uint64_t state_;
};

struct Split {
  size_t at = 0;         ///< first index of the right part
  double statistic = 0;  ///< largest two-sample t; 0 = no split possible
};

/// Of the splits at first to last the one with the largest difference of means, in units of what the
/// noise within both parts makes of it.
Split best_split(const std::vector<double>& x, size_t first, size_t last) {
  const size_t n = x.size();
  Split best;
  const double centre = x[0];  // sums of squares about a value of the series lose no digits
  double sum = 0, squares = 0;
  for (double value : x) sum += value - centre, squares += (value - centre) * (value - centre);
  double left = 0;
  for (size_t k = 1; k <= last; ++k) {
    left += x[k - 1] - centre;
    if (k < first) continue;
    const double a = static_cast<double>(k), b = static_cast<double>(n - k);
    const double gap = (sum - left) / b - left / a;
    const double within = squares - left * left / a - (sum - left) * (sum - left) / b;
    const double noise = std::max(kLeastNoise, std::sqrt(std::max(0.0, within) / (a + b - 2)));
    const double t = std::fabs(gap) / (noise * std::sqrt(1 / a + 1 / b));
    if (t > best.statistic) best = {k, t};
  }
  return best;
}

/// At any place that leaves enough points on both sides.
Split best_split(const std::vector<double>& x, const ChangeOptions& options) {
  if (x.size() < 2 * options.least_points) return {};
  return best_split(x, options.least_points, x.size() - options.least_points);
}

/// How much less a mean of correlated neighbours knows than one of independent values: the factor
/// (1 + r) / (1 - r) on its variance, for noise in which each value keeps the share r of the one before.
double inflation(double correlation) {
  return (1 + correlation) / (1 - correlation);
}

using Cuts = std::vector<size_t>;  ///< 0, first index of each further level, n

double mean_of(const std::vector<double>& x, size_t from, size_t to) {
  double sum = 0;
  for (size_t i = from; i < to; ++i) sum += x[i];
  return sum / static_cast<double>(to - from);
}

/// Lag-1 autocorrelation about the levels, with what their fitting hides (about 1 / n for each
/// level, three times r / n for a mean) given back. Too few points know nothing: 0.
double correlation_of(const std::vector<double>& x, const Cuts& cuts) {
  double products = 0, squares = 0;
  for (size_t level = 0; level + 1 < cuts.size(); ++level) {
    const double mean = mean_of(x, cuts[level], cuts[level + 1]);
    for (size_t i = cuts[level]; i < cuts[level + 1]; ++i) {
      squares += (x[i] - mean) * (x[i] - mean);
      if (i > cuts[level]) products += (x[i] - mean) * (x[i - 1] - mean);
    }
  }
  const double n = static_cast<double>(x.size()), levels = static_cast<double>(cuts.size() - 1);
  if (!(squares > 0) || n < 4 * levels + 4) return 0;
  const double corrected = (n * products / squares + levels) / (n - 3 * levels);
  return std::clamp(corrected, 0.0, kMostCorrelation);
}

std::vector<double> piece(const std::vector<double>& x, size_t from, size_t to) {
  return {x.begin() + static_cast<std::ptrdiff_t>(from),
          x.begin() + static_cast<std::ptrdiff_t>(to)};
}

/// Would shuffled values, in which time means nothing, split as well as this in more than that share?
bool is_chance(const std::vector<double>& x, double statistic, double share,
               const ChangeOptions& options) {
  const int allowed = static_cast<int>(share * (kShuffles + 1)) - 1;
  Shuffler shuffler(x.size());
  std::vector<double> shuffled = x;
  int as_good = 0;
  for (int i = 0; i < kShuffles && as_good <= allowed; ++i) {
    shuffler.shuffle(shuffled);
    // A tie with itself in another order of summation is as good.
    as_good += best_split(shuffled, options).statistic >= statistic * (1 - 1e-9);
  }
  return as_good > allowed;
}

/// Splits, and splits the parts, wherever it may be worth a closer look.
void propose_cuts(const std::vector<double>& x, size_t from, size_t to,
                  const ChangeOptions& options, Cuts& cuts) {
  const std::vector<double> part = piece(x, from, to);
  const Split split = best_split(part, options);
  if (split.statistic == 0 || is_chance(part, split.statistic, kProposals, options)) return;
  propose_cuts(x, from, from + split.at, options, cuts);
  cuts.push_back(from + split.at);
  propose_cuts(x, from + split.at, to, options, cuts);
}

/// Takes back the weakest cut until each holds against its neighbours, given the correlation about the
/// levels. The fewer cuts the more correlation is left, so that cuts which only followed it collapse.
void take_back(const std::vector<double>& x, const ChangeOptions& options, Cuts& cuts) {
  while (cuts.size() > 2) {
    size_t weakest = 0;
    double least = 0;
    for (size_t i = 1; i + 1 < cuts.size(); ++i) {
      const size_t at = cuts[i] - cuts[i - 1];
      const double t = best_split(piece(x, cuts[i - 1], cuts[i + 1]), at, at).statistic;
      if (weakest == 0 || t < least) weakest = i, least = t;
    }
    const double honest = least / std::sqrt(inflation(correlation_of(x, cuts)));
    const auto part = piece(x, cuts[weakest - 1], cuts[weakest + 1]);
    if (!is_chance(part, honest, options.false_alarms, options)) return;
    cuts.erase(cuts.begin() + static_cast<std::ptrdiff_t>(weakest));
  }
}

/// Hodges and Lehmann: the median of all differences right - left, and the differences at the ranks
/// that bound it at 95 % (normal approximation of the rank sum, widened for correlated neighbours).
Change shift_between(const std::vector<double>& x, size_t from, size_t at, size_t to,
                     double correlation) {
  std::vector<double> differences;
  for (size_t i = from; i < at; ++i) {
    for (size_t j = at; j < to; ++j) differences.push_back(x[j] - x[i]);
  }
  std::sort(differences.begin(), differences.end());
  const double a = static_cast<double>(at - from), b = static_cast<double>(to - at);
  const double deviation = std::sqrt(a * b * (a + b + 1) / 12 * inflation(correlation));
  const double rank = std::floor(a * b / 2 - 1.96 * deviation);
  const size_t skip = rank > 0 ? static_cast<size_t>(rank) : 0;
  Change out;
  out.before = at - 1, out.after = at;
  out.shift = median_of(differences);
  out.low = differences[skip], out.high = differences[differences.size() - 1 - skip];
  return out;
}

/// Drops the smallest change below the least effect until none is left: two levels become one.
std::vector<Change> worth_telling(const std::vector<double>& x, Cuts cuts, double correlation,
                                  double least_effect) {
  while (true) {
    std::vector<Change> out;
    size_t smallest = 0;
    for (size_t i = 1; i + 1 < cuts.size(); ++i) {
      out.push_back(shift_between(x, cuts[i - 1], cuts[i], cuts[i + 1], correlation));
      if (std::fabs(out.back().shift) < std::fabs(out[smallest].shift)) smallest = i - 1;
    }
    if (out.empty() || std::fabs(out[smallest].shift) >= least_effect) return out;
    cuts.erase(cuts.begin() + static_cast<std::ptrdiff_t>(smallest) + 1);
  }
}

}  // namespace

std::vector<bool> spikes(const std::vector<double>& values, const ChangeOptions& options) {
  std::vector<size_t> finite;
  std::vector<bool> out(values.size(), true);
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) finite.push_back(i);
  }
  const size_t n = finite.size(), least = options.reach + 1;
  for (size_t i = 0; i < n; ++i) {
    // As far to the left as to the right, else a new level would outvote the last of the old one;
    // at the ends, where that is hardly anything, the outermost points.
    const size_t reach = std::min({options.reach, i, n - 1 - i});
    size_t from = i - reach, to = i + reach + 1;
    if (to - from < least) {
      from = i < n / 2 ? 0 : n - std::min(n, least);
      to = std::min(n, from + least);
    }
    std::vector<double> near;
    for (size_t j = from; j < to; ++j) near.push_back(values[finite[j]]);
    const double middle = median_of(near);
    for (double& value : near) value = std::fabs(value - middle);
    const double noise = 1.4826 * median_of(near);
    const double distance = std::fabs(values[finite[i]] - middle);
    const bool judged = near.size() >= least;
    out[finite[i]] = judged && distance > std::max(options.spike * noise, options.least_effect);
  }
  return out;
}

Changes find_changes(const std::vector<double>& values, const ChangeOptions& options) {
  Changes out;
  out.set_aside = spikes(values, options);
  std::vector<double> x;
  std::vector<size_t> place;
  for (size_t i = 0; i < values.size(); ++i) {
    if (out.set_aside[i]) continue;
    x.push_back(values[i]);
    place.push_back(i);
  }
  if (x.size() < 2 * options.least_points) return out;
  Cuts cuts = {0};
  propose_cuts(x, 0, x.size(), options, cuts);
  cuts.push_back(x.size());
  take_back(x, options, cuts);
  out.correlation = correlation_of(x, cuts);
  out.changes = worth_telling(x, cuts, out.correlation, options.least_effect);
  for (Change& change : out.changes) {
    change.before = place[change.before];
    change.after = place[change.after];
  }
  return out;
}

}  // namespace dsa::report
