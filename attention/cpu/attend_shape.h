// Sizes of one sparse-attention call, and how it is cut into blocks and panels.
#pragma once
#include "attention/ops.h"

#include <ATen/Parallel.h>

#include <algorithm>

namespace dsa::cpu {

/// Rows of one panel: half of the 1 MiB L2 cache of Zen 4, a quarter of newer Intel cores'.
inline constexpr int64_t kPanelBytes = int64_t{512} << 10;

struct AttendShape {
  int64_t batch, queries, keys, heads, kv_heads, width, v_width, top_k;
  int64_t padded, v_padded;  ///< widths rounded up to whole registers

  AttendShape(const at::Tensor& q, const at::Tensor& k, int64_t v, const ops::Selection& selection,
              int64_t lanes)
      : batch(q.size(0)),
        queries(q.size(1)),
        keys(k.size(1)),
        heads(q.size(2)),
        kv_heads(k.size(2)),
        width(q.size(3)),
        v_width(v),
        top_k(selection.indices.size(2)),
        padded((width + lanes - 1) / lanes * lanes),
        v_padded((v + lanes - 1) / lanes * lanes) {}

  int64_t group() const { return heads / kv_heads; }

  /// Depends on the shape alone: panels decide the order of sums. With many heads a group a row is
  /// read again from the L1 cache by each of them, and panels would only cost.
  int64_t panel(int64_t row_floats) const {
    if (group() >= 8) return keys;
    return std::max<int64_t>(64, kPanelBytes / (row_floats * int64_t{sizeof(float)}));
  }

  /// Queries of a block: scratch of at most 2 MiB, and enough blocks to share out.
  int64_t block(int64_t bytes_per_query, int64_t blocks_per_query_range) const {
    const int64_t fit = (int64_t{2} << 20) / bytes_per_query;
    const int64_t fair =
        queries * blocks_per_query_range / (4 * int64_t{at::get_num_threads()}) + 1;
    return std::clamp<int64_t>(std::min(fit, std::max<int64_t>(fair, 16)), 1, 256);
  }
};

}  // namespace dsa::cpu
