// The one place that knows how much work an operation is: FLOPs and compulsory bytes, derived in
// docs/attention.md. Records carry `kFlopsModel` so that a rate can be traced to its formula.
#pragma once
#include "attention/backend.h"

namespace dsa {

inline constexpr const char* kFlopsModel = "dsa-cost-v1";

/// Work of one call. A multiply-add counts 2.
struct Cost {
  double flops = 0;
  double bytes_read = 0;  ///< compulsory traffic, not cache misses
  double bytes_written = 0;
};

enum class Pass { kForward, kForwardBackward };

/// Causal, T = S or the last T of S keys. P = visible pairs, P_K = selected pairs.
///   dense     2 H (D+V) P      backward 2.5 x forward
///   sparse    2 H (D+V) P_K    backward 2 H (3D+2V) P_K: logits again, dp, dq, dk, dv
///   indexer   2 I J P          backward 2 I J 3P: x again, dq, dk; of selected scores with P_K
///   mass      2 H D P_K        top-k: no FLOPs, bytes only
/// Bytes are those of inputs and outputs, each once; of k and v the rows that can be selected.
Cost cost(Op op, Pass pass, const Problem& problem);

double visible_pairs(int64_t queries, int64_t keys);                  ///< P of one sequence
double selected_pairs(int64_t queries, int64_t keys, int64_t top_k);  ///< P_K of one sequence

/// FLOPs of dense attention over FLOPs of indexer + sparse attention, forward: what work alone would
/// allow, printed beside every speed-up. No bound on time.
double flop_ratio(const Problem& problem);

/// The same where the two sides have other widths: DeepSeek runs dense MLA as MHA (D=192, V=128) and
/// sparse MLA as MQA (D=576, V=512).
double flop_ratio(const Problem& dense, const Problem& sparse);

}  // namespace dsa
