// Blocks of 32 queries through SplitProducts: packing, lists, panels, heads, results, and the choice
// between them and each query alone (attend_forward_impl.h).
#pragma once
#include "attention/cpu/attend_split_amx_impl.h"
#include "attention/cpu/attend_union_impl.h"

namespace dsa::cpu {

/// Ticks of a pair of a query and a key of a tile that any of 32 queries wants, and of a selected pair alone.
/// Measured with rows in L2, D = V = 64: 2.5 and 13 where the neighbours on the host let AMX run at full
/// speed, 6 and 17 where not; these lie between (3.2 and 13). Two thirds alone where heads share rows. Only
/// the ratios matter.
inline constexpr double kTilePairTicks = 1, kTileColumnTicks = 2.2 / 128;
inline constexpr double kAlonePairTicks = 3, kAloneColumnTicks = 10.0 / 128;
inline constexpr double kAloneSharedRows = 2.0 / 3;

/// AMX takes terms and products below 2^-126 for 0. Within these bounds that changes neither a score nor
/// a row of results by more than rounding does, unless rows of v that are all 0 have nearly all the weight.
inline constexpr float kSplitMostQk = 0x1p30f, kSplitMostScale = 0x1p20f;
inline constexpr float kSplitMostV = 0x1p60f, kSplitLeastV = 0x1p-90f;

static_assert(kSplitBytes == 32 * kSplitRowBytes, "callers allocate what kernels write");

/// Upper halves of a, then those of b.
[[gnu::always_inline]] inline __m512i upper_row(__m512 a, __m512 b) {
  const auto words = [](__m512 x) {
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(x), 16));
  };
  return _mm512_inserti64x4(_mm512_castsi256_si512(words(a)), words(b), 1);
}

/// The nearest bfloat16, as a float32.
[[gnu::always_inline]] inline __m512 upper_rounded(__m512 a) {
  const __m512i up = _mm512_add_epi32(_mm512_castps_si512(a), _mm512_set1_epi32(0x8000));
  return _mm512_castsi512_ps(_mm512_and_si512(up, _mm512_set1_epi32(-0x10000)));
}

/// 32 numbers -> terms[hi, mid, lo], two registers to one by `join`.
template <class Join>
[[gnu::always_inline]] inline void split_terms(__m512 a, __m512 b, __m512i (&terms)[kSplitTerms],
                                               const Join& join) {
#pragma GCC unroll 3
  for (__m512i& term : terms) {
    const __m512 x = upper_rounded(a), y = upper_rounded(b);
    term = join(x, y);
    a = _mm512_sub_ps(a, x);
    b = _mm512_sub_ps(b, y);
  }
}

/// Columns [x, x + 16) of a row, those from `width` on being 0; nothing of them is read.
[[gnu::always_inline]] inline __m512 split_columns(const float* row, int64_t x, int64_t width) {
  return x < width ? _mm512_maskz_loadu_ps(Avx512::first(width - x), row + x) : _mm512_setzero_ps();
}

[[gnu::always_inline]] inline bool all_up_to(__m512 a, float most) {
  return _mm512_cmp_ps_mask(_mm512_abs_ps(a), _mm512_set1_ps(most), _CMP_NLE_UQ) == 0;
}

/// 32 keys from `begin`: transposed pairs of columns. @return whether all are small enough
inline bool pack_split_keys(const NarrowSource& from, int64_t begin, int64_t regs, char* to) {
  const auto* rows = static_cast<const float*>(from.k);
  bool fits = true;
  for (int64_t r = 0; r < regs; ++r)
    for (int64_t half = 0; half < 2; ++half) {
      Avx512::Reg terms[kSplitTerms][16];
      for (int64_t i = 0; i < 16; ++i) {
        const int64_t key = begin + half * 16 + i;
        const float* row = rows + (key - from.begin) * from.k_stride;
        const int64_t width = key < from.end ? from.width : 0;
        const __m512 a = split_columns(row, r * 32, width);
        const __m512 b = split_columns(row, r * 32 + 16, width);
        fits &= all_up_to(a, kSplitMostQk) && all_up_to(b, kSplitMostQk);
        __m512i parts[kSplitTerms];
        split_terms(a, b, parts, upper_row);
        for (int64_t t = 0; t < kSplitTerms; ++t) terms[t][i] = Avx512::as_float(parts[t]);
      }
      for (int64_t t = 0; t < kSplitTerms; ++t) {
        Avx512::transpose(terms[t]);
        char* tile = to + r * kSplitBytes + (2 * t + half) * kTileBytes;
        for (int64_t i = 0; i < 16; ++i) _mm512_store_ps(tile + i * 64, terms[t][i]);
      }
    }
  return fits;
}

