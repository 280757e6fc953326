// Dense kernels of the lightning indexer, for any ISA: scores of every visible key, the fused
// top-k over them, and the gradients. Bound: fused multiply-adds. Packed keys (24 KiB a block at
// width 64) sit in L1 while a block of queries streams over them.
#pragma once
#include "attention/cpu/gemm_impl.h"
#include "attention/cpu/top_k_impl.h"

namespace dsa::cpu {

template <class Isa>
struct Indexer {
  using Reg = typename Isa::Reg;
  using Mask = typename Isa::Mask;
  static constexpr int64_t kWidth = Isa::kWidth;
  static constexpr int64_t kVectors = kWidth == 16 ? 6 : kWidth == 8 ? 3 : 2;
  static constexpr int64_t kHeads = 4;  // kHeads * kVectors sums fill the register file
  static constexpr int64_t kKeyBlock = kVectors * kWidth;
  static constexpr int64_t kChunk = 1024 / kKeyBlock * kKeyBlock;  ///< keys of a score tile
  static_assert(kChunk <= kTileStride);

  static int64_t visible(const IndexerSequence& seq, int64_t query) {
    return query + 1 + seq.keys - seq.queries;
  }
  /// The first query that sees `key`.
  static int64_t first_query(const IndexerSequence& seq, int64_t key) {
    const int64_t query = key - (seq.keys - seq.queries);
    return query > 0 ? query : 0;
  }
  static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

  static void pack_keys(const IndexerSequence& seq, Range blocks, float* packed) {
    for (int64_t block = blocks.first; block < blocks.last; ++block) {
      float* out = packed + block * seq.width * kKeyBlock;
      const int64_t first = block * kKeyBlock, n = least(kKeyBlock, seq.keys - first);
      for (int64_t j = 0; j < seq.width; ++j, out += kKeyBlock) {
        const float* column = seq.k + first * seq.width + j;
        for (int64_t s = 0; s < n; ++s) out[s] = column[s * seq.width];
        for (int64_t s = n; s < kKeyBlock; ++s) out[s] = 0;
      }
    }
  }

  /// Inner products of `heads` query rows with one block of packed keys.
  template <int64_t heads>
  struct Products {
    Reg sum[heads][kVectors];
  };

  template <int64_t heads>
  [[gnu::always_inline]] static Products<heads> products(const float* q, const float* packed,
                                                         int64_t width) {
    Products<heads> p;
#pragma GCC unroll 4
    for (int64_t i = 0; i < heads; ++i)
#pragma GCC unroll 6
      for (int64_t v = 0; v < kVectors; ++v) p.sum[i][v] = Isa::zero();
    for (int64_t j = 0; j < width; ++j, packed += kKeyBlock) {
      Reg keys[kVectors];
#pragma GCC unroll 6
      for (int64_t v = 0; v < kVectors; ++v) keys[v] = Isa::load(packed + v * kWidth);
#pragma GCC unroll 4
      for (int64_t i = 0; i < heads; ++i) {
        const Reg x = Isa::set1(q[i * width + j]);
#pragma GCC unroll 6
        for (int64_t v = 0; v < kVectors; ++v) p.sum[i][v] = Isa::fma(x, keys[v], p.sum[i][v]);
      }
    }
    return p;
  }

  /// scores[key_block] (+)= sum over `heads` heads of weight * relu(q . k)
  template <int64_t heads>
  static void score_heads(const IndexerSequence& seq, int64_t query, int64_t head,
                          const float* packed, float* scores) {
    const int64_t row = query * seq.heads + head;
    const auto p = products<heads>(seq.q + row * seq.width, packed, seq.width);
#pragma GCC unroll 6
    for (int64_t v = 0; v < kVectors; ++v) {
      // Sums start at +0, so no score is ever -0.
      Reg sum = head == 0 ? Isa::zero() : Isa::load(scores + v * kWidth);
#pragma GCC unroll 4
      for (int64_t i = 0; i < heads; ++i) {
        // max(0, x), not max(x, 0): the second operand is what a NaN lets through.
        const Reg relu = Isa::max(Isa::zero(), p.sum[i][v]);
        sum = Isa::fma(Isa::set1(seq.weight[row + i]), relu, sum);
      }
      Isa::store(scores + v * kWidth, sum);
    }
  }

