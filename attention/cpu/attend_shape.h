// Sizes of one sparse-attention call, and how it is cut into blocks and panels.
#pragma once
#include "attention/ops.h"

#include <ATen/Parallel.h>

#include <algorithm>

namespace dsa::cpu {

/// Of one panel: it, those on their way and a block's own data share an L2 cache. docs/kernels.md has the times.
inline constexpr int64_t kForwardPanelBytes = int64_t{32} << 10;
inline constexpr int64_t kBackwardPanelBytes = int64_t{64} << 10;

inline bool is_bf16(const at::Tensor& t) {
  return t.scalar_type() == at::kBFloat16;
}

/// Where element i of a contiguous tensor lies, whatever its type.
inline const void* element(const at::Tensor& t, int64_t i) {
  return static_cast<const char*>(t.const_data_ptr()) + i * static_cast<int64_t>(t.element_size());
}
inline void* mutable_element(at::Tensor& t, int64_t i) {
  return static_cast<char*>(t.mutable_data_ptr()) + i * static_cast<int64_t>(t.element_size());
}

/// Packed rows of the heads that all blocks walk before the next heads: a share of the last cache level.
inline constexpr int64_t kHeadsBytes = int64_t{8} << 20;

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

  /// Panels of 1 << shift keys with `row_floats` floats each. Depends on the shape alone: panels
  /// decide the order of sums.
  static int32_t panel_shift(int64_t row_floats, int64_t bytes) {
    int32_t shift = 6;
    while ((row_floats * int64_t{sizeof(float)} << (shift + 1)) <= bytes) ++shift;
    return shift;
  }

  /// With many heads a group a row is read again from the L1 cache by each of them, and panels
  /// would only cost.
  int32_t forward_panel_shift() const {
    return group() >= 8 ? 31 : panel_shift(std::max(padded, v_padded), kForwardPanelBytes);
  }

  /// Packed rows of one kv head.
  int64_t head_bytes() const { return keys * (padded + v_padded) * int64_t{sizeof(float)}; }

  /// kv heads whose packed rows are walked by all blocks before the next ones'.
  int64_t heads_at_once() const {
    return std::clamp<int64_t>(kHeadsBytes / std::max<int64_t>(head_bytes(), 1), 1, kv_heads);
  }

  /// What the rows of the other heads would take: a call may use as much for the order of its walks.
  int64_t waiting_bytes() const { return (kv_heads - heads_at_once()) * head_bytes(); }

  /// Queries of a block: scratch of at most 2 MiB, and enough blocks to share out.
  int64_t block(int64_t bytes_per_query, int64_t blocks_per_query_range) const {
    const int64_t fit = (int64_t{2} << 20) / bytes_per_query;
    const int64_t fair =
        queries * blocks_per_query_range / (4 * int64_t{at::get_num_threads()}) + 1;
    return std::clamp<int64_t>(std::min(fit, std::max<int64_t>(fair, 16)), 1, 256);
  }
};

/// Into how many tasks the heads of a block of queries are split: few blocks are shared out by heads,
/// though what is made of their ids is then made more than once.
inline int64_t head_parts(int64_t blocks, int64_t kv_heads) {
  return std::clamp<int64_t>((int64_t{4} * at::get_num_threads() + blocks - 1) / blocks, 1,
                             kv_heads);
}

}  // namespace dsa::cpu
