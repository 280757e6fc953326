// Sparse-attention forward of float32 by AMX: blocks of 32 queries of one head against the tiles of 32
// keys that any of them selected, masked. S = Q K^T, softmax, O = P V. A float32 is the sum of three
// bfloat16, hi + mid + lo, and a product of two is six products: those of lo with mid and lo are below
// 2^-24. Bound by products: 96 for 32 x 32 pairs at D = V = 64. As with bfloat16 there is no pass for the
// largest score: where weights of a group sum past kMostWeight, its query's are made again.
#pragma once
#include "attention/cpu/attend_union_amx_impl.h"

namespace dsa::cpu {

inline constexpr int64_t kSplitTerms = 3;
inline constexpr int64_t kSplitProducts = 6;  ///< of terms
inline constexpr int64_t kSplitQueries = 32;
inline constexpr int64_t kSplitKeys = 32;  ///< of a tile
/// Tiles that go through the softmax at a time: sums leave the tile registers in between.
inline constexpr int64_t kSplitGroup = 4;
inline constexpr int64_t kGroupKeys = kSplitGroup * kSplitKeys;
/// A 32 x 32 part of q, k or v: two AMX tiles of each term.
inline constexpr int64_t kSplitBytes = 2 * kSplitTerms * kTileBytes;

/// 2^x where `lanes` are set, else 0. Relative error below 2e-7; NaN stays.
[[gnu::always_inline]] inline __m512 split_exp2(__mmask16 lanes, __m512 x) {
  const __m512 f = _mm512_reduce_ps(x, 1);  // x - floor(x)
  __m512 p = _mm512_set1_ps(0.0018775766948238015f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.00898933969438076f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.05582631751894951f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.24015361070632935f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.6931530833244324f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.9999999403953552f));
  return _mm512_maskz_scalef_ps(lanes, p, x);
}

/// The upper halves of a and b side by side: lane i is (a_i, b_i).
[[gnu::always_inline]] inline __m512i upper_pairs(__m512 a, __m512 b) {
  const __m512i upper = _mm512_set1_epi32(-0x10000);
  return _mm512_ternarylogic_epi32(_mm512_srli_epi32(_mm512_castps_si512(a), 16),
                                   _mm512_castps_si512(b), upper, 0xf8);  // low | high & upper
}

/// What the upper half leaves of a.
[[gnu::always_inline]] inline __m512 below_upper(__m512 a) {
  const __m512i upper = _mm512_set1_epi32(-0x10000);
  return _mm512_sub_ps(a, _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), upper)));
}

/// One head of a block of queries, in scratch.
struct SplitHead {
  float* out;    ///< [32][v_padded]
  float* sum;    ///< [32][16], lane by lane
  float* shift;  ///< [32], subtracted from base-2 scores
  char* q;       ///< [padded / 32] parts of kSplitBytes: [hi, mid, lo][2] tiles
};

/// What a block of queries selected of a panel.
struct SplitTiles {
  const int32_t* tiles;  ///< those that any query selected from, ascending
  int64_t count;
  const uint32_t* masks;  ///< [all tiles][32 queries], a bit for each key
};

/// One head's keys for one block of queries.
class SplitProducts {
 public:
  /// @param k, v  one head: [tiles][padded / 32] and [tiles][v_padded / 32] parts of kSplitBytes
  SplitProducts(const char* k, const char* v, int64_t regs, int64_t value_regs, float factor,
                const SplitHead& head, char* memory)
      : regs_(regs), value_regs_(value_regs), k_(k), v_(v), factor_(factor), head_(head) {
    for (Buffer& b : buffer_) {
      b.scores = reinterpret_cast<float*>(memory);
      b.weights = memory + kScoreBytes;
      b.scaled = false;
      memory += kScoreBytes + kSplitTerms * kTermBytes;
    }
    scale_ = reinterpret_cast<float*>(memory);
  }

  static constexpr int64_t bytes() {
    return 2 * (kScoreBytes + kSplitTerms * kTermBytes) + kSplitQueries * 4;
  }

  /// The softmax of one group goes on between the products of the next one's scores and the last one's
  /// values.
  void add(const SplitTiles& tiles) {
    const int64_t groups = (tiles.count + kSplitGroup - 1) / kSplitGroup;
    const auto group = [&](int64_t i) {
      if (i < 0 || i >= groups) return SplitTiles{nullptr, 0, tiles.masks};
      return SplitTiles{tiles.tiles + i * kSplitGroup,
                        least(kSplitGroup, tiles.count - i * kSplitGroup), tiles.masks};
    };
    for (int64_t i = -1; i <= groups; ++i)
      step(group(i + 1), group(i), group(i - 1), buffer_[i & 1], buffer_[(i + 1) & 1]);
  }

