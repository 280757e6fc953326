// Which keys a query may read: checking what callers bring, and the window control.
#include "attention/ops.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <vector>

namespace dsa::ops {
namespace {

constexpr int64_t kRowsPerTask = 64;

struct Rows {
  int64_t rows, queries, keys, top_k;
  /// Last key the query of `row` may read.
  int64_t last_key(int64_t row) const { return row % queries + keys - queries; }
};

/// Branch-free over the row, so that the compiler vectorises it: this runs on every call.
bool fits(const int32_t* ids, int64_t count, int64_t top_k, int64_t last_key) {
  if (count < 0 || count > top_k) return false;
  int bad = 0;
  for (int64_t i = 1; i < count; ++i) bad |= ids[i] <= ids[i - 1];
  for (int64_t i = count; i < top_k; ++i) bad |= ids[i] != -1;
  return !bad && (count == 0 || (ids[0] >= 0 && ids[count - 1] <= last_key));
}

bool all_fit(const Selection& selection, const Rows& shape) {
  const int32_t* ids = selection.indices.const_data_ptr<int32_t>();
  const int32_t* count = selection.count.const_data_ptr<int32_t>();
  std::atomic<bool> fit = true;
  at::parallel_for(0, shape.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end && fit; ++row)
      if (!fits(ids + row * shape.top_k, count[row], shape.top_k, shape.last_key(row))) fit = false;
  });
  return fit;
}

/// Rewrites one row; false if an id is not allowed (then the row is left half done).
bool normalise_row(int32_t* ids, int32_t& count, int64_t top_k, int64_t last_key) {
  const auto end = std::remove(ids, ids + top_k, -1);
  std::sort(ids, end);
  count = static_cast<int32_t>(end - ids);
  std::fill(end, ids + top_k, -1);
  return fits(ids, count, top_k, last_key);
}

[[noreturn]] void throw_bad_row(const int32_t* ids, int64_t row, const Rows& shape) {
  const int64_t last_key = shape.last_key(row);
  std::vector<int32_t> seen;
  for (int64_t slot = 0; slot < shape.top_k; ++slot) {
    const int64_t id = ids[slot];
    if (id == -1) continue;
    const bool repeated = std::find(seen.begin(), seen.end(), ids[slot]) != seen.end();
    seen.push_back(ids[slot]);
    if (id >= 0 && id <= last_key && !repeated) continue;

    std::ostringstream sentence;
    sentence << "selection: id " << id << " at (batch " << row / shape.queries << ", query "
             << row % shape.queries << ", slot " << slot << ") ";
    if (id < -1)
      sentence << "is negative; only -1 may stand for no key";
    else if (id >= shape.keys)
      sentence << "is outside the " << shape.keys << " keys; ids count from 0 within a sequence";
    else if (id > last_key)
      sentence << "lies in the future; this query sees keys up to " << last_key;
    else
      sentence << "is repeated; name each key once";
    throw Error(sentence.str());
  }
  TORCH_INTERNAL_ASSERT(false, "row ", row, " was rejected without a reason");
}

Selection normalised(const at::Tensor& indices, const Rows& shape) {
  Selection result{indices.clone(), at::empty({indices.size(0), indices.size(1)}, at::kInt)};
  int32_t* ids = result.indices.data_ptr<int32_t>();
  int32_t* count = result.count.data_ptr<int32_t>();
  std::atomic<int64_t> first_bad = shape.rows;
  at::parallel_for(0, shape.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      if (normalise_row(ids + row * shape.top_k, count[row], shape.top_k, shape.last_key(row)))
        continue;
      int64_t known = first_bad;
      while (row < known && !first_bad.compare_exchange_weak(known, row)) {
      }
      return;
    }
  });
  if (first_bad < shape.rows)
    throw_bad_row(indices.const_data_ptr<int32_t>() + first_bad * shape.top_k, first_bad, shape);
  return result;
}

}  // namespace

Selection checked(const Selection& selection, int64_t keys) {
  const at::Tensor& ids = selection.indices;
  require(ids.defined() && ids.dim() == 3 && ids.scalar_type() == at::kInt,
          "selection: indices must be an int32 tensor [B, T, K]");
  require(keys >= ids.size(1), "selection: ", ids.size(1), " queries but only ", keys,
          " keys; there must be at least as many keys");
  const at::Tensor& count = selection.count;
  require(!count.defined() || (count.scalar_type() == at::kInt && count.dim() == 2 &&
                               count.size(0) == ids.size(0) && count.size(1) == ids.size(1)),
          "selection: count must be an int32 tensor [B, T], or undefined to be filled in");

  const Rows shape{ids.size(0) * ids.size(1), ids.size(1), keys, ids.size(2)};
  const bool plain = ids.is_cpu() && ids.is_contiguous() && count.defined() && count.is_cpu() &&
                     count.is_contiguous();
  if (plain && all_fit(selection, shape)) return selection;

  const at::Tensor host = ids.cpu().contiguous();
  Selection result = normalised(host, shape);
  return {result.indices.to(ids.device()), result.count.to(ids.device())};
}

Selection window_selection(int64_t batch, int64_t queries, int64_t keys, int64_t top_k) {
  require(batch >= 1 && queries >= 1 && top_k >= 1, "window_selection: ", batch, " sequences of ",
          queries, " queries with ", top_k, " keys each; all must be at least 1");
  require(keys >= queries && keys <= std::numeric_limits<int32_t>::max(),
          "window_selection: ", keys, " keys for ", queries,
          " queries; there must be at least as many, and below 2^31");
  Selection result{at::full({batch, queries, top_k}, -1, at::kInt),
                   at::empty({batch, queries}, at::kInt)};
  int32_t* ids = result.indices.data_ptr<int32_t>();
  int32_t* count = result.count.data_ptr<int32_t>();
  at::parallel_for(0, batch * queries, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t visible = row % queries + keys - queries + 1;
      const int64_t n = std::min(top_k, visible);
      count[row] = static_cast<int32_t>(n);
      for (int64_t i = 0; i < n; ++i) ids[row * top_k + i] = static_cast<int32_t>(visible - n + i);
    }
  });
  return result;
}

}  // namespace dsa::ops
