// Gradients of the indexer scores of every visible pair, for any ISA. Both passes recompute q . k:
// one owns queries (dq, dweight), one owns keys (dk), so nothing is shared and every sum has one
// order.
#pragma once
#include "attention/cpu/gemm_impl.h"
#include "attention/cpu/score_tile_impl.h"

#include <cstddef>

namespace dsa::cpu {

template <class Isa>
struct IndexerGradient {
  using Reg = typename Isa::Reg;
  using Dense = TileScorer<Isa>;
  static constexpr int64_t kWidth = Isa::kWidth;
  static constexpr int64_t kVectors = Dense::kVectors;
  static constexpr int64_t kHeads = Dense::kHeads;
  static constexpr int64_t kKeyBlock = Dense::kKeyBlock;

  /// dx [heads][key_block] = dscore * weight where q . k > 0, else 0, for one query; adds
  /// dscore * relu(q . k) to weight_sums [heads][kWidth] if there are any.
  template <int64_t heads>
  static void product_gradients(const IndexerSequence& seq, int64_t row, int64_t first_key,
                                const float* dscores, int64_t n, float* dx, float* weight_sums) {
    const auto p = Dense::template products<heads>(seq.q + row * seq.width,
                                                   seq.packed + first_key * seq.width, seq.width);
#pragma GCC unroll 6
    for (int64_t v = 0; v < kVectors; ++v) {
      const int64_t left = n - v * kWidth;
      const auto valid = Isa::first(left > 0 ? left : 0);
      const Reg g = Isa::load(dscores + v * kWidth, valid);
#pragma GCC unroll 4
      for (int64_t i = 0; i < heads; ++i) {
        const auto is_active = Isa::both(valid, Isa::gt(p.sum[i][v], Isa::zero()));
        const Reg gradient = Isa::mul(g, Isa::set1(seq.weight[row + i]));
        Isa::store(dx + i * kKeyBlock + v * kWidth, Isa::keep(is_active, gradient));
        if (weight_sums == nullptr) continue;
        float* sums = weight_sums + i * kWidth;
        const Reg relu = Isa::keep(is_active, p.sum[i][v]);
        Isa::store(sums, Isa::fma(g, relu, Isa::load(sums)));
      }
    }
  }

  static void all_product_gradients(const IndexerSequence& seq, int64_t query, int64_t first_key,
                                    const float* dscores, int64_t n, float* dx,
                                    float* weight_sums) {
    for (int64_t head = 0; head < seq.heads; head += kHeads) {
      const int64_t row = query * seq.heads + head;
      float* out = dx + head * kKeyBlock;
      float* sums = weight_sums == nullptr ? nullptr : weight_sums + head * kWidth;
      switch (seq.heads - head) {
        case 1:
          product_gradients<1>(seq, row, first_key, dscores, n, out, sums);
          break;
        case 2:
          product_gradients<2>(seq, row, first_key, dscores, n, out, sums);
          break;
        case 3:
          product_gradients<3>(seq, row, first_key, dscores, n, out, sums);
          break;
        default:
          product_gradients<4>(seq, row, first_key, dscores, n, out, sums);
      }
    }
  }

  static int64_t query_scratch(int64_t heads) {
    return heads * (kKeyBlock + kWidth);
  }

  static void queries(const IndexerSequence& seq, const float* dscores, Range range, float* scratch,
                      float* dq, float* dweight) {
    float* weight_sums = scratch + seq.heads * kKeyBlock;
    for (int64_t t = range.first; t < range.last; ++t) {
      float* dq_t = dq + t * seq.heads * seq.width;
      __builtin_memset(dq_t, 0, static_cast<size_t>(seq.heads * seq.width) * sizeof(float));
      __builtin_memset(weight_sums, 0, static_cast<size_t>(seq.heads * kWidth) * sizeof(float));
      const int64_t visible = Dense::visible(seq, t);
      for (int64_t s = 0; s < visible; s += kKeyBlock) {
        const int64_t n = Dense::least(kKeyBlock, visible - s);
        all_product_gradients(seq, t, s, dscores + t * seq.keys + s, n, scratch, weight_sums);
        Gemm<Isa>::accumulate({scratch, kKeyBlock, 1}, seq.heads,
                              ConsecutiveRows{seq.k + s * seq.width, seq.width}, n, dq_t);
      }
      for (int64_t i = 0; i < seq.heads; ++i)
        dweight[t * seq.heads + i] = Isa::reduce_add(Isa::load(weight_sums + i * kWidth));
    }
  }

  /// Queries whose product gradients are made before they are multiplied with q: enough rows that
  /// dk is loaded and stored rarely, few enough that they stay in L1.
  static int64_t query_group(int64_t heads) {
    return heads < 64 ? 64 / heads : 1;
  }

  static int64_t key_scratch(int64_t heads) {
    return query_group(heads) * heads * kKeyBlock;
  }

  static void keys(const IndexerSequence& seq, const float* dscores, Range range, float* scratch,
                   float* dk) {
    const int64_t first = range.first, n = range.last - range.first;
    float* dk_block = dk + first * seq.width;
    __builtin_memset(dk_block, 0, static_cast<size_t>(n * seq.width) * sizeof(float));
    const int64_t group = query_group(seq.heads);
    for (int64_t t = Dense::first_query(seq, first); t < seq.queries; t += group) {
      const int64_t queries = Dense::least(group, seq.queries - t);
      for (int64_t r = 0; r < queries; ++r) {
        const int64_t seen = Dense::least(n, Dense::visible(seq, t + r) - first);
        all_product_gradients(seq, t + r, first, dscores + (t + r) * seq.keys + first, seen,
                              scratch + r * seq.heads * kKeyBlock, nullptr);
      }
      const float* q = seq.q + t * seq.heads * seq.width;
      Gemm<Isa>::accumulate({scratch, 1, kKeyBlock}, n, ConsecutiveRows{q, seq.width},
                            queries * seq.heads, dk_block);
    }
  }
};

}  // namespace dsa::cpu
