// One round of a gate: row after row, the arms that time it together, slice by slice.
#pragma once
#include "bench/gate_arm.h"
#include "bench/gate_log.h"
#include "harness/progress.h"

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace dsa::bench {

/// A row that is timed, as base and head name it.
struct RaceRow {
  std::string base, head;
  int64_t iterations = 0;  ///< calls that base needs for --kernels.min-time; 0 = a row that trains
};

/// ln(arm / base) of two processes that timed in turns: the median over their slices, of which each has
/// a neighbour a moment away. NaN without any.
double log_ratio(const std::vector<double>& base, const std::vector<double>& arm);

class Race {
 public:
  /// Writes iterations.json, base's counts for every arm: one that head found out for itself would
  /// depend on its speed.
  Race(const ArmRunner& runner, std::filesystem::path folder, std::vector<RaceRow> rows,
       std::array<Binary, gate::kArmNames.size()> arms);

  PlayedRound play(const gate::Round& round, Progress& progress) const;

 private:
  void visit(const gate::Visit& visit, PlayedRound& round) const;
  int64_t slices_of(const RaceRow& row) const;

  const ArmRunner& runner_;
  std::filesystem::path folder_;
  std::vector<RaceRow> rows_;
  std::array<Binary, gate::kArmNames.size()> arms_;
};

}  // namespace dsa::bench