/// 32 keys: pairs of rows (i, i + 16) side by side. @return whether all are small and large enough
inline bool pack_split_values(const NarrowSource& from, int64_t begin, int64_t regs, char* to) {
  const auto* rows = static_cast<const float*>(from.v);
  bool fits = true;
  for (int64_t i = 0; i < 16; ++i) {
    __m512 largest[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int64_t x = 0; x < regs * 2; ++x) {
      __m512 pair[2];
      for (int64_t j = 0; j < 2; ++j) {
        const int64_t key = begin + j * 16 + i;
        const float* row = rows + (key - from.begin) * from.v_stride;
        pair[j] = split_columns(row, x * 16, key < from.end ? from.v_width : 0);
        fits &= all_up_to(pair[j], kSplitMostV);
        largest[j] = _mm512_max_ps(largest[j], _mm512_abs_ps(pair[j]));
      }
      __m512i terms[kSplitTerms];
      split_terms(pair[0], pair[1], terms, upper_pairs);
      char* row = to + x / 2 * kSplitBytes + x % 2 * kTileBytes + i * 64;
      for (int64_t t = 0; t < kSplitTerms; ++t)
        _mm512_store_si512(row + 2 * t * kTileBytes, terms[t]);
    }
    for (const __m512 row : largest) {
      const float size = _mm512_reduce_max_ps(row);
      fits &= size == 0 || size >= kSplitLeastV;
    }
  }
  return fits;
}

/// @return whether the terms say all that the numbers do
inline bool pack_split(const NarrowSource& from, const NarrowRows& to) {
  const int64_t regs = to.padded / 32, value_regs = to.v_padded / 32;
  bool fits = true;
  for (int64_t key = from.begin; key < from.end; key += kSplitKeys) {
    const int64_t tile = (from.kv_head * to.keys + key) / kSplitKeys;
    fits &= pack_split_keys(from, key, regs, static_cast<char*>(to.k) + tile * regs * kSplitBytes);
    fits &= pack_split_values(from, key, value_regs,
                              static_cast<char*>(to.v) + tile * value_regs * kSplitBytes);
  }
  return fits;
}

/// Sizes of one call's scratch, in bytes.
struct SplitSizes {
  int64_t blocks, tiles, panels, group;
  int64_t masks, list, head;

  explicit SplitSizes(const NarrowBlock& b)
      : blocks((b.queries + kSplitQueries - 1) / kSplitQueries),
        tiles(b.rows.keys / kSplitKeys),
        panels((tiles >> shift(b)) + 1),
        group(b.group),
        masks(tiles * kSplitQueries * 4),
        list(whole_lines((tiles + panels) * 4)),
        head(kSplitQueries * (b.rows.v_padded * 4 + 68 + b.rows.padded * 2 * kSplitTerms)) {}

  /// Panels of 1 << shift tiles, in the L2 cache.
  static int32_t shift(const NarrowBlock& b) {
    const int64_t bytes = (b.rows.padded + b.rows.v_padded) / 32 * kSplitBytes;
    int32_t shift = 1;
    while (bytes << (shift + 1) <= kUnionPanelBytes) ++shift;
    return shift;
  }

  int64_t total() const {
    return whole_lines(SplitProducts::bytes()) +
           blocks * (masks + list + group * whole_lines(head));
  }
};

class SplitForward {
 public:
  explicit SplitForward(const NarrowBlock& b)
      : b_(b), n_(b), regs_(b.rows.padded / 32), value_regs_(b.rows.v_padded / 32) {
    char* at = static_cast<char*>(b.scratch);
    products_ = at;
    masks_ = at + whole_lines(SplitProducts::bytes());
    lists_ = masks_ + n_.blocks * n_.masks;
    heads_ = lists_ + n_.blocks * n_.list;
  }

  /// @return false, and nothing is written, where a query is beyond the bounds
  bool run() {
    if (!queries_fit()) return false;
    for (int64_t block = 0; block < n_.blocks; ++block) list(block);
    const Tiles configured;
    const DenormalsAreZero flushed;
    for (int64_t g = b_.kv_begin; g < b_.kv_end; ++g) {
      for (int64_t block = 0; block < n_.blocks; ++block)
        for (int64_t h = 0; h < n_.group; ++h) begin(block, g * n_.group + h, head(block, h));
      for (int64_t panel = 0; panel < n_.panels; ++panel)
        for (int64_t block = 0; block < n_.blocks; ++block) add(panel, block, g);
      for (int64_t block = 0; block < n_.blocks; ++block)
        for (int64_t h = 0; h < n_.group; ++h) finish(block, g * n_.group + h, head(block, h));
    }
    return true;
  }

