// What 16 neighbouring queries select together: keys in tiles of 32, each key with a mask of the
// queries that selected it. A tile is 32 keys in a row where most of them are wanted, else 32
// gathered ones.
#pragma once
#include "attention/cpu/attend_kernels.h"

#include <immintrin.h>

namespace dsa::cpu {

inline constexpr int64_t kUnionQueries = 16;
inline constexpr int64_t kUnionKeys = 32;  ///< of a tile

/// Wanted keys from which a whole tile is faster than gathering them: a gathered key costs its copy,
/// an unwanted one its arithmetic.
inline constexpr int64_t kWholeTile = 24;

struct alignas(64) UnionTile {
  uint16_t masks[kUnionKeys];  ///< bit i: query i selected the key
  int32_t ids[kUnionKeys];     ///< of a whole tile only the first, followed by -1

  bool is_whole() const { return ids[1] < 0; }
};

/// One block of queries. Tiles lie panel after panel.
struct UnionList {
  UnionTile* tiles;
  int32_t* panel_ends;  ///< tiles of this panel and those before it
};

inline int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/// Tiles a block can have: whole ones hold at least kWholeTile keys that the queries share out.
inline int64_t most_union_tiles(int64_t top_k, int64_t keys, int64_t panels) {
  const int64_t together = least(kUnionQueries * top_k, keys + kUnionKeys);
  return together / kWholeTile + panels + 1;
}

class UnionLister {
 public:
  /// @param masks  a word for every key, rounded up to whole tiles; all 0, and left so
  UnionLister(uint16_t* masks, int64_t panel_shift, int64_t panels)
      : masks_(masks), panel_shift_(panel_shift), panels_(panels) {}

  /// @param ids  [queries][top_k]
  void list(const int32_t* ids, const int32_t* counts, int64_t top_k, int64_t queries,
            UnionList out) {
    out_ = out.tiles;
    int64_t end = 0;
    for (int64_t t = 0; t < queries; ++t) {
      const int32_t* row = ids + t * top_k;
      const auto bit = static_cast<uint16_t>(1u << t);
      for (int64_t i = 0; i < counts[t]; ++i) masks_[row[i]] |= bit;
      if (counts[t] > 0 && row[counts[t] - 1] >= end) end = row[counts[t] - 1] + 1;
    }
    for (int64_t panel = 0; panel < panels_; ++panel) {
      const int64_t last = least(end, (panel + 1) << panel_shift_);
      for (int64_t key = panel << panel_shift_; key < last; key += kUnionKeys) add_tile(key);
      fill_up();
      out.panel_ends[panel] = static_cast<int32_t>(out_ - out.tiles);
    }
  }

 private:
  void add_tile(int64_t key) {
    uint16_t* at = masks_ + key;
    const __m512i words = _mm512_loadu_si512(at);
    const __mmask32 wanted = _mm512_test_epi16_mask(words, words);
    if (wanted == 0) return;
    _mm512_storeu_si512(at, _mm512_setzero_si512());
    if (__builtin_popcount(wanted) >= kWholeTile) {
      _mm512_store_si512(out_->masks, words);
      out_->ids[0] = static_cast<int32_t>(key);
      out_->ids[1] = -1;
      take();
      return;
    }
    gather(_mm512_castsi512_si256(words), static_cast<__mmask16>(wanted), key);
    gather(_mm512_extracti64x4_epi64(words, 1), static_cast<__mmask16>(wanted >> 16), key + 16);
    if (waiting_ >= kUnionKeys) flush();
  }

  void gather(__m256i words, __mmask16 wanted, int64_t key) {
    const __m512i ids =
        _mm512_add_epi32(_mm512_set1_epi32(static_cast<int32_t>(key)),
                         _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    const __m512i masks = _mm512_cvtepu16_epi32(words);
    _mm512_storeu_si512(ids_ + waiting_, _mm512_maskz_compress_epi32(wanted, ids));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(waiting_masks_ + waiting_),
                        _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(wanted, masks)));
    waiting_ += __builtin_popcount(wanted);
  }

  /// The first kUnionKeys that wait become a tile.
  void flush() {
    for (int64_t i = 0; i < kUnionKeys; i += 16)
      _mm512_store_si512(out_->ids + i, _mm512_loadu_si512(ids_ + i));
    _mm512_store_si512(out_->masks, _mm512_loadu_si512(waiting_masks_));
    take();
    waiting_ -= kUnionKeys;
    for (int64_t i = 0; i < waiting_; i += 16)
      _mm512_storeu_si512(ids_ + i, _mm512_loadu_si512(ids_ + kUnionKeys + i));
    _mm512_storeu_si512(waiting_masks_, _mm512_loadu_si512(waiting_masks_ + kUnionKeys));
  }

  void fill_up() {
    if (waiting_ == 0) return;
    for (int64_t i = waiting_; i < kUnionKeys; ++i) {
      ids_[i] = ids_[0];
      waiting_masks_[i] = 0;
    }
    waiting_ = kUnionKeys;
    flush();
  }

  void take() { ++out_; }

  uint16_t* masks_;
  int64_t panel_shift_, panels_;
  UnionTile* out_ = nullptr;
  int64_t waiting_ = 0;
  int32_t ids_[3 * kUnionKeys];
  uint16_t waiting_masks_[3 * kUnionKeys];
};

}  // namespace dsa::cpu
