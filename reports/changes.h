// Where a series of measurements changed its level: spikes are set aside, cuts are proposed freely,
// and those are taken back that chance or correlated noise explains. Standard library only,
// deterministic, knows no history.
#pragma once
#include <cstddef>
#include <vector>

namespace dsa::report {

struct ChangeOptions {
  double false_alarms = 0.01;    ///< share of series without a change that a test may split
  double least_effect = 0.0198;  ///< ln 1.02: smaller changes of the level are not reported
  size_t least_points = 4;       ///< on each side of a change
  size_t reach = 5;              ///< neighbours on each side that a point is compared with
  double spike = 4;              ///< set aside beyond so many robust deviations of its neighbours
};

struct Change {
  size_t before = 0, after = 0;  ///< last point of the old level, first of the new; spikes between
  double shift = 0;              ///< new level - old level
  double low = 0, high = 0;      ///< 95 % interval of the shift
};

struct Changes {
  std::vector<Change> changes;
  std::vector<bool> set_aside;  ///< per point: a spike, or not finite
  double correlation = 0;       ///< of neighbours once levels are taken off, never below 0
};

/// `values` in order of time, as logarithms, so that effects are shares. NaN = no measurement.
Changes find_changes(const std::vector<double>& values, const ChangeOptions& options = {});

/// Hampel's filter: true where a value is further from the median of its neighbourhood than `spike`
/// times 1.4826 median absolute deviations, and further than the least effect. Not finite is true.
std::vector<bool> spikes(const std::vector<double>& values, const ChangeOptions& options = {});

}  // namespace dsa::report