  static void score_block(const IndexerSequence& seq, int64_t query, const float* packed,
                          float* scores) {
    int64_t head = 0;
    for (; head + kHeads <= seq.heads; head += kHeads)
      score_heads<kHeads>(seq, query, head, packed, scores);
    switch (seq.heads - head) {
      case 3:
        return score_heads<3>(seq, query, head, packed, scores);
      case 2:
        return score_heads<2>(seq, query, head, packed, scores);
      case 1:
        return score_heads<1>(seq, query, head, packed, scores);
    }
  }

  /// Tile row r holds the scores of query queries.first + r and keys chunk, chunk + 1, ...
  static void score_tile(const IndexerSequence& seq, Range queries, int64_t chunk, float* tile) {
    const int64_t end = least(chunk + kChunk, visible(seq, queries.last - 1));
    for (int64_t s = chunk; s < end; s += kKeyBlock) {
      const float* packed = seq.packed + s * seq.width;
      const int64_t sees = first_query(seq, s);
      for (int64_t t = sees > queries.first ? sees : queries.first; t < queries.last; ++t) {
        score_block(seq, t, packed, tile + (t - queries.first) * kTileStride + (s - chunk));
      }
    }
  }

  static void scores(const IndexerSequence& seq, Range queries, float* tile, float* out) {
    const Reg minus_infinity = Isa::set1(-__builtin_inff());
    for (int64_t chunk = 0; chunk < seq.keys; chunk += kChunk) {
      score_tile(seq, queries, chunk, tile);
      const int64_t n = least(kChunk, seq.keys - chunk);
      for (int64_t t = queries.first; t < queries.last; ++t) {
        const float* from = tile + (t - queries.first) * kTileStride;
        float* to = out + t * seq.keys + chunk;
        for (int64_t s = 0; s < n; s += kWidth) {
          const int64_t seen = visible(seq, t) - chunk - s;
          const Mask is_visible = Isa::first(seen > 0 ? seen : 0);
          const Reg x = Isa::blend(is_visible, Isa::load(from + s), minus_infinity);
          Isa::store(to + s, x, Isa::first(n - s));
        }
      }
    }
  }

  static void select(const IndexerSequence& seq, Range queries, int64_t top_k, float* tile,
                     float* scratch, int32_t* ids, int32_t* count) {
    using Top = TopK<Isa>;
    TopKBuffer buffers[kQueryBlock];
    const int64_t rows = queries.last - queries.first;
    const int64_t kept = least(top_k, seq.keys);
    for (int64_t r = 0; r < rows; ++r) buffers[r] = Top::buffer(scratch, kept, r, rows);
    const int64_t end = visible(seq, queries.last - 1);
    for (int64_t chunk = 0; chunk < end; chunk += kChunk) {
      score_tile(seq, queries, chunk, tile);
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t n = least(kChunk, visible(seq, queries.first + r) - chunk);
        if (n > 0) Top::feed(buffers[r], tile + r * kTileStride, n, chunk);
      }
    }
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t t = queries.first + r;
      count[t] = Top::finish(buffers[r], ids + t * top_k, top_k);
    }
  }

  static int32_t select_row(const float* scores, RowKeys row, int64_t top_k, float* scratch,
                            int32_t* ids) {
    TopKBuffer buffer = TopK<Isa>::buffer(scratch, least(top_k, row.keys), 0, 1);
    TopK<Isa>::feed_row(buffer, scores, row.visible);
    return TopK<Isa>::finish(buffer, ids, top_k);
  }
};

}  // namespace dsa::cpu
