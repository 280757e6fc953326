// The tile products of the AMX kernel for heads that share one kv head (attend_shared_amx_impl.h):
// what one step loads, multiplies and stores, and the copies that make its operands.
#pragma once
#include "attention/cpu/amx.h"
#include "attention/cpu/bf16.h"
#include "attention/cpu/simd_avx512bf16.h"

namespace dsa::cpu {

/// Some slots of one query.
struct SharedChunk {
  int64_t keys, groups;  ///< groups of 32 keys, the last one filled up
  bool first, last;      ///< of the query
  Bf16* result;          ///< of the query
  float* lse;
};

/// The first n of 32 bfloat16 lanes.
inline __mmask32 first_halves(int64_t n) {
  return n >= 32 ? ~__mmask32{0} : n <= 0 ? __mmask32{0} : (__mmask32{1} << n) - 1;
}

/// Heads in rows to a B tile: pairs of columns in rows, heads side by side.
inline void pack_heads(const Bf16* q, int64_t stride, int64_t heads, int64_t width, bool negate,
                       char* tile) {
  const __mmask32 columns = first_halves(width);
  const __m512i sign = _mm512_set1_epi32(negate ? static_cast<int>(0x80008000u) : 0);
  __m512 row[16];
#pragma GCC unroll 16
  for (int64_t h = 0; h < 16; ++h)
    row[h] = _mm512_castsi512_ps(_mm512_xor_si512(
        sign, _mm512_maskz_loadu_epi16(h < heads ? columns : 0, q + (h < heads ? h : 0) * stride)));
  Avx512::transpose(row);
#pragma GCC unroll 16
  for (int64_t j = 0; j < 16; ++j) _mm512_store_ps(tile + j * 64, row[j]);
}

/// Slice x of 32 rows to two A tiles.
[[gnu::always_inline]] inline void copy_keys(const Bf16* const* rows, int64_t x, int64_t width,
                                             char* tiles) {
  const int64_t column = x * kTilePairs;
  if (width - column >= kTilePairs) {
#pragma GCC unroll 32
    for (int64_t j = 0; j < 32; ++j)
      _mm512_store_si512(tiles + j * 64, _mm512_loadu_si512(rows[j] + column));
    return;
  }
  const __mmask32 columns = first_halves(width - column);
  for (int64_t j = 0; j < 32; ++j)
    _mm512_store_si512(tiles + j * 64, _mm512_maskz_loadu_epi16(columns, rows[j] + column));
}

/// Slice y of 32 rows to two B tiles. Columns 0-3, 8-11, 16-19, 24-27 are in the first one.
[[gnu::always_inline]] inline void pair_values(const Bf16* const* rows, int64_t y, int64_t width,
                                               char* tiles) {
  const int64_t column = y * kTilePairs;
  if (width - column >= kTilePairs) {
#pragma GCC unroll 16
    for (int64_t j = 0; j < 16; ++j) {
      const __m512i a = _mm512_loadu_si512(rows[2 * j] + column),
                    b = _mm512_loadu_si512(rows[2 * j + 1] + column);
      _mm512_store_si512(tiles + j * 64, _mm512_unpacklo_epi16(a, b));
      _mm512_store_si512(tiles + 1024 + j * 64, _mm512_unpackhi_epi16(a, b));
    }
    return;
  }
  const __mmask32 columns = first_halves(width - column);
  for (int64_t j = 0; j < 16; ++j) {
    const __m512i a = _mm512_maskz_loadu_epi16(columns, rows[2 * j] + column),
                  b = _mm512_maskz_loadu_epi16(columns, rows[2 * j + 1] + column);
    _mm512_store_si512(tiles + j * 64, _mm512_unpacklo_epi16(a, b));
    _mm512_store_si512(tiles + 1024 + j * 64, _mm512_unpackhi_epi16(a, b));
  }
}

/// Lines of memory that will be needed, asked for a few at a time while tiles are multiplied: q of
/// the next query, and the result of this one, whose lines are read before they are written.
struct Ahead {
  const char *q, *q_end;
  char *out, *out_end;
  int64_t lines;  ///< a step

