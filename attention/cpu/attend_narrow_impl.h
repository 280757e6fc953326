// Sparse-attention forward of bfloat16 where few heads share a kv head: packing, and the choice
// between 16 queries together (attend_union_impl.h) and each alone (attend_alone_bf16_impl.h).
#pragma once
#include "attention/cpu/attend_alone_bf16_impl.h"
#include "attention/cpu/attend_union_impl.h"

namespace dsa::cpu {

/// Cycles, measured at D = V = 64 with rows in L2: of a key in a whole tile and in a gathered one, for
/// 16 queries; of a selected pair alone. Only their ratios matter.
inline constexpr double kWholeKeyCycles = 13, kGatheredKeyCycles = 18, kAloneCycles = 12;

/// The union rounds weights to bfloat16. In a few columns the values of a row may cancel, and what
/// rounding did to them then shows.
inline constexpr int64_t kUnionLeastWidth = 32;

inline int64_t most(int64_t a, int64_t b) {
  return a > b ? a : b;
}

inline int64_t narrow_scratch(const NarrowBlock& b) {
  return most(UnionSizes(b).total(), AloneBf16::scratch(b));
}

/// Copies rows of `width` columns to `padded`, row `rows` and later ones being 0.
/// @return whether all are finite
inline bool pack_narrow_rows(const void* from, int64_t stride, int64_t rows, int64_t whole_rows,
                             int64_t width, int64_t padded, Bf16* to) {
  const __m512i exponent = _mm512_set1_epi16(0x7f80);
  __mmask32 bad = 0;
  for (int64_t i = 0; i < whole_rows; ++i)
    for (int64_t x = 0; x < padded; x += 32) {
      const __mmask32 columns = i < rows ? columns_left(width - x) : 0;
      const __m512i row =
          _mm512_maskz_loadu_epi16(columns, static_cast<const Bf16*>(from) + i * stride + x);
      bad |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(row, exponent), exponent);
      _mm512_storeu_si512(to + i * padded + x, row);
    }
  return bad == 0;
}

inline bool pack_narrow(const NarrowSource& from, const NarrowRows& to) {
  const int64_t rows = from.end - from.begin, whole = (rows + 31) / 32 * 32;
  const int64_t first = from.kv_head * to.keys + from.begin;
  Bf16* v = static_cast<Bf16*>(to.v) + first * to.v_padded;
  const bool k_finite = pack_narrow_rows(from.k, from.k_stride, rows, whole, from.width, to.padded,
                                         static_cast<Bf16*>(to.k) + first * to.padded);
  const bool v_finite =
      pack_narrow_rows(from.v, from.v_stride, rows, whole, from.v_width, to.v_padded, v);
  for (int64_t i = 0; i < whole; i += 2)
    for (int64_t x = 0; x < to.v_padded; x += 32)
      interleave_rows(v + i * to.v_padded + x, v + (i + 1) * to.v_padded + x,
                      to.v_pairs + (first + i) / 2 * to.v_padded + x);
  return k_finite && v_finite;
}

/// What 16 queries in the middle of the block selected.
inline NarrowFacts narrow_facts(const NarrowBlock& b) {
  const int64_t first = b.queries / 2 / kUnionQueries * kUnionQueries;
  const UnionList list = UnionForward<0, 0>(b).list_of(first / kUnionQueries);
  NarrowFacts facts{false, 0, 0};
  double cycles = 0;
  for (int64_t t = first; t < least(b.queries, first + kUnionQueries); ++t)
    facts.pairs += b.counts[t];
  for (int64_t i = 0; i < list.panel_ends[UnionSizes(b).panels - 1]; ++i) {
    const UnionTile& tile = list.tiles[i];
    for (const uint16_t mask : tile.masks) facts.together += mask != 0;
    cycles += kUnionKeys * (tile.is_whole() ? kWholeKeyCycles : kGatheredKeyCycles);
  }
  const bool can = b.finite && b.v_width >= kUnionLeastWidth;
  const bool pays = cycles < kAloneCycles * static_cast<double>(facts.pairs);
  facts.by_union =
      can && (b.choice == NarrowChoice::kMeasured ? pays : b.choice == NarrowChoice::kUnion);
  return facts;
}

inline NarrowFacts narrow_forward(const NarrowBlock& b) {
  const NarrowFacts facts = narrow_facts(b);
  if (!facts.by_union)
    AloneBf16(b).run();
  else if (b.rows.padded == 64 && b.rows.v_padded == 64)
    UnionForward<2, 2>(b).run();
  else if (b.rows.padded == 32 && b.rows.v_padded == 32)
    UnionForward<1, 1>(b).run();
  else
    UnionForward<0, 0>(b).run();
  return facts;
}

inline constexpr NarrowKernel kNarrowAmx = {narrow_scratch, pack_narrow, narrow_forward};

}  // namespace dsa::cpu
