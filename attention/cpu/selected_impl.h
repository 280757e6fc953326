// Indexer scores of the selected pairs only, and their gradients, for any ISA. Bound: gathered rows
// of width * 4 bytes, one a pair. The backward pass owns queries for dq and dweight, and keys (by
// the transposed selection) for dk; it recomputes q . k rather than storing a value per head.
#pragma once
#include "attention/cpu/gemm_impl.h"
#include "attention/cpu/select_kernels.h"

#include <cstddef>

namespace dsa::cpu {

template <class Isa>
struct Selected {
  using Reg = typename Isa::Reg;
  static constexpr int64_t kWidth = Isa::kWidth;

  /// kWidth rows, for as many inner products side by side.
  struct Rows {
    const float* at[kWidth];
  };

  /// Lane r is fixed . rows.at[r].
  static Reg products(const float* fixed, const Rows& rows, int64_t width) {
    Reg sums[kWidth];
#pragma GCC unroll 16
    for (int64_t r = 0; r < kWidth; ++r) sums[r] = Isa::zero();
    int64_t j = 0;
    for (; j + kWidth <= width; j += kWidth) {
      const Reg x = Isa::load(fixed + j);
#pragma GCC unroll 16
      for (int64_t r = 0; r < kWidth; ++r)
        sums[r] = Isa::fma(x, Isa::load(rows.at[r] + j), sums[r]);
    }
    if (j < width) {
      const auto valid = Isa::first(width - j);
      const Reg x = Isa::load(fixed + j, valid);
#pragma GCC unroll 16
      for (int64_t r = 0; r < kWidth; ++r)
        sums[r] = Isa::fma(x, Isa::load(rows.at[r] + j, valid), sums[r]);
    }
    return Isa::sum_each(sums);
  }

  /// The rows `ids` of a matrix of rows of `stride` floats; past `n` the last one again.
  static Rows pick(const float* matrix, const int32_t* ids, int64_t n, int64_t stride) {
    Rows rows;
    for (int64_t r = 0; r < kWidth; ++r) rows.at[r] = matrix + ids[r < n ? r : n - 1] * stride;
    return rows;
  }

  static void scores(const IndexerSequence& seq, const SelectedKeys& selected, Range queries,
                     float* out) {
    const int64_t top_k = selected.top_k;
    for (int64_t t = queries.first; t < queries.last; ++t) {
      const int32_t* ids = selected.ids + t * top_k;
      const int64_t count = selected.count[t];
      for (int64_t slot = 0; slot < count; slot += kWidth) {
        const Rows keys = pick(seq.k, ids + slot, count - slot, seq.width);
        Reg sum = Isa::zero();
        for (int64_t i = 0; i < seq.heads; ++i) {
          const int64_t row = t * seq.heads + i;
          const Reg relu =
              Isa::max(Isa::zero(), products(seq.q + row * seq.width, keys, seq.width));
          sum = Isa::fma(Isa::set1(seq.weight[row]), relu, sum);
        }
        Isa::store(out + t * top_k + slot, sum, Isa::first(count - slot));
      }
      for (int64_t slot = count; slot < top_k; ++slot) out[t * top_k + slot] = -__builtin_inff();
    }
  }

  static int64_t padded(int64_t top_k) {
    return (top_k + kWidth - 1) / kWidth * kWidth;
  }

  static int64_t gradient_scratch(int64_t heads, int64_t top_k) {
    return heads * padded(top_k);
  }

  static void backward_queries(const IndexerSequence& seq, const SelectedKeys& selected,
                               const float* dscores, Range queries, float* scratch, float* dq,
                               float* dweight) {
    const int64_t top_k = selected.top_k, row_stride = padded(top_k);
    for (int64_t t = queries.first; t < queries.last; ++t) {
      const int32_t* ids = selected.ids + t * top_k;
      const int64_t count = selected.count[t];
      for (int64_t i = 0; i < seq.heads; ++i) {
        const int64_t row = t * seq.heads + i;
        const Reg weight = Isa::set1(seq.weight[row]);
        Reg weight_sum = Isa::zero();
        for (int64_t slot = 0; slot < count; slot += kWidth) {
          const Rows keys = pick(seq.k, ids + slot, count - slot, seq.width);
          const Reg x = products(seq.q + row * seq.width, keys, seq.width);
          const Reg g = Isa::load(dscores + t * top_k + slot, Isa::first(count - slot));
          const auto is_active = Isa::gt(x, Isa::zero());
          weight_sum = Isa::fma(g, Isa::keep(is_active, x), weight_sum);
          Isa::store(scratch + i * row_stride + slot, Isa::keep(is_active, Isa::mul(g, weight)));
        }
        dweight[row] = Isa::reduce_add(weight_sum);
      }
      float* dq_t = dq + t * seq.heads * seq.width;
      __builtin_memset(dq_t, 0, static_cast<size_t>(seq.heads * seq.width) * sizeof(float));
      Gemm<Isa>::accumulate({scratch, row_stride, 1}, seq.heads,
                            PickedRows{seq.k, seq.width, ids, seq.width}, count, dq_t);
    }
  }

  /// dscore * weight of head i where q . k > 0, for kWidth queries of one key.
  static Reg product_gradients(const IndexerSequence& seq, int64_t key, int64_t head,
                               const int32_t* queries, const float* gradients, int64_t n) {
    const Rows rows = pick(seq.q + head * seq.width, queries, n, seq.heads * seq.width);
    const Reg x = products(seq.k + key * seq.width, rows, seq.width);
    alignas(64) float weights[kWidth];
    for (int64_t r = 0; r < kWidth; ++r) {
      weights[r] = seq.weight[queries[r < n ? r : n - 1] * seq.heads + head];
    }
    const Reg g = Isa::load(gradients, Isa::first(n));
    return Isa::keep(Isa::gt(x, Isa::zero()), Isa::mul(g, Isa::load(weights)));
  }

  static void backward_keys(const IndexerSequence& seq, const KeyLists& lists, Range keys,
                            float* dk) {
    alignas(64) float dx[kWidth];
    for (int64_t s = keys.first; s < keys.last; ++s) {
      float* dk_s = dk + s * seq.width;
      __builtin_memset(dk_s, 0, static_cast<size_t>(seq.width) * sizeof(float));
      for (int64_t entry = lists.begin[s]; entry < lists.begin[s + 1]; entry += kWidth) {
        const int64_t left = lists.begin[s + 1] - entry;
        const int64_t n = left < kWidth ? left : kWidth;
        const int32_t* queries = lists.query + entry;
        for (int64_t i = 0; i < seq.heads; ++i) {
          Isa::store(dx, product_gradients(seq, s, i, queries, lists.gradient + entry, n));
          const PickedRows rows{seq.q + i * seq.width, seq.width, queries, seq.heads * seq.width};
          Gemm<Isa>::accumulate({dx, 0, 1}, 1, rows, n, dk_s);
        }
      }
    }
  }
};

}  // namespace dsa::cpu