 private:
  static constexpr int64_t kScoreRow = kGroupKeys * 4, kScoreBytes = kSplitQueries * kScoreRow;
  static constexpr int64_t kWeightRow = kGroupKeys * 2, kTermBytes = kSplitQueries * kWeightRow;

  struct Buffer {
    float* scores;  ///< [32 queries][kGroupKeys]
    char*
        weights;  ///< [hi, mid, lo][32 queries][kGroupKeys] bfloat16: in each tile (0, 16), (1, 17) ..
    bool scaled;  ///< scale_ is to be applied to the sums before these weights
  };

  /// Shares out the softmax of a group over the steps of products.
  struct Pace {
    int64_t rate, credit, query, queries;  ///< rate and credit in 2^-16 queries
  };

  void step(const SplitTiles& next, const SplitTiles& now, const SplitTiles& before, Buffer& mine,
            Buffer& other) {
    const int64_t parts = next.count * regs_ + (before.count > 0 ? before.count * value_regs_ : 0);
    Pace pace{0, 0, 0, now.count > 0 ? kSplitQueries : 0};
    if (parts > 0) pace.rate = (pace.queries << 16) / (parts * kSplitProducts) + 1;
    const auto between = [&] {
      for (pace.credit += pace.rate; pace.credit >= 1 << 16 && pace.query < pace.queries;
           pace.credit -= 1 << 16)
        weigh(now, mine, pace.query++);
    };
    if (before.count > 0 && other.scaled) rescale(other);
    for (int64_t j = 0; j < next.count; ++j)
      score(next.tiles[j], other.scores + j * kSplitKeys, between);
    if (before.count > 0)
      for (int64_t r = 0; r < value_regs_; ++r) add_values(before, other, r, between);
    while (pace.query < pace.queries) weigh(now, mine, pace.query++);
  }

