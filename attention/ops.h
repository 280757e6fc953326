// The operations of DeepSeek Sparse Attention, and the dense attention it is compared with.
//
// Each function checks its shapes at the door, opens one NVTX range of its own name, and runs on
// the fastest backend that accepts the problem (or the one pinned by dsa::UseBackend). Kernels live
// behind backend.h; nothing outside attention/ calls them.
//
// Shape letters, the same in every file of this project:
//   B  batch                 H  query heads                   I  indexer heads
//   T  query tokens          G  key/value heads, G divides H  J  indexer width per head
//   S  key tokens, S >= T    D  query/key width per head      K  selected keys per query
//   L  tokens when T = S     V  value width per head
// The last T of the S keys sit at the queries' own positions: query t sees keys s <= t + S - T.
#pragma once
#include "attention/fields.h"

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace dsa::ops {

/// Which keys each query may read. The set is shared by all heads of a query.
struct Selection {
  at::Tensor indices;  ///< int32 [B, T, K], ascending, padded at the end with -1
  at::Tensor count;    ///< int32 [B, T], number of valid entries, 0..K
};

struct AttentionResult {
  at::Tensor out;  ///< [B, T, H, V], dtype of q; zero where a query has no key
  at::Tensor
      lse;  ///< float32 (float64 for float64 q) [B, T, H], natural log-sum-exp; -inf if no key
};

/// Lightning-indexer score of every (query, key) pair [DeepSeek-V3.2 eq. 1]:
///   score[b,t,s] = sum_i weight[b,t,i] * relu(q[b,t,i,:] . k[b,s,:])
/// Keys after the query are -inf. Accumulates in float32 (float64 for float64 inputs).
/// Differentiable in q, k, weight; the gradient of relu at 0 is 0.
/// @param q       [B, T, I, J]
/// @param k       [B, S, J]      one key per token, shared by the indexer heads
/// @param weight  [B, T, I]      already carries every constant scale (I^-1/2 J^-1/2)
/// @return float32 [B, T, S]; costs 4*B*T*S bytes, so long contexts use `indexer_select`
at::Tensor indexer_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight);

/// The `top_k` best-scored keys of each query, never one after the query. Ties go to the earlier
/// key, so every backend agrees. A query with fewer than `top_k` visible keys selects them all.
/// Not differentiable.
/// @param scores  float32 (or float64) [B, T, S]; only s <= t + S - T is read
/// @throws Error naming the first (b, t, s) whose score is NaN
Selection select_top_k(const at::Tensor& scores, int64_t top_k);

/// `select_top_k(indexer_scores(...))` without storing the score matrix: O(B*T*K) memory.
Selection indexer_select(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                         int64_t top_k);

/// Indexer scores of the selected pairs only. Differentiable in q, k, weight.
/// @return float32 [B, T, K], -inf at padded entries; O(B*T*K) memory
at::Tensor selected_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                           const Selection& selection);

/// Softmax attention of each query over its selected keys only. Differentiable in q, k, v.
/// The selection may hold -1 anywhere in a row and need not be sorted (it is normalised at the
/// door); ids < -1, ids >= S, future ids and repeated ids are an Error.
/// @param q      [B, T, H, D]
/// @param k      [B, S, G, D]
/// @param v      [B, S, G, V]; as k.narrow(-1, 0, V) of a contiguous k (MLA in MQA mode) a row of both
///               need only be read once
/// @param scale  multiplies q . k before the softmax, usually 1/sqrt(D)
AttentionResult sparse_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const Selection& selection, double scale);

/// Causal softmax attention over every visible key: the baseline, and what sparse_attention must
/// equal when K = S.
AttentionResult dense_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                double scale);

/// What the indexer learns to imitate: attention probabilities over the selection, averaged over
/// heads (they sum to 1). Carries no gradient.
/// @param lse  of sparse_attention on the same selection
/// @return float32 [B, T, K], zero at padded entries
at::Tensor selected_attention_mass(const at::Tensor& q, const at::Tensor& k,
                                   const Selection& selection, const at::Tensor& lse, double scale);

/// Mean over queries of KL(target || softmax(scores over the selection)), in nats [section 2.1].
/// Differentiable in scores only, with d/dscore = softmax(score) - target (per query, / B*T).
at::Tensor indexer_kl(const at::Tensor& selected_scores, const at::Tensor& target,
                      const Selection& selection);

/// The lightning indexer's tensors, as `indexer_scores` takes them.
struct IndexTensors {
  at::Tensor q, k, weight;  ///< [B, T, I, J], [B, S, J], [B, T, I]
};

/// The same loss over every visible key, before there is a selection (stage 1, the dense warm-up):
/// target = probabilities of dense attention, averaged over heads. Differentiable in `index` only.
/// Works in tiles of 64 queries: O(64*S*I) memory a thread, loss and gradients in one pass.
/// @param q    [B, T, H, D] of attention
/// @param k    [B, S, G, D] of attention
/// @param lse  of dense_attention
at::Tensor dense_indexer_kl(const IndexTensors& index, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& lse, double scale);

/// A selection fit for kernels: rows ascending with -1 only at the end, counts filled in.
/// Returns its argument unchanged (no copy) when it already is; one vectorised pass.
/// @throws Error naming the first (b, t, slot) with an id < -1, >= S, in the future or repeated
Selection checked(const Selection& selection, int64_t keys);

/// The K most recent keys of each query: the `window` control. Same layout as select_top_k.
Selection window_selection(int64_t batch, int64_t queries, int64_t keys, int64_t top_k);

/// K distinct visible keys of each query, every set as likely: the `random` control. Which ones
/// depends on seed, place in the batch and position alone, never on threads or on what was drawn before.
Selection random_selection(int64_t batch, int64_t queries, int64_t keys, int64_t top_k,
                           uint64_t seed);

/// The K keys of largest dense attention, mean over heads, exactly: the `oracle` control, which does
/// all the work that an indexer saves. Works in tiles of 64 queries: O(64*S + T*K) memory.
/// @param q  [B, T, H, D] of attention
/// @param k  [B, S, G, D] of attention
Selection oracle_selection(const at::Tensor& q, const at::Tensor& k, int64_t top_k, double scale);

}  // namespace dsa::ops
