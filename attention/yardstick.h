// Plain torch calls that kernel benchmarks stand beside. They keep no contract of ops.h (ids come
// unsorted, ties fall anywhere, scores may be rounded), so they are no rows of the backend table:
// nothing but a benchmark may call them.
#pragma once
#include "attention/backend.h"

namespace dsa {

struct Yardstick {
  std::string name;         ///< takes the place of a backend in names and labels
  std::string family;       ///< of kernel benchmarks: name(op), or kGemmFamily
  std::string description;  ///< one line, printed by `dsa-bench list` and stored in the record
};

inline constexpr const char* kGemmFamily = "gemm";
inline constexpr int64_t kGemmSize = 2048;  ///< N of the N x N x N product

const std::vector<Yardstick>& yardsticks();
/// Null if there is none called `name`.
const Yardstick* yardstick(const std::string& name);

namespace yardsticks_of_torch {

/// Scores and ids as at::topk gives them, for blocks of queries one after the other: {scores [t, k],
/// ids int64 [t, k], ...}. Keys a query may not see have score -inf.
using Best = std::vector<at::Tensor>;

/// at::topk, sorted, over whole rows of `scores` [1, T, S], future keys -inf.
Best top_k(const at::Tensor& scores, int64_t top_k);

/// Indexer and top-k as one writes them in torch, in the dtype of q: product, relu, weighted sum,
/// topk, in blocks of queries against all keys, or (`causal`) those the block may see. The size of
/// the blocks is what was fastest on the first call of a shape. Batch 1.
Best indexer_top_k(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                   int64_t top_k, bool causal);

/// a b, both [N, N].
at::Tensor gemm(const at::Tensor& a, const at::Tensor& b);

}  // namespace yardsticks_of_torch
}  // namespace dsa
