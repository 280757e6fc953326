// Sparse-attention forward of bfloat16 by AMX: blocks of 16 queries of one head against the keys that
// they select together, masked. S^T = K Q^T (lanes are queries), then O = P V. Bound by the softmax,
// 14 instructions for 16 pairs; the products run beside it on the tile unit, the loads and stores of
// tiles do not. There is no pass for the largest score: weights are 2^(score - top) for whatever `top`
// a query has, and only where their sum over a tile passes kMostWeight is `top` raised and the tile
// done again.
#pragma once
#include "attention/cpu/amx.h"
#include "attention/cpu/attend_rows.h"
#include "attention/cpu/attend_union_list.h"
#include "attention/cpu/bf16.h"
#include "attention/cpu/simd_avx512.h"

namespace dsa::cpu {

inline constexpr float kMostWeight = 1024.0f;  ///< far from infinity, whatever the number of keys
inline constexpr float kNoTop = -1e30f;        ///< of a query that has seen no key

/// 2^x where `lanes` are set, else 0. Relative error 7.5e-5, a fiftieth of bfloat16's; NaN stays.
[[gnu::always_inline]] inline __m512 union_exp2(__mmask16 lanes, __m512 x) {
  const __m512 f = _mm512_reduce_ps(x, 1);  // x - floor(x)
  __m512 p = _mm512_set1_ps(0.07802452266443254f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.22606715539312935f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.6958335405064481f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.99992521856401f));
  return _mm512_maskz_scalef_ps(lanes, p, x);
}

/// From memory in one instruction; by way of a general register it is two.
[[gnu::always_inline]] inline __mmask16 load_mask(const uint16_t* mask) {
  return _load_mask16(const_cast<uint16_t*>(mask));
}

/// One head of a block of queries, in scratch.
struct UnionHead {
  float* out;   ///< [16][v_padded], columns as interleave_rows leaves them
  float* top;   ///< [16] scores before scaling
  float* sum;   ///< [16]
  uint32_t* q;  ///< [padded / 32][16 pairs of columns][16 queries]
};

/// Two rows of 32 columns side by side: columns 0-3, 8-11, 16-19, 24-27, then the others.
[[gnu::always_inline]] inline void interleave_rows(const Bf16* a, const Bf16* b, uint32_t* pairs) {
  const __m512i x = _mm512_loadu_si512(a), y = _mm512_loadu_si512(b);
  _mm512_store_si512(pairs, _mm512_unpacklo_epi16(x, y));
  _mm512_store_si512(pairs + 16, _mm512_unpackhi_epi16(x, y));
}

/// One head's keys for one block of queries. Widths are compile-time constants where they can be: q and
/// the sums of up to 64 columns then stay in tiles.
/// @tparam kRegs  padded / 32, or 0: known at run time
/// @tparam kValueRegs  v_padded / 32
template <int64_t kRegs, int64_t kValueRegs>
class UnionProducts {
 public:
  static constexpr bool kResident = kValueRegs == 1 || kValueRegs == 2;

  UnionProducts(const NarrowRows& rows, int64_t kv_head, float factor, const UnionHead& head,
                char* memory)
      : regs_(kRegs > 0 ? kRegs : rows.padded / 32),
        value_regs_(kValueRegs > 0 ? kValueRegs : rows.v_padded / 32),
        k_(static_cast<const Bf16*>(rows.k) + kv_head * rows.keys * rows.padded),
        v_(static_cast<const Bf16*>(rows.v) + kv_head * rows.keys * rows.v_padded),
        pairs_(rows.v_pairs + kv_head * rows.keys / 2 * rows.v_padded),
        factor_(factor),
        head_(head) {
    const auto take = [&](int64_t bytes) {
      char* part = memory;
      memory += bytes;
      return part;
    };
    for (Tile& t : tile_) {
      t.scores = reinterpret_cast<float*>(take(2 * kTileBytes));
      t.weights = reinterpret_cast<uint32_t*>(take(kTileBytes));
    }
    k_copy_ = reinterpret_cast<Bf16*>(take(kUnionKeys * 64 * regs_));
    for (uint32_t*& copy : v_copy_)
      copy = reinterpret_cast<uint32_t*>(take(kUnionKeys * 64 * value_regs_));
  }

