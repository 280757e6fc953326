// The one place that knows how much work an operation is: FLOPs and compulsory bytes, derived in
// docs/attention.md. Records carry `kFlopsModel` so that a rate can be traced to its formula.
#pragma once
#include "attention/backend.h"

namespace dsa {

inline constexpr const char* kFlopsModel = "dsa-cost-v1";

/// Work of one call. A multiply-add counts 2.
struct Cost {
  double flops = 0;
  double bytes_read = 0;     ///< compulsory traffic, not cache misses
  double bytes_written = 0;
};

enum class Pass { kForward, kForwardBackward };

/// Causal, T = S or the last T of S keys.
///   dense 2H(D+V)P, sparse 2H(D+V)P_K, indexer 2IJP; backward: dense 2.5x, sparse 2H(3D+2V)P_K
Cost cost(Op op, Pass pass, const Problem& problem);

double visible_pairs(int64_t queries, int64_t keys);                  ///< P
double selected_pairs(int64_t queries, int64_t keys, int64_t top_k);  ///< P_K

/// FLOPs of dense attention over FLOPs of indexer + sparse attention at this problem: what work
/// alone would allow, printed beside every speed-up. No bound on time.
double flop_ratio(const Problem& problem);

}  // namespace dsa
