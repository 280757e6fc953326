// Medians, distribution-free intervals and crossovers: every number with an interval in a report
// comes from here. Standard library only; knows nothing of records.
#pragma once
#include <optional>
#include <string>
#include <vector>

namespace dsa::report {

/// What a list of samples says. Non-finite samples are counted in `missing`, never averaged.
struct Summary {
  int n = 0;                             ///< finite samples
  int missing = 0;                       ///< non-finite samples
  double median = 0, low = 0, high = 0;  ///< NaN when n == 0
  /// True: [low, high] is the sign-test interval of the median at >= 95 %, which needs n >= 6.
  /// False: it is the smallest and largest sample.
  bool sign_test = false;

  bool empty() const { return n == 0; }
  double half_width() const { return (high - low) / 2; }
};

Summary summarise(const std::vector<double>& samples);

/// Sum of two independent quantities; the bounds are added, which is wider than 95 %, never less.
Summary sum(const Summary& a, const Summary& b);
/// a / b of independent quantities, with the extreme ratios as bounds. Both must be positive.
Summary ratio(const Summary& a, const Summary& b);
Summary difference(const Summary& a, const Summary& b);

/// Sample by sample where both lists have the same length (same seeds in the same order, so what
/// the seeds share cancels), else from the two summaries.
Summary paired_ratio(const std::vector<double>& a, const std::vector<double>& b);
Summary paired_difference(const std::vector<double>& a, const std::vector<double>& b);

/// On which side of the band [-margin, +margin] around `pivot` a summary lies.
enum class Side { kBelow, kInside, kAbove, kOpen };
/// kOpen when the interval touches two regions or n < 2: one sample decides nothing.
Side read(const Summary& summary, double pivot, double margin);

/// Where `ratio` (baseline time / candidate time, so > 1 means the candidate wins) rises above 1
/// for good as x grows.
struct Crossover {
  enum class Kind { kNoData, kAlwaysAbove, kAlwaysBelow, kRises, kFallsBack, kEven };
  Kind kind = Kind::kNoData;
  bool clear = false;  ///< every ratio's interval lies beyond 1 +- margin, on one side or the other
  double at = 0;       ///< kRises only; log-log interpolation between two lengths
  std::optional<double> low,
      high;  ///< from the ratio's bounds; nothing = outside what was measured
};
struct RatioAt {
  double x = 0;
  Summary ratio;
};
/// kEven: no length's interval leaves the band 1 +- margin.
Crossover crossover(std::vector<RatioAt> points, double margin = 0.02);

}  // namespace dsa::report