  static int64_t bytes(int64_t regs, int64_t value_regs) {
    return 6 * kTileBytes + kUnionKeys * 64 * (regs + 3 * value_regs);
  }

  /// Tiles [tiles, end). The next tile's scores and the last one's values are issued ahead of a quarter
  /// of the softmax and stored behind it: the tile unit then works while registers do, and no store
  /// that waits for it holds them up.
  void add(const UnionTile* tiles, const UnionTile* end) {
    if (tiles == end) return;
    load_resident();
    place(*tiles, tile_[0], v_copy_[0]);
    for (int64_t half = 0; half < 2; ++half) {
      score(tile_[0], half);
      store_scores(tile_[0], half);
    }
    for (int64_t i = 0; tiles + i < end; ++i) {
      Tile &now = tile_[i % 2], &other = tile_[(i + 1) % 2];
      const Tile before = other;
      const bool more = tiles + i + 1 < end;
      if (more) place(tiles[i + 1], other, v_copy_[(i + 1) % 3]);
      Sums sums{_mm512_setzero_ps(), _mm512_setzero_ps()};
      if (more) score(other, 0);
      sums = weigh_quarter(tiles[i], now, 0, sums);
      if (more) {
        store_scores(other, 0);
        score(other, 1);
      }
      sums = weigh_quarter(tiles[i], now, 4, sums);
      if (more) store_scores(other, 1);
      if (i > 0) add_values(before, 0);
      sums = weigh_quarter(tiles[i], now, 8, sums);
      if (i > 0) add_values(before, 1);
      sums = weigh_quarter(tiles[i], now, 12, sums);
      turn(now);
      count(tiles[i], now, _mm512_add_ps(sums.even, sums.odd));
    }
    for (int64_t half = 0; half < 2; ++half) add_values(tile_[(end - tiles - 1) % 2], half);
    if constexpr (kResident) store_sums();
  }

 private:
  struct Tile {
    float* scores;      ///< [32 keys][16 queries]
    uint32_t* weights;  ///< [16 queries][16 pairs of keys]
    const Bf16* k;      ///< [32 keys][padded]
    const uint32_t* v;  ///< [16 pairs of keys][v_padded]
  };

  int64_t regs() const { return kRegs > 0 ? kRegs : regs_; }
  int64_t value_regs() const { return kValueRegs > 0 ? kValueRegs : value_regs_; }

  void gather(const UnionTile& keys, uint32_t* v_copy) {
    const int64_t width = regs() * 32, v_width = value_regs() * 32;
    for (int64_t i = 0; i < kUnionKeys; i += 2) {
      const Bf16 *a = k_ + keys.ids[i] * width, *b = k_ + keys.ids[i + 1] * width;
      const Bf16 *c = v_ + keys.ids[i] * v_width, *d = v_ + keys.ids[i + 1] * v_width;
      for (int64_t x = 0; x < width; x += 32) {
        _mm512_store_si512(k_copy_ + i * width + x, _mm512_loadu_si512(a + x));
        _mm512_store_si512(k_copy_ + (i + 1) * width + x, _mm512_loadu_si512(b + x));
      }
      for (int64_t x = 0; x < v_width; x += 32)
        interleave_rows(c + x, d + x, v_copy + i / 2 * v_width + x);
    }
  }

  /// Where the tile's rows lie; gathered ones are copied.
  void place(const UnionTile& keys, Tile& tile, uint32_t* v_copy) {
    if (keys.is_whole()) {
      tile.k = k_ + keys.ids[0] * regs() * 32;
      tile.v = pairs_ + keys.ids[0] / 2 * value_regs() * 32;
      return;
    }
    gather(keys, v_copy);
    tile.k = k_copy_;
    tile.v = v_copy;
  }

