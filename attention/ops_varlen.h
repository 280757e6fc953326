// The operations of ops.h on sequences of different lengths, packed one after the other without
// padding (what other libraries call cu_seqlens). Each sequence runs by itself: no query sees a key
// of another one, and ids count from the start of their own sequence.
#pragma once
#include "attention/ops.h"

namespace dsa::ops {

/// Where sequences begin in the packed tensors: N + 1 ascending numbers from 0 to the token count.
/// The last T of a sequence's S keys sit at its queries' positions. A sequence may have no queries.
struct SequenceOffsets {
  at::Tensor queries;  ///< int32 or int64 [N + 1], cu_seqlens of q
  at::Tensor keys;     ///< of k and v
};

/// @param q       [sum of T, I, J]
/// @param k       [sum of S, J]
/// @param weight  [sum of T, I]
/// @return indices [sum of T, K] and count [sum of T]
/// @throws Error naming the first sequence whose offsets do not fit
Selection indexer_select(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                         const SequenceOffsets& offsets, int64_t top_k);

/// Differentiable in q, k, v.
/// @param q          [sum of T, H, D]
/// @param k          [sum of S, G, D]
/// @param v          [sum of S, G, V]
/// @param selection  as indexer_select above returns it
/// @return out [sum of T, H, V] and lse [sum of T, H]
AttentionResult sparse_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const Selection& selection, const SequenceOffsets& offsets,
                                 double scale);

/// The same over every visible key.
AttentionResult dense_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const SequenceOffsets& offsets, double scale);

}  // namespace dsa::ops