  template <class Between>
  [[gnu::always_inline]] void score(int64_t tile, float* scores, const Between& between) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const char* k = k_ + tile * regs_ * kSplitBytes;
    for (int64_t r = 0; r < regs_; ++r)
      multiply(head_.q + r * kSplitBytes, 64, kTileBytes, 2 * kTileBytes, k + r * kSplitBytes,
               between);
    store_sums(scores, kScoreRow);
  }

  /// 32 columns of values.
  template <class Between>
  [[gnu::always_inline]] void add_values(const SplitTiles& group, const Buffer& buffer, int64_t r,
                                         const Between& between) {
    const int64_t row = value_regs_ * 128;
    load_sums(head_.out + r * 32, row);
    for (int64_t j = 0; j < group.count; ++j)
      multiply(buffer.weights + j * kSplitKeys * 2, kWeightRow, 16 * kWeightRow, kTermBytes,
               v_ + (group.tiles[j] * value_regs_ + r) * kSplitBytes, between);
    store_sums(head_.out + r * 32, row);
  }

  /// Tiles 0-3, 32 x 32 sums, += A B over 32, smallest terms first.
  /// @param row, half, term  bytes from one row of A, its 16 rows, its terms to the next
  /// @param b  [hi, mid, lo][2 x 16 columns] tiles
  template <class Between>
  [[gnu::always_inline]] static void multiply(const char* a, int64_t row, int64_t half,
                                              int64_t term, const char* b, const Between& between) {
    const auto load_a = [&](int64_t t) {
      _tile_loadd(4, a + t * term, row);
      _tile_loadd(5, a + t * term + half, row);
    };
    const auto load_b = [&](int64_t t) {
      _tile_loadd(6, b + t * 2 * kTileBytes, 64);
      _tile_loadd(7, b + (t * 2 + 1) * kTileBytes, 64);
    };
    const auto product = [&] {
      multiply_bf16<0, 4, 6>();
      multiply_bf16<1, 4, 7>();
      multiply_bf16<2, 5, 6>();
      multiply_bf16<3, 5, 7>();
      between();
    };
    constexpr int64_t kHi = 0, kMid = 1, kLo = 2;
    load_a(kHi);
    load_b(kLo);
    product();
    load_b(kMid);
    product();
    load_a(kMid);
    product();
    load_b(kHi);
    product();
    load_a(kLo);
    product();
    load_a(kHi);
    product();
  }

  /// @param row  bytes
  [[gnu::always_inline]] static void load_sums(const float* at, int64_t row) {
    const char* lower = reinterpret_cast<const char*>(at) + 16 * row;
    _tile_loadd(0, at, row);
    _tile_loadd(1, at + 16, row);
    _tile_loadd(2, lower, row);
    _tile_loadd(3, lower + 64, row);
  }

  [[gnu::always_inline]] static void store_sums(float* at, int64_t row) {
    char* lower = reinterpret_cast<char*>(at) + 16 * row;
    _tile_stored(0, at, row);
    _tile_stored(1, at + 16, row);
    _tile_stored(2, lower, row);
    _tile_stored(3, lower + 64, row);
  }

  /// Weights of one query and their terms. @return sums of lanes
  [[gnu::always_inline]] __m512 weights_of(const SplitTiles& group, const Buffer& b,
                                           int64_t query) {
    const __m512 factor = _mm512_set1_ps(factor_), shift = _mm512_set1_ps(head_.shift[query]);
    __m512 even = _mm512_setzero_ps(), odd = even;
    const float* s = b.scores + query * kGroupKeys;
    char* w = b.weights + query * kWeightRow;
    for (int64_t j = 0; j < group.count; ++j, s += kSplitKeys, w += kSplitKeys * 2) {
      const uint32_t mask = group.masks[group.tiles[j] * kSplitQueries + query];
      __m512 x = split_exp2(static_cast<__mmask16>(mask),
                            _mm512_fmsub_ps(factor, _mm512_load_ps(s), shift));
      __m512 y = split_exp2(static_cast<__mmask16>(mask >> 16),
                            _mm512_fmsub_ps(factor, _mm512_load_ps(s + 16), shift));
      even = _mm512_add_ps(even, x);
      odd = _mm512_add_ps(odd, y);
#pragma GCC unroll 3
      for (int64_t term = 0; term < kSplitTerms; ++term) {
        _mm512_store_si512(w + term * kTermBytes, upper_pairs(x, y));
        x = below_upper(x);
        y = below_upper(y);
      }
    }
    return _mm512_add_ps(even, odd);
  }

  [[gnu::noinline]] void weigh(const SplitTiles& group, Buffer& b, int64_t query) {
    __m512 sum = weights_of(group, b, query);
    if (_mm512_cmp_ps_mask(sum, _mm512_set1_ps(kMostWeight), _CMP_NLE_UQ) != 0) [[unlikely]] {
      raise(group, b, query);
      sum = weights_of(group, b, query);
    }
    float* total = head_.sum + query * 16;
    _mm512_store_ps(total, _mm512_add_ps(_mm512_load_ps(total), sum));
  }

  /// `shift` of a query becomes its largest score of the group; what was summed is made to fit.
  [[gnu::noinline]] void raise(const SplitTiles& group, Buffer& b, int64_t query) {
    __m512 top = _mm512_set1_ps(kLowest);
    const float* s = b.scores + query * kGroupKeys;
    for (int64_t j = 0; j < group.count; ++j, s += kSplitKeys) {
      const uint32_t mask = group.masks[group.tiles[j] * kSplitQueries + query];
      top = _mm512_mask_max_ps(top, static_cast<__mmask16>(mask), top, _mm512_load_ps(s));
      top =
          _mm512_mask_max_ps(top, static_cast<__mmask16>(mask >> 16), top, _mm512_load_ps(s + 16));
    }
    const float shift = factor_ * _mm512_reduce_max_ps(top);
    const __m512 by = split_exp2(0xffff, _mm512_set1_ps(head_.shift[query] - shift));
    head_.shift[query] = shift;
    float* total = head_.sum + query * 16;
    _mm512_store_ps(total, _mm512_mul_ps(by, _mm512_load_ps(total)));
    if (!b.scaled)
      for (int64_t i = 0; i < kSplitQueries; ++i) scale_[i] = 1.0f;
    b.scaled = true;
    scale_[query] = _mm512_cvtss_f32(by);
  }

  void rescale(Buffer& b) {
    b.scaled = false;
    float* x = head_.out;
    for (int64_t query = 0; query < kSplitQueries; ++query)
      for (int64_t i = 0; i < 2 * value_regs_; ++i, x += 16)
        _mm512_store_ps(x, _mm512_mul_ps(_mm512_set1_ps(scale_[query]), _mm512_load_ps(x)));
  }

  int64_t regs_, value_regs_;
  const char *k_, *v_;
  float factor_;
  SplitHead head_;
  Buffer buffer_[2];
  float* scale_;  ///< [32]
};

}  // namespace dsa::cpu
