// The kernel half of a record: one row a benchmark, and scenarios that set whole DSA (select the
// keys, then read them) against dense attention at equal shape.
#pragma once
#include "harness/record/record.h"
#include "reports/statistics.h"

#include <map>
#include <string>
#include <vector>

namespace dsa::report {

struct KernelRow {
  std::map<std::string, std::string> labels;
  std::string id, family, pass, backend, role;           ///< role: ours | peer | oracle
  std::map<std::string, const record::Metric*> metrics;  ///< by quantity name
  Summary summary(const std::string& quantity) const;
};

/// One way to compute attention at one length: a dense row, or a selection and a sparse row summed.
struct Contender {
  std::string backend, role;
  Summary time, memory;   ///< memory: the larger of the two calls
  double flop_ratio = 0;  ///< NaN when unknown
};

struct ScenarioPoint {
  double length = 0, top_k = 0;
  std::vector<Contender> dense, sparse;
  const Contender* best_dense() const;   ///< fastest, oracles left out; null if none
  const Contender* best_sparse() const;  ///< fastest of role `ours`, else fastest that is no oracle
  Summary speed_up() const;              ///< best dense / best sparse; empty if one is missing
};

/// Everything equal but L (and K, when K follows L).
struct Scenario {
  std::string pass, axes;             ///< axes: "D=64 H=8 dtype=f32"
  std::string top_k;                  ///< "K = 256", "K = L/4"
  std::vector<ScenarioPoint> points;  ///< by length
  Crossover crossing() const;
};

class KernelView {
 public:
  explicit KernelView(const record::Run& run);
  const std::vector<KernelRow>& rows() const { return rows_; }
  /// Most lengths first, so the first is the one to draw.
  const std::vector<Scenario>& scenarios() const { return scenarios_; }
  bool empty() const { return rows_.empty(); }

 private:
  std::vector<KernelRow> rows_;
  std::vector<Scenario> scenarios_;
};

/// The axes of a row as text: "L=4096 K=256 H=8 D=64 f32 fwd".
std::string axes_text(const KernelRow& row);
/// The fastest row of role `peer` with the same family and axes, or null.
const KernelRow* fastest_peer(const std::vector<KernelRow>& rows, const KernelRow& row);

}  // namespace dsa::report
