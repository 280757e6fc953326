// What AMX kernels of indexer scores are made of: packed keys, lines, and how products become scores. A
// line is one (query, head) pair; a tile of C holds 16 lines against 16 keys.
#pragma once
#include "attention/cpu/amx.h"
#include "attention/cpu/select_kernels.h"
#include "attention/cpu/simd_avx512.h"

namespace dsa::cpu {

/// What a tile of lines holds, and how it is multiplied.
template <class Element>
struct TileTerms;

template <>
struct TileTerms<Bf16> {
  static constexpr bool kScaled = false;  ///< keys have scales
  template <int c, int a, int b>
  [[gnu::always_inline]] static void multiply() {
    multiply_bf16<c, a, b>();
  }
  static __m512i load_some(const Bf16* row, int64_t n) {
    return _mm512_maskz_loadu_epi16(static_cast<__mmask32>((uint32_t{1} << n) - 1), row);
  }
  static __m512 products(const float* c) { return _mm512_load_ps(c); }
};

template <>
struct TileTerms<int8_t> {
  static constexpr bool kScaled = true;
  template <int c, int a, int b>
  [[gnu::always_inline]] static void multiply() {
    multiply_int8<c, a, b>();
  }
  static __m512i load_some(const int8_t* row, int64_t n) {
    return _mm512_maskz_loadu_epi8((uint64_t{1} << n) - 1, row);
  }
  /// c was stored by an int32 tile.
  static __m512 products(const float* c) { return _mm512_cvtepi32_ps(_mm512_load_si512(c)); }
};

template <class Element_>
struct AmxLines {
  using Isa = Avx512;
  using Reg = Isa::Reg;
  using Element = Element_;
  using Terms = TileTerms<Element>;
  using Sequence = IndexerInputs<Element>;
  static constexpr int64_t kColumns = 64 / sizeof(Element);  ///< of a tile of lines
  static constexpr int64_t kKeyBlock = 96;
  static constexpr int64_t kChunk = 1024 / kKeyBlock * kKeyBlock;
  static constexpr int64_t kPairKeys = 2 * kTileRows;  ///< keys done at a time, two tiles of them
  static constexpr int64_t kTileFloats = kTileBytes / 4;
  static_assert(kChunk <= kTileStride && kKeyBlock % kPairKeys == 0);

  static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
  static int64_t visible(const Sequence& seq, int64_t query) {
    return query + 1 + seq.keys - seq.queries;
  }
  static int64_t steps(int64_t width) { return (width + kColumns - 1) / kColumns; }
  static int64_t packed_width(int64_t width) { return steps(width) * kTileRows; }

  /// `columns` elements of a row, zeros after them.
  static __m512i load_row(const Element* row, int64_t columns) {
    return columns >= kColumns ? _mm512_loadu_si512(row) : Terms::load_some(row, columns);
  }

  /// [tile of 16 keys][step of kColumns][16 dwords of columns][16 keys]: tiles as the product takes them.
  static void pack_keys(const Sequence& seq, Range blocks, float* packed) {
    float* out = packed + blocks.first * kKeyBlock * packed_width(seq.width);
    for (int64_t s = blocks.first * kKeyBlock; s < blocks.last * kKeyBlock; s += kTileRows)
      for (int64_t j = 0; j < seq.width; j += kColumns, out += kTileFloats) {
        Reg rows[kTileRows];
#pragma GCC unroll 16
        for (int64_t r = 0; r < kTileRows; ++r)
          rows[r] = s + r < seq.keys
                        ? Isa::as_float(load_row(seq.k + (s + r) * seq.width + j, seq.width - j))
                        : Isa::zero();
        Isa::transpose(rows);
#pragma GCC unroll 16
        for (int64_t r = 0; r < kTileRows; ++r) Isa::store(out + r * kTileRows, rows[r]);
      }
  }

  /// Where 32 scores of a query go.
  struct Target {
    float* scores;
    const float* key_scale;
    bool add;  ///< to the scores of earlier heads
  };