  [[gnu::always_inline]] void step() {
    for (int64_t i = 0; i < lines; ++i) {
      if (q < q_end) _mm_prefetch(q, _MM_HINT_T1), q += 64;
      if (out < out_end) {
        asm volatile("prefetchw %0" ::"m"(*out));
        out += 64;
      }
    }
  }
};

/// Rows that will be needed, the same way.
struct RowsAhead {
  const Bf16* const* rows;
  int64_t count;  ///< rows left
  int64_t row_bytes;
  int64_t lines;   ///< a step
  int64_t offset;  ///< in the first row

  [[gnu::always_inline]] void step() {
    if (count <= 0) return;
    for (int64_t i = 0; i < lines; ++i) {
      _mm_prefetch(reinterpret_cast<const char*>(*rows) + offset, _MM_HINT_T1);
      offset += 64;
      if (offset < row_bytes) continue;
      offset = 0;
      ++rows;
      if (--count == 0) return;
    }
  }
};

/// Scores of 32 keys, over slices [begin, end).
struct ScoreStep {
  const Bf16* const* rows;
  int64_t width, begin, end;
  int64_t slots;  ///< a mask: slice x of keys is at (x - begin) & slots
  char* keys;     ///< [slices][32 keys][32 columns]
  const char* q;  ///< of the first head tile
  char* scores;   ///< [32 keys][16 heads]
  Ahead* ahead;

  char* slot(int64_t x) const { return keys + ((x - begin) & slots) * 2 * kTileBytes; }
};

template <bool kCopy>
void score_two(const ScoreStep& s, int64_t q_stride, int64_t score_stride) {
  char* second = s.scores + score_stride;
  if (s.begin == 0) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, s.scores, 64);
    _tile_loadd(1, second, 64);
    _tile_loadd(2, s.scores + kTileBytes, 64);
    _tile_loadd(3, second + kTileBytes, 64);
  }
  if (kCopy) copy_keys(s.rows, s.begin, s.width, s.slot(s.begin));
  for (int64_t x = s.begin; x < s.end; ++x) {
    if (kCopy && x + 1 < s.end) copy_keys(s.rows, x + 1, s.width, s.slot(x + 1));
    s.ahead->step();
    const char *a = s.slot(x), *b = s.q + x * kTileBytes;
    _tile_loadd(4, a, 64);
    _tile_loadd(6, b, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + q_stride, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + kTileBytes, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, s.scores, 64);
  _tile_stored(1, second, 64);
  _tile_stored(2, s.scores + kTileBytes, 64);
  _tile_stored(3, second + kTileBytes, 64);
}

/// One head tile. Odd slices have their own sums: two chains of products would wait for each other.
template <bool kCopy>
void score_one(const ScoreStep& s) {
  alignas(64) float odd[512];
  _tile_zero(1);
  _tile_zero(3);
  if (s.begin == 0) {
    _tile_zero(0);
    _tile_zero(2);
  } else {
    _tile_loadd(0, s.scores, 64);
    _tile_loadd(2, s.scores + kTileBytes, 64);
  }
  if (kCopy) copy_keys(s.rows, s.begin, s.width, s.slot(s.begin));
  for (int64_t x = s.begin; x < s.end; x += 2) {
    if (kCopy && x + 1 < s.end) copy_keys(s.rows, x + 1, s.width, s.slot(x + 1));
    s.ahead->step();
    const char *a = s.slot(x), *b = s.q + x * kTileBytes;
    _tile_loadd(6, b, 64);
    _tile_loadd(4, a, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, a + kTileBytes, 64);
    _tile_dpbf16ps(2, 5, 6);
    if (x + 1 == s.end) break;
    s.ahead->step();
    if (kCopy && x + 2 < s.end) copy_keys(s.rows, x + 2, s.width, s.slot(x + 2));
    a = s.slot(x + 1);
    _tile_loadd(7, b + kTileBytes, 64);
    _tile_loadd(4, a, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + kTileBytes, 64);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, s.scores, 64);
  _tile_stored(2, s.scores + kTileBytes, 64);
  _tile_stored(1, odd, 64);
  _tile_stored(3, odd + 256, 64);
  float* scores = reinterpret_cast<float*>(s.scores);
  for (int64_t j = 0; j < 512; j += 16)
    _mm512_store_ps(scores + j, _mm512_add_ps(_mm512_load_ps(scores + j), _mm512_load_ps(odd + j)));
}

