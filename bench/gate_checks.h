// The part of a gate that reads no clock: which rows there are, and whether their numbers got worse.
#pragma once
#include "bench/gate_arm.h"

namespace dsa::bench {

/// Head's numbers against base's, in the order of the tolerances. A quantity without a direction
/// (FLOPs, bytes) is worse when it grows.
std::vector<record::GateCheck> checks_of(const RowFacts& base, const RowFacts& head,
                                         const std::vector<Tolerance>& tolerances);

/// A row by its name in each binary; empty where it has none.
struct RowPair {
  std::string base, head;
  const std::string& id() const { return head.empty() ? base : head; }
};

/// Every row of either, base's order first. @param renamed  "OLD=NEW"
/// @throws Error if a renamed row does not exist, or two rows would have one name.
std::vector<RowPair> paired_rows(const std::vector<std::string>& base,
                                 const std::vector<std::string>& head,
                                 const std::vector<std::string>& renamed);

/// Quantities of tolerances that no row has: "a, b".
std::string quantities_of_none(const std::vector<Tolerance>& tolerances, const RunFacts& rows);

/// A sentence for a row that only one binary has; names a row of the other that it may have become.
std::string reason_alone(const RowPair& row, const std::vector<RowPair>& all);

/// Both arguments are settings as a run records them, or empty. @throws Error for a setting that the
/// binaries did not run with alike: its default has changed, so they would do different work.
void require_equal_settings(const std::string& base, const std::string& head);

}  // namespace dsa::bench