  /// The lines of up to 16 / heads queries, or 16 heads of one query.
  struct Lines {
    const Element* q;
    const float* weight;
    const float* key_scale;  ///< of the first key
    float* scores;           ///< of the first query, at the first key
    int64_t heads;           ///< lines of a query in this tile
    int64_t queries;         ///< in this tile
    bool add;                ///< to the scores of earlier heads

    int64_t count() const { return heads * queries; }
    Target target(int64_t query) const { return {scores + query * kTileStride, key_scale, add}; }
  };

  /// Products that wait to become scores.
  struct Pending {
    const float* c = nullptr;  ///< two tiles
    Lines lines;
  };

  /// 16 lines, kColumns; from `spare` where there are fewer, so that nothing else is read.
  static const Element* line_tile(const Lines& lines, int64_t j, int64_t width, Element* spare,
                                  int64_t& stride) {
    const Element* from = lines.q + j;
    stride = width * int64_t{sizeof(Element)};
    if (lines.count() == kTileRows && j + kColumns <= width) return from;
    for (int64_t r = 0; r < lines.count(); ++r)
      _mm512_store_si512(spare + r * kColumns, load_row(from + r * width, width - j));
    asm volatile("" ::: "memory");  // to g++ a tile load reads no memory
    stride = 64;
    return spare;
  }

  /// scores (+)= sum over kHeads lines of weight * relu(product), for 32 keys.
  template <int64_t kHeads>
  [[gnu::always_inline]] static void sum_heads(const float* c, const float* weight, Target to) {
    Reg sum[2][2];  // by tile; two chains each
#pragma GCC unroll 2
    for (int64_t v = 0; v < 2; ++v) {
      // Sums start at +0, so no score is ever -0.
      sum[v][0] = to.add && !Terms::kScaled ? Isa::load(to.scores + v * kTileRows) : Isa::zero();
      sum[v][1] = Isa::zero();
    }
#pragma GCC unroll 16
    for (int64_t i = 0; i < kHeads; ++i) {
      const Reg w = Isa::set1(weight[i]);
#pragma GCC unroll 2
      for (int64_t v = 0; v < 2; ++v) {
        // max(0, x), not max(x, 0): the second operand is what a NaN lets through.
        const Reg relu =
            Isa::max(Isa::zero(), Terms::products(c + v * kTileFloats + i * kTileRows));
        sum[v][i % 2] = Isa::fma(w, relu, sum[v][i % 2]);
      }
    }
#pragma GCC unroll 2
    for (int64_t v = 0; v < 2; ++v) {
      Reg total = kHeads > 1 ? Isa::add(sum[v][0], sum[v][1]) : sum[v][0];
      if constexpr (Terms::kScaled) {  // by powers of two: exact
        total = Isa::mul(total, Isa::load(to.key_scale + v * kTileRows));
        if (to.add) total = Isa::add(total, Isa::load(to.scores + v * kTileRows));
      }
      Isa::store(to.scores + v * kTileRows, total);
    }
  }

  static void sum_some_heads(const float* c, const float* weight, int64_t heads, Target to) {
    for (int64_t i = 0; i < heads; ++i, c += kTileRows) {
      sum_heads<1>(c, weight + i, to);
      to.add = true;
    }
  }

  /// @tparam kHeads  lines of each query, 0 if they are not known
  template <int64_t kHeads>
  [[gnu::always_inline]] static void finish(Pending& p) {
    if (p.c == nullptr) return;
    if (kHeads > 0 && p.lines.count() == kTileRows) {
#pragma GCC unroll 16
      for (int64_t t = 0; t < kTileRows / (kHeads > 0 ? kHeads : 1); ++t)
        sum_heads<kHeads>(p.c + t * kHeads * kTileRows, p.lines.weight + t * kHeads,
                          p.lines.target(t));
    } else {
      for (int64_t t = 0; t < p.lines.queries; ++t)
        sum_some_heads(p.c + t * p.lines.heads * kTileRows, p.lines.weight + t * p.lines.heads,
                       p.lines.heads, p.lines.target(t));
    }
    p.c = nullptr;
  }
};

}  // namespace dsa::cpu