  /// What 32 queries of the block select together, and whether that pays.
  NarrowFacts facts(int64_t block) {
    NarrowFacts facts{false, 0, 0};
    list(block);
    const int64_t wanted = ends(block)[n_.panels - 1];
    for (int64_t i = 0; i < wanted; ++i)
      for (int64_t q = 0, keys = 0; q < kSplitQueries; ++q) {
        keys |= masks(block)[tiles(block)[i] * kSplitQueries + q];
        if (q + 1 == kSplitQueries) facts.together += __builtin_popcountll(keys);
      }
    for (int64_t q = 0; q < queries_of(block); ++q)
      facts.pairs += b_.counts[block * kSplitQueries + q];
    const auto columns = static_cast<double>(b_.rows.padded + b_.rows.v_padded);
    const double tiles_ticks = static_cast<double>(wanted * kSplitKeys * kSplitQueries) *
                               (kTilePairTicks + kTileColumnTicks * columns);
    const double alone_ticks =
        static_cast<double>(facts.pairs) * (b_.group > 1 ? kAloneSharedRows : 1.0) *
        (kAlonePairTicks + kAloneColumnTicks * static_cast<double>(b_.width + b_.v_width));
    facts.by_union = tiles_ticks < alone_ticks;
    return facts;
  }

 private:
  uint32_t* masks(int64_t block) const {
    return reinterpret_cast<uint32_t*>(masks_ + block * n_.masks);
  }
  int32_t* ends(int64_t block) const {
    return reinterpret_cast<int32_t*>(lists_ + block * n_.list);
  }
  int32_t* tiles(int64_t block) const { return ends(block) + n_.panels; }

  SplitHead head(int64_t block, int64_t h) const {
    SplitHead head;
    head.q = heads_ + (block * n_.group + h) * whole_lines(n_.head);
    head.out = reinterpret_cast<float*>(head.q + regs_ * kSplitBytes);
    head.sum = head.out + kSplitQueries * b_.rows.v_padded;
    head.shift = head.sum + kSplitQueries * 16;
    return head;
  }

  int64_t queries_of(int64_t block) const {
    return least(kSplitQueries, b_.queries - block * kSplitQueries);
  }

  const float* query(int64_t query, int64_t h) const {
    return static_cast<const float*>(b_.q) + query * b_.q_token + h * b_.width;
  }

  bool queries_fit() const {
    const int64_t first = b_.kv_begin * n_.group * b_.width;
    const int64_t last = b_.kv_end * n_.group * b_.width;
    bool fit = true;
    for (int64_t q = 0; q < b_.queries; ++q)
      for (int64_t x = first; x < last; x += 16)
        fit &= all_up_to(split_columns(query(q, 0), x, last), kSplitMostQk);
    return fit;
  }

  void list(int64_t block) {
    uint32_t* masks = this->masks(block);
    for (int64_t i = 0; i < n_.masks / 4; i += 16)
      _mm512_store_si512(masks + i, _mm512_setzero_si512());
    for (int64_t q = 0; q < queries_of(block); q += 4) mark(block, q, masks);
    int32_t count = 0;
    for (int64_t panel = 0, tile = 0; panel < n_.panels; ++panel) {
      for (; tile < least(n_.tiles, (panel + 1) << SplitSizes::shift(b_)); ++tile) {
        const __m512i any = _mm512_or_si512(_mm512_load_si512(masks + tile * kSplitQueries),
                                            _mm512_load_si512(masks + tile * kSplitQueries + 16));
        tiles(block)[count] = static_cast<int32_t>(tile);
        count += _mm512_test_epi32_mask(any, any) != 0;
      }
      ends(block)[panel] = count;
    }
  }