  /// Of 16 keys, into tile 6.
  [[gnu::always_inline]] void score(const Tile& tile, int64_t half) {
    const int64_t width = regs() * 32;
    const Bf16* k = tile.k + half * 16 * width;
    _tile_zero(6);
    if constexpr (kRegs == 1 || kRegs == 2) {
      _tile_loadd(7, k, width * 2);
      _tile_dpbf16ps(6, 7, 4);
      if constexpr (kRegs == 2) {
        _tile_loadd(7, k + 32, width * 2);
        _tile_dpbf16ps(6, 7, 5);
      }
    } else {
      for (int64_t r = 0; r < regs(); ++r) {
        _tile_loadd(5, head_.q + r * 256, 64);
        _tile_loadd(7, k + r * 32, width * 2);
        _tile_dpbf16ps(6, 7, 5);
      }
    }
  }

  [[gnu::always_inline]] void store_scores(const Tile& tile, int64_t half) {
    _tile_stored(6, tile.scores + half * 256, 64);
  }

  /// Of the keys with even and odd places, for each query.
  struct Sums {
    __m512 even, odd;
  };

  /// Weights of 4 pairs of keys, from pair j on, and their sums: tile.weights[pair][query].
  [[gnu::always_inline]] Sums weigh_quarter(const UnionTile& keys, const Tile& tile, int64_t j,
                                            Sums sums) {
    const __m512 factor = _mm512_set1_ps(factor_);
    const __m512 shift = _mm512_mul_ps(factor, _mm512_load_ps(head_.top));
    const __m512i half = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32(-0x10000);
#pragma GCC unroll 2
    for (const int64_t end = j + 4; j < end; ++j) {
      const float* s = tile.scores + j * 32;
      const __m512 a = union_exp2(load_mask(keys.masks + 2 * j),
                                  _mm512_fmsub_ps(factor, _mm512_load_ps(s), shift));
      const __m512 b = union_exp2(load_mask(keys.masks + 2 * j + 1),
                                  _mm512_fmsub_ps(factor, _mm512_load_ps(s + 16), shift));
      sums.even = _mm512_add_ps(sums.even, a);
      sums.odd = _mm512_add_ps(sums.odd, b);
      const __m512i low = _mm512_srli_epi32(_mm512_add_epi32(_mm512_castps_si512(a), half), 16);
      const __m512i high = _mm512_add_epi32(_mm512_castps_si512(b), half);
      _mm512_store_si512(tile.weights + j * 16,
                         _mm512_ternarylogic_epi32(low, high, upper, 0xf8));  // low | high & upper
    }
    return sums;
  }

  /// weights[pair][query] -> [query][pair]
  [[gnu::always_inline]] void turn(const Tile& tile) {
    Avx512::Reg pairs[16];
    auto* weights = reinterpret_cast<float*>(tile.weights);
#pragma GCC unroll 16
    for (int64_t j = 0; j < 16; ++j) pairs[j] = _mm512_load_ps(weights + j * 16);
    Avx512::transpose(pairs);
#pragma GCC unroll 16
    for (int64_t j = 0; j < 16; ++j) _mm512_store_ps(weights + j * 16, pairs[j]);
  }

  [[gnu::always_inline]] void count(const UnionTile& keys, const Tile& tile, __m512 sum) {
    // Not <=: a NaN passes.
    if (_mm512_cmp_ps_mask(sum, _mm512_set1_ps(kMostWeight), _CMP_NLE_UQ) != 0)
      sum = weigh_again(keys, tile);
    _mm512_store_ps(head_.sum, _mm512_add_ps(_mm512_load_ps(head_.sum), sum));
  }

  [[gnu::noinline]] __m512 weigh_again(const UnionTile& keys, const Tile& tile) {
    raise(keys, tile);
    Sums sums{_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int64_t j = 0; j < 16; j += 4) sums = weigh_quarter(keys, tile, j, sums);
    turn(tile);
    return _mm512_add_ps(sums.even, sums.odd);
  }

