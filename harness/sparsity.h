// How time and memory of a variant's attention grow with the length, at a fixed K: the measurement
// behind audit 5.
#pragma once
#include "harness/audits.h"

#include <functional>

namespace dsa {

inline constexpr int64_t kSparsityTopK = 256;

struct SparsityCurve {
  std::vector<AuditEvidence::Point> points;
  double missing_cpus = 0;  ///< that others took from our threads while it was timed
};

/// One layer of the variant, one sequence, forward. Seconds: of what the layer does as attention (its
/// indexer and top-k left out), median of `repetitions` interleaved ones. Bytes: peak of the whole
/// layer, output included. A length whose memory the last two predict to exceed `memory_budget` bytes
/// ends the curve.
/// @param stop_requested  asked between calls
SparsityCurve sparsity_curve(const std::string& variant, const AttentionConfig& attention,
                             const std::vector<int64_t>& lengths, int repetitions,
                             double memory_budget, const std::function<bool()>& stop_requested);

}  // namespace dsa