/// 2^x for x <= 0, relative error 6e-5 and at least 2^-126: enough for weights of 8 bits.
[[gnu::always_inline]] inline __m512 exp2_coarse(__m512 x) {
  const __m512 magic = _mm512_set1_ps(12582912.0f);  // rounds to an integer in the low bits
  x = _mm512_max_ps(x, _mm512_set1_ps(-126.0f));
  const __m512 shifted = _mm512_add_ps(x, magic);
  const __m512 f = _mm512_sub_ps(x, _mm512_sub_ps(shifted, magic));
  __m512 p = _mm512_set1_ps(9.61813e-3f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.55041e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.40226507e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.93147181e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p),
                                              _mm512_slli_epi32(_mm512_castps_si512(shifted), 23)));
}

/// Two registers of weights, 0 to 1, as pairs of bfloat16, the first one in the lower half.
[[gnu::always_inline]] inline __m512i pair_weights(__m512 a, __m512 b) {
  const __m512i half = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32(-65536);
  const __m512i low = _mm512_add_epi32(_mm512_castps_si512(a), half);
  const __m512i high = _mm512_add_epi32(_mm512_castps_si512(b), half);
  return _mm512_or_si512(_mm512_srli_epi32(low, 16), _mm512_and_si512(high, upper));
}

/// Softmax of one head tile: scores [keys][16] to A tiles of weights, relative to the largest score
/// so far. ratio is by what that scales earlier sums.
inline void weigh_heads(const float* scores, int64_t keys, float factor, float* largest, float* sum,
                        float* ratio, char* weights, RowsAhead* values) {
  const __m512 f = _mm512_set1_ps(factor), zero = _mm512_setzero_ps();
  const __m512 before = _mm512_load_ps(largest);
  __m512 even = _mm512_load_ps(scores), odd = even;
  __m512 poison = zero, poison_odd = zero;  // max and exp2 lose a NaN
  int64_t j = 0;
  for (; j + 2 <= keys; j += 2) {
    const __m512 a = _mm512_load_ps(scores + j * 16), b = _mm512_load_ps(scores + j * 16 + 16);
    even = _mm512_max_ps(even, a);
    odd = _mm512_max_ps(odd, b);
    poison = _mm512_fmadd_ps(a, zero, poison);
    poison_odd = _mm512_fmadd_ps(b, zero, poison_odd);
  }
  if (j < keys) {
    even = _mm512_max_ps(even, _mm512_load_ps(scores + j * 16));
    poison = _mm512_fmadd_ps(_mm512_load_ps(scores + j * 16), zero, poison);
  }
  const __m512 top = _mm512_max_ps(_mm512_mul_ps(f, _mm512_max_ps(even, odd)), before);
  const __m512 scaled = exp2<Avx512>(_mm512_sub_ps(before, top));
  _mm512_store_ps(largest, top);
  _mm512_store_ps(ratio, scaled);
  __m512 total = _mm512_add_ps(poison, poison_odd);
  total = _mm512_fmadd_ps(scaled, _mm512_load_ps(sum), total);
  for (j = 0; j < keys; j += 32) {
    __m512 pairs[16];
#pragma GCC unroll 16
    for (int64_t i = 0; i < 16; ++i) {
      values->step();
      const float* s = scores + (j + 2 * i) * 16;
      __m512 a = exp2_coarse(_mm512_fmsub_ps(f, _mm512_load_ps(s), top));
      __m512 b = exp2_coarse(_mm512_fmsub_ps(f, _mm512_load_ps(s + 16), top));
      if (j + 32 > keys) {
        if (j + 2 * i >= keys) a = zero;
        if (j + 2 * i + 1 >= keys) b = zero;
      }
      total = _mm512_add_ps(total, _mm512_add_ps(a, b));
      pairs[i] = _mm512_castsi512_ps(pair_weights(a, b));
    }
    Avx512::transpose(pairs);
#pragma GCC unroll 16
    for (int64_t i = 0; i < 16; ++i) _mm512_store_ps(weights + j * 32 + i * 64, pairs[i]);
  }
  _mm512_store_ps(sum, total);
}

/// Weighted sums of one slice of values over all groups of a chunk.
struct ValueStep {
  const Bf16* const* rows;
  int64_t groups, width, slice;
  char* values;         ///< [groups][2][16 pairs][16 columns]
  const char* weights;  ///< [groups][16 heads][16 pairs]
  float* sums;          ///< [head tiles or slices][2][16 heads][16 columns]
};