  /// `top` of each query becomes its largest score so far; what was summed is made to fit.
  void raise(const UnionTile& keys, const Tile& tile) {
    const __m512 before = _mm512_load_ps(head_.top);
    __m512 top = before;
    for (int64_t i = 0; i < kUnionKeys; ++i)
      top = _mm512_mask_max_ps(top, keys.masks[i], top, _mm512_load_ps(tile.scores + i * 16));
    const __m512 by =
        union_exp2(0xffff, _mm512_mul_ps(_mm512_set1_ps(factor_), _mm512_sub_ps(before, top)));
    _mm512_store_ps(head_.top, top);
    _mm512_store_ps(head_.sum, _mm512_mul_ps(by, _mm512_load_ps(head_.sum)));
    alignas(64) float scale[16];
    _mm512_store_ps(scale, by);
    if constexpr (kResident) store_sums();
    const int64_t width = value_regs() * 32;
    for (int64_t q = 0; q < kUnionQueries; ++q)
      for (float* x = head_.out + q * width; x < head_.out + (q + 1) * width; x += 16)
        _mm512_store_ps(x, _mm512_mul_ps(_mm512_set1_ps(scale[q]), _mm512_load_ps(x)));
    if constexpr (kResident) load_sums();
  }

  /// The values of a half of the columns.
  [[gnu::always_inline]] void add_values(const Tile& tile, int64_t half) {
    const int64_t width = value_regs() * 32;
    if constexpr (kResident) {
      if (half == 0) _tile_loadd(6, tile.weights, 64);
      add_columns(tile.v, width, half);
    } else if (half == 0) {
      _tile_loadd(6, tile.weights, 64);
      for (int64_t x = 0; x < width; x += 32) {
        _tile_loadd(0, head_.out + x, width * 4);
        _tile_loadd(1, head_.out + x + 16, width * 4);
        _tile_loadd(7, tile.v + x, width * 4);
        _tile_dpbf16ps(0, 6, 7);
        _tile_loadd(7, tile.v + x + 16, width * 4);
        _tile_dpbf16ps(1, 6, 7);
        _tile_stored(0, head_.out + x, width * 4);
        _tile_stored(1, head_.out + x + 16, width * 4);
      }
    }
  }

  [[gnu::always_inline]] void add_columns(const uint32_t* v, int64_t width, int64_t half) {
    if (half == 0) {
      _tile_loadd(7, v, width * 4);
      _tile_dpbf16ps(0, 6, 7);
      _tile_loadd(7, v + 16, width * 4);
      _tile_dpbf16ps(1, 6, 7);
    } else if constexpr (kValueRegs == 2) {
      _tile_loadd(7, v + 32, width * 4);
      _tile_dpbf16ps(2, 6, 7);
      _tile_loadd(7, v + 48, width * 4);
      _tile_dpbf16ps(3, 6, 7);
    }
  }

  /// What stays in tiles: queries, and sums of up to 64 columns.
  void load_resident() {
    if constexpr (kRegs == 1 || kRegs == 2) _tile_loadd(4, head_.q, 64);
    if constexpr (kRegs == 2) _tile_loadd(5, head_.q + 256, 64);
    if constexpr (kResident) load_sums();
  }

  void load_sums() {
    _tile_loadd(0, head_.out, kValueRegs * 128);
    _tile_loadd(1, head_.out + 16, kValueRegs * 128);
    if constexpr (kValueRegs == 2) {
      _tile_loadd(2, head_.out + 32, kValueRegs * 128);
      _tile_loadd(3, head_.out + 48, kValueRegs * 128);
    }
  }

  void store_sums() {
    _tile_stored(0, head_.out, kValueRegs * 128);
    _tile_stored(1, head_.out + 16, kValueRegs * 128);
    if constexpr (kValueRegs == 2) {
      _tile_stored(2, head_.out + 32, kValueRegs * 128);
      _tile_stored(3, head_.out + 48, kValueRegs * 128);
    }
  }

  int64_t regs_, value_regs_;
  const Bf16 *k_, *v_;
  const uint32_t* pairs_;
  float factor_;
  UnionHead head_;
  Tile tile_[2];
  Bf16* k_copy_;         ///< of a gathered tile
  uint32_t* v_copy_[3];  ///< of gathered tiles: the last one's values are still to be added
};

}  // namespace dsa::cpu
