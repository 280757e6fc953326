// Tiles of indexer scores, for any ISA: a block of queries against a chunk of packed keys. Bound:
// multiply-adds (97 % of their peak rate at 4 heads of width 64 on Zen 4). Packed keys (24 KiB a
// block at width 64, half of that in bfloat16) sit in L1 while the queries stream over them.
#pragma once
#include "attention/cpu/select_kernels.h"
#include "attention/cpu/simd_math.h"

namespace dsa::cpu {

/// Scalars of q times lanes of keys.
template <class Isa>
struct FloatTerms {
  using Element = float;
  using Reg = typename Isa::Reg;
  static constexpr int64_t kPerStep = 1;  ///< terms of an inner product that one step adds

  static Reg query(const float* q) { return Isa::set1(*q); }
  static Reg query_tail(const float* q) { return query(q); }
  static Reg add(Reg sum, Reg x, Reg keys) { return Isa::fma(x, keys, sum); }
};

/// Pairs of bfloat16: twice the terms an instruction. Products are exact and every addition rounds
/// once, to float32; only the order differs from FloatTerms. Terms below 2^-126 count as 0.
template <class Isa>
struct PairTerms {
  using Element = Bf16;
  using Reg = typename Isa::Reg;
  static constexpr int64_t kPerStep = 2;

  static Reg query(const Bf16* q) {
    int32_t pair;
    __builtin_memcpy(&pair, q, sizeof pair);
    return Isa::as_float(Isa::iset1(pair));
  }
  /// The last element of an odd width: nothing after it may be read, nor multiplied (0 * inf).
  static Reg query_tail(const Bf16* q) { return Isa::as_float(Isa::iset1(q->bits)); }
  static Reg add(Reg sum, Reg x, Reg keys) { return Isa::add_pair_products(sum, x, keys); }
};

template <class Isa, class Terms = FloatTerms<Isa>>
struct TileScorer {
  using Reg = typename Isa::Reg;
  using Element = typename Terms::Element;
  using Sequence = IndexerInputs<Element>;
  static constexpr int64_t kWidth = Isa::kWidth;
  static constexpr int64_t kVectors = kWidth == 16 ? 6 : kWidth == 8 ? 3 : 2;
  static constexpr int64_t kHeads = 4;  // kHeads * kVectors sums fill the register file
  static constexpr int64_t kKeyBlock = kVectors * kWidth;
  static constexpr int64_t kChunk = 1024 / kKeyBlock * kKeyBlock;  ///< keys of a score tile
  static constexpr int64_t kPerStep = Terms::kPerStep;
  static constexpr int64_t kRowsAhead = 32;  ///< that packing fetches early, also of what follows
  static_assert(kChunk <= kTileStride);

  static int64_t visible(const Sequence& seq, int64_t query) {
    return query + 1 + seq.keys - seq.queries;
  }
  /// The first query that sees `key`.
  static int64_t first_query(const Sequence& seq, int64_t key) {
    const int64_t query = key - (seq.keys - seq.queries);
    return query > 0 ? query : 0;
  }
  static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
  static int64_t packed_width(int64_t width) { return (width + kPerStep - 1) / kPerStep; }

  /// The packed block of keys `key`, `key` + 1, ...; `key` is a multiple of the block.
  static const float* packed_block(const Sequence& seq, int64_t key) {
    return seq.packed + key * packed_width(seq.width);
  }

  static void pack_keys(const Sequence& seq, Range blocks, float* packed) {
    for (int64_t block = blocks.first; block < blocks.last; ++block) {
      const int64_t first = block * kKeyBlock, n = least(kKeyBlock, seq.keys - first);
      float* out = packed + first * packed_width(seq.width);
      const Element* rows = seq.k + first * seq.width;
      seq.width % kPerStep == 0 ? pack_steps(rows, n, seq.width / kPerStep, out)
                                : pack_elements(rows, n, seq.width, out);
    }
  }

