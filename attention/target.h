// Attention probabilities averaged over heads, in tiles of queries: what stage 1 teaches the indexer,
// what `oracle` selects by, and what selections are judged by. Private to attention/ and bench/.
#pragma once
#include <ATen/Functions.h>

namespace dsa {

/// The queries `first` .. `first + rows` of a sequence and the keys they see; the last `rows` keys are
/// at the queries' own positions.
struct RowTile {
  int64_t first, rows, keys;

  at::Tensor of_queries(const at::Tensor& x) const { return x.narrow(0, first, rows); }
  at::Tensor of_keys(const at::Tensor& x) const { return x.narrow(0, 0, keys); }
  at::Tensor own_keys(const at::Tensor& matrix) const {
    return matrix.narrow(1, keys - rows, rows);
  }
  /// bool [rows, rows]: which of own_keys lie in the future.
  at::Tensor future() const { return at::ones({rows, rows}, at::kBool).triu_(1); }
};

/// Mean over heads of softmax(scale * q . k) [rows, keys], 0 in the future. One head at a time: two
/// matrices of that size exist at most.
/// @param q    [T, H, D] of one sequence, @param k [S, G, D]
/// @param lse  [T, H] of dense attention, which spares the softmax; or undefined
at::Tensor head_mean_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& lse,
                               double scale, const RowTile& tile);

}  // namespace dsa
