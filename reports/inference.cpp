#include "reports/inference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

namespace dsa::report {
namespace {

constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();

/// P(|T| <= t): the finite sums for whole degrees of freedom (Abramowitz and Stegun 26.7.3, 26.7.4).
double within(double t, int freedom) {
  const double angle = std::atan(t / std::sqrt(freedom));
  const double sine = std::sin(angle), cosine = std::cos(angle);
  const bool odd = freedom % 2 == 1;
  double term = odd ? cosine : 1, sum = freedom == 1 ? 0 : term;
  for (int i = odd ? 3 : 2; i < freedom; i += 2) {
    term *= cosine * cosine * (i - 1) / i;
    sum += term;
  }
  return odd ? 2 / std::numbers::pi * (angle + sine * sum) : sine * sum;
}

/// P(T > distance / error); without spread the distance decides alone.
double tail(double distance, double error, int freedom) {
  if (error > 0) return 1 - student_cdf(distance / error, freedom);
  return distance > 0 ? 0 : 1;
}

}  // namespace

double student_cdf(double t, int freedom) {
  const double share = within(std::fabs(t), freedom);
  return t < 0 ? (1 - share) / 2 : (1 + share) / 2;
}

double student_quantile(double p, int freedom) {
  double high = 1;
  while (student_cdf(high, freedom) < std::max(p, 1 - p)) high *= 2;
  double low = -high;
  for (int i = 0; i < 200 && low < high; ++i) {
    const double middle = std::midpoint(low, high);
    (student_cdf(middle, freedom) < p ? low : high) = middle;
  }
  return std::midpoint(low, high);
}

double Mean::error() const {
  return deviation / std::sqrt(n);
}

double Mean::half_width() const {
  return n < 2 ? kUndefined : student_quantile(1 - kAlpha / 2, n - 1) * error();
}

Mean mean_of(const std::vector<double>& samples) {
  std::vector<double> finite;
  for (const double value : samples) {
    if (std::isfinite(value)) finite.push_back(value);
  }
  Mean out{static_cast<int>(finite.size()), static_cast<int>(samples.size() - finite.size()),
           kUndefined, kUndefined};
  if (finite.empty()) return out;
  out.mean = 0;
  for (const double value : finite) out.mean += value / out.n;  // the sum itself may overflow
  if (out.n < 2) return out;
  double squares = 0;
  for (const double value : finite) squares += (value - out.mean) * (value - out.mean);
  out.deviation = std::sqrt(squares / (out.n - 1));
  return out;
}

double p_equivalent(const Mean& d, double margin, double slack) {
  if (d.n < 2) return 1;
  return tail(margin - std::fabs(d.mean) - slack, d.error(), d.n - 1);
}

double p_different(const Mean& d, double slack) {
  if (d.n < 2 || std::fabs(d.mean) <= slack) return 1;
  return 2 * tail(std::fabs(d.mean) - slack, d.error(), d.n - 1);
}

std::vector<bool> holm(const std::vector<double>& ps) {
  std::vector<size_t> order;
  for (size_t i = 0; i < ps.size(); ++i) {
    if (!std::isnan(ps[i])) order.push_back(i);
  }
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return ps[a] < ps[b]; });
  std::vector<bool> rejected(ps.size(), false);
  for (size_t i = 0; i < order.size(); ++i) {
    if (ps[order[i]] > kAlpha / static_cast<double>(order.size() - i)) break;
    rejected[order[i]] = true;
  }
  return rejected;
}

}  // namespace dsa::report
