// The selections of the controls `random` and `oracle`: what no indexer needs, and what none can beat.
#include "attention/backend.h"
#include "attention/door.h"
#include "attention/nvtx.h"
#include "attention/ops.h"
#include "attention/random.h"
#include "attention/target.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <vector>

namespace dsa::ops {
namespace {

constexpr int64_t kRowsPerTask = 64;
constexpr int64_t kTile = 64;  ///< queries whose probabilities exist at a time

/// `count` of the numbers 0 .. `limit` - 1, every set of them as likely, ascending. Floyd's method: a
/// draw a number and no retries. `seen` is all zero before and after.
void draw_set(Random& random, int64_t limit, int64_t count, std::vector<uint64_t>& seen,
              int32_t* out) {
  const auto take = [&](uint64_t id) {
    uint64_t& word = seen[id / 64];
    const uint64_t bit = uint64_t{1} << (id % 64);
    if (word & bit) return false;
    word |= bit;
    return true;
  };
  for (int64_t last = limit - count; last < limit; ++last) {
    const auto id = static_cast<uint64_t>(last);
    if (!take(random.below(id + 1))) take(id);
  }
  for (size_t word = 0; word * 64 < static_cast<size_t>(limit); ++word) {
    for (; seen[word] != 0; seen[word] &= seen[word] - 1) {
      *out++ = static_cast<int32_t>(word * 64 + static_cast<size_t>(std::countr_zero(seen[word])));
    }
  }
}

/// The problem of selecting from whole rows of float32 (or float64) scores.
Problem selecting(Problem attention, int64_t top_k) {
  attention.top_k = top_k;
  attention.dtype = accumulation_dtype(attention.dtype);
  return attention;
}

}  // namespace

Selection random_selection(int64_t batch, int64_t queries, int64_t keys, int64_t top_k,
                           uint64_t seed) {
  require(batch >= 1 && queries >= 1 && top_k >= 1, "random_selection: ", batch, " sequences of ",
          queries, " queries with ", top_k, " keys each; all must be at least 1");
  require(keys >= queries && keys <= std::numeric_limits<int32_t>::max(),
          "random_selection: ", keys, " keys for ", queries,
          " queries; there must be at least as many, and below 2^31");
  const nvtx::Range range("random_selection", nvtx::Category::kTopK, keys);
  Selection result{at::full({batch, queries, top_k}, -1, at::kInt),
                   at::empty({batch, queries}, at::kInt)};
  int32_t* ids = result.indices.data_ptr<int32_t>();
  int32_t* count = result.count.data_ptr<int32_t>();
  at::parallel_for(0, batch * queries, kRowsPerTask, [&](int64_t begin, int64_t end) {
    std::vector<uint64_t> seen(static_cast<size_t>(keys / 64 + 1));
    for (int64_t row = begin; row < end; ++row) {
      const int64_t position = row % queries + keys - queries;
      const int64_t n = std::min(top_k, position + 1);
      Random random(seed, static_cast<uint64_t>(row / queries), static_cast<uint64_t>(position));
      count[row] = static_cast<int32_t>(n);
      draw_set(random, position + 1, n, seen, ids + row * top_k);
    }
  });
  return result;
}

Selection oracle_selection(const at::Tensor& q, const at::Tensor& k, int64_t top_k, double scale) {
  const Problem problem = attention_problem("oracle_selection", q, k, at::Tensor());
  require(top_k >= 1, "oracle_selection: top_k is ", top_k, "; it must be at least 1");
  const nvtx::Range range("oracle_selection", nvtx::Category::kIndexer, problem.keys);
  const at::NoGradGuard no_grad;
  const Backend& backend = choose_backend(Op::kSelectTopK, selecting(problem, top_k));
  const c10::ScalarType dtype = accumulation_dtype(problem.dtype);
  const at::Tensor wide_q = q.to(dtype), wide_k = k.to(dtype);
  Selection result{at::empty({problem.batch, problem.queries, top_k}, at::kInt),
                   at::empty({problem.batch, problem.queries}, at::kInt)};
  const int64_t tiles = (problem.queries + kTile - 1) / kTile;
  at::parallel_for(0, problem.batch * tiles, 1, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;  // a worker's own mode
    for (int64_t task = begin; task < end; ++task) {
      const int64_t b = task / tiles, first = task % tiles * kTile;
      const int64_t rows = std::min(kTile, problem.queries - first);
      const RowTile tile{first, rows, first + rows + problem.keys - problem.queries};
      const at::Tensor p = head_mean_attention(wide_q[b], wide_k[b], at::Tensor(), scale, tile);
      const Selection best = backend.select_top_k(p.unsqueeze(0), top_k);
      result.indices[b].narrow(0, first, rows).copy_(best.indices[0]);
      result.count[b].narrow(0, first, rows).copy_(best.count[0]);
    }
  });
  return result;
}

}  // namespace dsa::ops