template <bool kCopy>
void value_two(const ValueStep& s, int64_t weight_stride) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  if (kCopy) pair_values(s.rows, s.slice, s.width, s.values);
  for (int64_t group = 0; group < s.groups; ++group) {
    const char *a = s.weights + group * kTileBytes, *b = s.values + group * 2 * kTileBytes;
    if (kCopy && group + 1 < s.groups)
      pair_values(s.rows + (group + 1) * 32, s.slice, s.width,
                  s.values + (group + 1) * 2 * kTileBytes);
    _tile_loadd(4, a, 64);
    _tile_loadd(6, b, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + kTileBytes, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + weight_stride, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, s.sums, 64);
  _tile_stored(1, s.sums + 256, 64);
  _tile_stored(2, s.sums + 512, 64);
  _tile_stored(3, s.sums + 768, 64);
}

/// The last head tile where their number is odd.
inline void value_one(const ValueStep& s) {
  _tile_zero(0);
  _tile_zero(1);
  for (int64_t group = 0; group < s.groups; ++group) {
    const char* b = s.values + group * 2 * kTileBytes;
    _tile_loadd(4, s.weights + group * kTileBytes, 64);
    _tile_loadd(6, b, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + kTileBytes, 64);
    _tile_dpbf16ps(1, 4, 7);
  }
  _tile_stored(0, s.sums, 64);
  _tile_stored(1, s.sums + 256, 64);
}

/// One head tile alone, two slices.
inline void value_wide(const ValueStep& s) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const auto pair = [&](int64_t group) {
    char* to = s.values + group % 2 * 4 * kTileBytes;
    pair_values(s.rows + group * 32, s.slice, s.width, to);
    pair_values(s.rows + group * 32, s.slice + 1, s.width, to + 2 * kTileBytes);
  };
  pair(0);
  for (int64_t group = 0; group < s.groups; ++group) {
    if (group + 1 < s.groups) pair(group + 1);
    const char* b = s.values + group % 2 * 4 * kTileBytes;
    _tile_loadd(4, s.weights + group * kTileBytes, 64);
    _tile_loadd(5, b, 64);
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(6, b + kTileBytes, 64);
    _tile_dpbf16ps(1, 4, 6);
    _tile_loadd(7, b + 2 * kTileBytes, 64);
    _tile_dpbf16ps(2, 4, 7);
    _tile_loadd(5, b + 3 * kTileBytes, 64);
    _tile_dpbf16ps(3, 4, 5);
  }
  _tile_stored(0, s.sums, 64);
  _tile_stored(1, s.sums + 256, 64);
  _tile_stored(2, s.sums + 512, 64);
  _tile_stored(3, s.sums + 768, 64);
}

/// sums[2][16 heads][16 columns] += ratio[head] * earlier
inline void add_earlier(const float* ratio, const float* earlier, float* sums) {
  for (int64_t h = 0; h < 16; ++h) {
    const __m512 r = _mm512_set1_ps(ratio[h]);
#pragma GCC unroll 2
    for (int64_t x = h * 16; x < 512; x += 256)
      _mm512_store_ps(sums + x,
                      _mm512_fmadd_ps(r, _mm512_load_ps(earlier + x), _mm512_load_ps(sums + x)));
  }
}

/// sums[2][16 heads][16 columns] * factor[head], columns as pair_values left them, to at most 32
/// columns of result rows.
inline void store_slice(const float* sums, const float* factor, int64_t heads, int64_t width,
                        Bf16* result, int64_t stride) {
  const __mmask32 columns = first_halves(width);
  const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i high =
      _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  for (int64_t h = 0; h < 16 && h < heads; ++h) {
    const __m512 f = _mm512_set1_ps(factor[h]);
    const __m512 a = _mm512_mul_ps(f, _mm512_load_ps(sums + h * 16));
    const __m512 b = _mm512_mul_ps(f, _mm512_load_ps(sums + 256 + h * 16));
    const __m512bh pairs =
        _mm512_cvtne2ps_pbh(_mm512_permutex2var_ps(a, high, b), _mm512_permutex2var_ps(a, low, b));
    _mm512_mask_storeu_epi16(result + h * stride, columns, reinterpret_cast<__m512i>(pairs));
  }
}

}  // namespace dsa::cpu