  /// Keys of four queries, by turns: neighbouring ids change the same word, and the next change waits.
  void mark(int64_t block, int64_t first, uint32_t* masks) {
    const int32_t* ids[4];
    int64_t counts[4] = {0, 0, 0, 0}, together = b_.top_k;
    for (int64_t j = 0; j < 4; ++j) {
      const int64_t query = block * kSplitQueries + first + j;
      ids[j] = b_.ids + query * b_.top_k;
      if (query < b_.queries) counts[j] = b_.counts[query];
      together = least(together, counts[j]);
    }
    const auto set = [&](int64_t j, int64_t i) {
      masks[(ids[j][i] >> 5) * kSplitQueries + first + j] |= 1u << (ids[j][i] & 31);
    };
    for (int64_t i = 0; i < together; ++i)
      for (int64_t j = 0; j < 4; ++j) set(j, i);
    for (int64_t j = 0; j < 4; ++j)
      for (int64_t i = together; i < counts[j]; ++i) set(j, i);
  }

  /// Terms of q; nothing summed.
  void begin(int64_t block, int64_t h, const SplitHead& head) {
    // The largest score is looked for before scaling, so the sign of a negative scale goes to q.
    const __m512 sign = _mm512_set1_ps(b_.scale < 0 ? -0.0f : 0.0f);
    for (int64_t q = 0; q < kSplitQueries; ++q) {
      const float* row = query(block * kSplitQueries + q, h);
      const int64_t width = q < queries_of(block) ? b_.width : 0;
      for (int64_t r = 0; r < regs_; ++r) {
        __m512i terms[kSplitTerms];
        split_terms(_mm512_xor_ps(sign, split_columns(row, r * 32, width)),
                    _mm512_xor_ps(sign, split_columns(row, r * 32 + 16, width)), terms, upper_row);
        for (int64_t t = 0; t < kSplitTerms; ++t)
          _mm512_store_si512(head.q + r * kSplitBytes + 2 * t * kTileBytes + q * 64, terms[t]);
      }
    }
    for (float* x = head.out; x < head.shift; x += 16) _mm512_store_ps(x, _mm512_setzero_ps());
    for (int64_t q = 0; q < kSplitQueries; ++q) head.shift[q] = kNoTop;
  }

  float factor() const { return (b_.scale < 0 ? -b_.scale : b_.scale) * kLog2E; }

  void add(int64_t panel, int64_t block, int64_t g) {
    const int64_t first = panel == 0 ? 0 : ends(block)[panel - 1];
    const SplitTiles wanted{tiles(block) + first, ends(block)[panel] - first, masks(block)};
    if (wanted.count == 0) return;
    const char* k = static_cast<const char*>(b_.rows.k) + g * n_.tiles * regs_ * kSplitBytes;
    const char* v = static_cast<const char*>(b_.rows.v) + g * n_.tiles * value_regs_ * kSplitBytes;
    for (int64_t h = 0; h < n_.group; ++h)
      SplitProducts(k, v, regs_, value_regs_, factor(), head(block, h), products_).add(wanted);
  }

  void finish(int64_t block, int64_t h, const SplitHead& head) {
    for (int64_t q = 0; q < queries_of(block); ++q) {
      const int64_t query = block * kSplitQueries + q;
      const bool empty = b_.counts[query] == 0;
      const float sum = _mm512_reduce_add_ps(_mm512_load_ps(head.sum + q * 16));
      b_.lse[query * b_.lse_token + h] =
          empty ? -__builtin_inff() : (head.shift[q] + __builtin_log2f(sum)) * kLn2;
      const __m512 by = _mm512_set1_ps(empty ? 0.0f : 1.0f / sum);
      float* out = static_cast<float*>(b_.out) + query * b_.out_token + h * b_.v_width;
      for (int64_t x = 0; x < b_.v_width; x += 16)
        _mm512_mask_storeu_ps(
            out + x, Avx512::first(b_.v_width - x),
            _mm512_mul_ps(by, _mm512_load_ps(head.out + q * b_.rows.v_padded + x)));
    }
  }

  const NarrowBlock& b_;
  const SplitSizes n_;
  const int64_t regs_, value_regs_;
  char *products_, *masks_, *lists_, *heads_;
};

inline int64_t split_scratch(const NarrowBlock& b) {
  return SplitSizes(b).total();
}

/// Of 32 queries in the middle of the block.
inline NarrowFacts split_facts(const NarrowBlock& b) {
  return SplitForward(b).facts(b.queries / 2 / kSplitQueries);
}

inline bool split_forward(const NarrowBlock& b) {
  const float size = b.scale < 0 ? -b.scale : b.scale;
  return size <= kSplitMostScale && SplitForward(b).run();
}

inline constexpr SplitKernel kSplitAmx = {split_scratch, split_facts, pack_split, split_forward};

}  // namespace dsa::cpu
