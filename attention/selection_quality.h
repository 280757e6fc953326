// How well a layer selects, judged by what dense attention of its own heads would weigh.
#pragma once
#include "attention/target.h"
#include "attention/variant.h"

#include <optional>

namespace dsa {

/// Means over the judged queries: those that see more than K keys, since the others select all.
struct SelectionQuality {
  /// Selected share of the K keys of largest head-mean attention (the oracle's); probabilities within
  /// 1e-5 of the K-th count as it does.
  double recall = 0;
  double mass = 0;    ///< head-mean attention probability of the selected keys, 0 .. 1
  double recent = 0;  ///< share of the selected keys among the query's last K
  /// Nats. -sum f ln f of the share f that each position has of all keys that judged queries of a
  /// window select; mean over windows. ln of the keys used if all are used alike; small if every
  /// query reads the same few.
  double entropy = 0;
  double kl =
      0;  ///< nats, KL(head-mean attention || indexer) over all visible keys; NaN without one
};

/// Neighbouring queries that see more than `top_k` keys, in evenly spread runs of 16, at most 64; the
/// last ends with the text. One shorter run if there are fewer than 16, none if there are none.
std::vector<RowTile> judged_runs(int64_t length, int64_t top_k);

/// K is the width of the selection. Works in runs of 16 queries: O(16*L) memory.
/// Nothing if no query sees more than K keys.
std::optional<SelectionQuality> quality_of(const AttentionCapture& layer);

}  // namespace dsa
