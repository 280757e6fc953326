#include "reports/statistics.h"

#include "harness/record/sign_test.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace dsa::report {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

template <class Op>
Summary paired(const std::vector<double>& a, const std::vector<double>& b, Op op) {
  std::vector<double> values;
  for (size_t i = 0; i < a.size(); ++i) values.push_back(op(a[i], b[i]));
  return summarise(values);
}

Summary combine(const Summary& a, const Summary& b, double median, double low, double high) {
  Summary out;
  out.n = std::min(a.n, b.n);
  out.missing = std::max(a.missing, b.missing);
  out.sign_test = a.sign_test && b.sign_test;
  const bool known = out.n > 0;
  out.median = known ? median : kNaN;
  out.low = known ? low : kNaN;
  out.high = known ? high : kNaN;
  return out;
}

/// x where the log-log line through two points meets 1.
double meets_one(double x0, double r0, double x1, double r1) {
  const double share = -std::log(r0) / (std::log(r1) - std::log(r0));
  return std::exp(std::log(x0) + share * (std::log(x1) - std::log(x0)));
}

/// The last upward crossing of one bound's curve, if it stays above 1 from there on.
template <class Pick>
std::optional<double> last_rise(const std::vector<RatioAt>& points, Pick pick) {
  if (pick(points.back().ratio) <= 1) return std::nullopt;
  for (size_t i = points.size() - 1; i > 0; --i) {
    const double before = pick(points[i - 1].ratio), after = pick(points[i].ratio);
    if (before <= 1) return meets_one(points[i - 1].x, before, points[i].x, after);
  }
  return std::nullopt;
}

}  // namespace

Summary summarise(const std::vector<double>& samples) {
  std::vector<double> sorted;
  for (double value : samples) {
    if (std::isfinite(value)) sorted.push_back(value);
  }
  Summary out;
  out.n = static_cast<int>(sorted.size());
  out.missing = static_cast<int>(samples.size() - sorted.size());
  out.median = out.low = out.high = kNaN;
  if (sorted.empty()) return out;
  std::sort(sorted.begin(), sorted.end());
  const size_t n = sorted.size();
  out.median = n % 2 ? sorted[n / 2] : std::midpoint(sorted[n / 2 - 1], sorted[n / 2]);
  const int rank = record::sign_test_rank(out.n, 0.05);
  out.sign_test = rank > 0;
  const size_t skip = out.sign_test ? static_cast<size_t>(rank - 1) : 0;
  out.low = sorted[skip];
  out.high = sorted[n - 1 - skip];
  return out;
}

Summary sum(const Summary& a, const Summary& b) {
  return combine(a, b, a.median + b.median, a.low + b.low, a.high + b.high);
}
Summary ratio(const Summary& a, const Summary& b) {
  return combine(a, b, a.median / b.median, a.low / b.high, a.high / b.low);
}

Summary difference(const Summary& a, const Summary& b) {
  return combine(a, b, a.median - b.median, a.low - b.high, a.high - b.low);
}

Summary paired_ratio(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return ratio(summarise(a), summarise(b));
  return paired(a, b, [](double x, double y) { return x / y; });
}

Summary paired_difference(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return difference(summarise(a), summarise(b));
  return paired(a, b, [](double x, double y) { return x - y; });
}

Side read(const Summary& summary, double pivot, double margin) {
  if (summary.n < 2) return Side::kOpen;
  if (summary.low > pivot + margin) return Side::kAbove;
  if (summary.high < pivot - margin) return Side::kBelow;
  const bool inside = summary.low >= pivot - margin && summary.high <= pivot + margin;
  return inside ? Side::kInside : Side::kOpen;
}

Crossover crossover(std::vector<RatioAt> points, double margin) {
  std::erase_if(points, [](const RatioAt& p) {
    return p.ratio.empty() || !(p.ratio.low > 0) || !std::isfinite(p.ratio.high);
  });
  std::sort(points.begin(), points.end(),
            [](const RatioAt& a, const RatioAt& b) { return a.x < b.x; });
  Crossover out;
  if (points.empty()) return out;
  const auto wins = [](const RatioAt& p) { return p.ratio.median > 1; };
  const auto separated = [margin](const RatioAt& p) {
    return p.ratio.low > 1 + margin || p.ratio.high < 1 - margin;
  };
  out.clear = std::all_of(points.begin(), points.end(), separated);
  if (std::none_of(points.begin(), points.end(), separated)) {
    out.kind = Crossover::Kind::kEven;
  } else if (std::all_of(points.begin(), points.end(), wins)) {
    out.kind = Crossover::Kind::kAlwaysAbove;
  } else if (std::none_of(points.begin(), points.end(), wins)) {
    out.kind = Crossover::Kind::kAlwaysBelow;
  } else if (!wins(points.back())) {
    out.kind = Crossover::Kind::kFallsBack;
  } else {
    out.kind = Crossover::Kind::kRises;
    out.at = *last_rise(points, [](const Summary& s) { return s.median; });
    out.low = last_rise(points, [](const Summary& s) { return s.high; });
    out.high = last_rise(points, [](const Summary& s) { return s.low; });
  }
  return out;
}

}  // namespace dsa::report