  /// A block of n rows of `steps` times 32 bits, turned round kWidth by kWidth.
  static void pack_steps(const Element* rows, int64_t n, int64_t steps, float* out) {
    const auto* from = reinterpret_cast<const char*>(rows);
    for (int64_t s = 0; s < kKeyBlock; s += kWidth) {
      for (int64_t j = 0; j < steps; j += kWidth) {
        const int64_t columns = least(kWidth, steps - j);
        const auto valid = Isa::first(columns);
        Reg x[kWidth];
#pragma GCC unroll 16
        for (int64_t r = 0; r < kWidth; ++r) {
          const auto* row = reinterpret_cast<const float*>(from + ((s + r) * steps + j) * 4);
          x[r] = s + r < n ? Isa::load(row, valid) : Isa::zero();
          __builtin_prefetch(row + kRowsAhead * steps);
        }
        transpose<Isa>(x);
#pragma GCC unroll 16
        for (int64_t c = 0; c < kWidth; ++c)
          if (c < columns) Isa::store(out + (j + c) * kKeyBlock + s, x[c]);
      }
    }
  }

  /// The same for an odd width in pairs, with a zero at the end of each row.
  static void pack_elements(const Element* rows, int64_t n, int64_t width, float* packed) {
    auto* out = reinterpret_cast<Element*>(packed);
    for (int64_t j = 0; j < packed_width(width) * kPerStep; ++j) {
      Element* place = out + j / kPerStep * kKeyBlock * kPerStep + j % kPerStep;
      const int64_t copied = j < width ? n : 0;
      for (int64_t s = 0; s < copied; ++s) place[s * kPerStep] = rows[s * width + j];
      for (int64_t s = copied; s < kKeyBlock; ++s) place[s * kPerStep] = Element{};
    }
  }

  /// Inner products of `heads` query rows with one block of packed keys.
  template <int64_t heads>
  struct Products {
    Reg sum[heads][kVectors];
  };

  template <int64_t heads, class Broadcast>
  [[gnu::always_inline]] static void add_step(Products<heads>& p, const float* packed,
                                              const Broadcast& query) {
    Reg keys[kVectors];
#pragma GCC unroll 6
    for (int64_t v = 0; v < kVectors; ++v) keys[v] = Isa::load(packed + v * kWidth);
#pragma GCC unroll 4
    for (int64_t i = 0; i < heads; ++i) {
      const Reg x = query(i);
#pragma GCC unroll 6
      for (int64_t v = 0; v < kVectors; ++v) p.sum[i][v] = Terms::add(p.sum[i][v], x, keys[v]);
    }
  }

  template <int64_t heads>
  [[gnu::always_inline]] static Products<heads> products(const Element* q, const float* packed,
                                                         int64_t width) {
    Products<heads> p;
#pragma GCC unroll 4
    for (int64_t i = 0; i < heads; ++i)
#pragma GCC unroll 6
      for (int64_t v = 0; v < kVectors; ++v) p.sum[i][v] = Isa::zero();
    int64_t j = 0;
    for (; j + kPerStep <= width; j += kPerStep, packed += kKeyBlock)
      add_step(p, packed, [&](int64_t i) { return Terms::query(q + i * width + j); });
    if (j < width)
      add_step(p, packed, [&](int64_t i) { return Terms::query_tail(q + i * width + j); });
    return p;
  }

  /// scores[key_block] (+)= sum over `heads` heads of weight * relu(q . k). Not inlined: inside a
  /// larger function g++ 12 may store all sums at every step, which is half the speed.
  template <int64_t heads>
  [[gnu::noinline]] static void score_heads(const Sequence& seq, int64_t query, int64_t head,
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

  static void score_block(const Sequence& seq, int64_t query, const float* packed, float* scores) {
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

  /// Tile row r holds the scores of query queries.first + r and keys chunk, chunk + 1, ...; a
  /// TileFunction, so `inputs` is a Sequence.
  static void score_tile(const void* inputs, Range queries, int64_t chunk, float* tile) {
    const auto& seq = *static_cast<const Sequence*>(inputs);
    const int64_t end = least(chunk + kChunk, visible(seq, queries.last - 1));
    for (int64_t s = chunk; s < end; s += kKeyBlock) {
      const float* packed = packed_block(seq, s);
      const int64_t sees = first_query(seq, s);
      for (int64_t t = sees > queries.first ? sees : queries.first; t < queries.last; ++t) {
        score_block(seq, t, packed, tile + (t - queries.first) * kTileStride + (s - chunk));
      }
    }
  }

  static constexpr IndexerKernels<Element> kernels() {
    return {kKeyBlock, kChunk, packed_width, pack_keys, score_tile};
  }
};

}  // namespace dsa::cpu
