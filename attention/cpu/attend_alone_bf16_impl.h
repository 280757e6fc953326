// Sparse-attention forward of bfloat16, one query and head at a time, for queries that have few keys
// in common. Rows stay bfloat16: half the bytes of attend_forward_impl.h, whose panels and phases it
// uses. A register of a row is 32 columns: those with even places are shifted up, those with odd
// places masked. Bound by these and the multiply-adds. Not vdpbf16ps: it issues every second cycle
// and sums 32 products, a multiply-add 16 twice a cycle.
#pragma once
#include "attention/cpu/attend_forward_impl.h"
#include "attention/cpu/attend_narrow.h"

namespace dsa::cpu {

/// Of one panel: it, the next one on its way and a block's own data share the L2 cache.
inline constexpr int64_t kNarrowPanelBytes = int64_t{128} << 10;

/// Columns with even places of 32, then those with odd ones.
[[gnu::always_inline]] inline __m512 even_columns(__m512i row) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(row, 16));
}
[[gnu::always_inline]] inline __m512 odd_columns(__m512i row) {
  return _mm512_castsi512_ps(_mm512_and_si512(row, _mm512_set1_epi32(-0x10000)));
}

class AloneBf16 {
 public:
  static constexpr int64_t W = 16;

  explicit AloneBf16(const NarrowBlock& b)
      : b_(b), shift_(panel_shift(b)), stride_(rounded_up<Avx512>(b.top_k)) {
    const int64_t heads = b.queries * b.group;
    auto* at = static_cast<float*>(b.scratch);
    q_ = at;
    scores_ = q_ + heads * b.rows.padded;
    sums_ = scores_ + heads * stride_;
    inverse_ = sums_ + heads * b.rows.v_padded;
    panels_ = panels_in<Avx512>(reinterpret_cast<int32_t*>(inverse_ + rounded_up<Avx512>(heads)),
                                shift_, b.rows.keys, groups(b));
  }

  static int64_t scratch(const NarrowBlock& b) {
    const int64_t heads = b.queries * b.group;
    const int64_t most_groups = b.queries * ((b.top_k + W - 1) / W);
    return 4 * (heads * (b.rows.padded + rounded_up<Avx512>(b.top_k) + b.rows.v_padded) +
                rounded_up<Avx512>(heads) +
                panels_scratch<Avx512>(most_groups, (b.rows.keys >> panel_shift(b)) + 1));
  }

  void run() {
    sort_groups<Avx512>(
        panels_, b_.queries, [&](int64_t t) { return b_.ids + t * b_.top_k; },
        [&](int64_t t) -> int64_t { return b_.counts[t]; });
    for (int64_t g = b_.kv_begin; g < b_.kv_end; ++g) {
      widen_queries(g);
      score(rows_of(b_.rows.k, g, b_.rows.padded));
      normalise(g);
      add_values(rows_of(b_.rows.v, g, b_.rows.v_padded));
      store(g);
    }
  }

 private:
  /// Depends on the shape alone: panels decide the order of sums.
  static int32_t panel_shift(const NarrowBlock& b) {
    const int64_t width = b.rows.padded > b.rows.v_padded ? b.rows.padded : b.rows.v_padded;
    int32_t shift = 6;
    while ((width * 2) << (shift + 1) <= kNarrowPanelBytes) ++shift;
    return shift;
  }

  static int64_t groups(const NarrowBlock& b) {
    int64_t groups = 0;
    for (int64_t t = 0; t < b.queries; ++t) groups += (b.counts[t] + W - 1) / W;
    return groups;
  }

  const Bf16* rows_of(const void* rows, int64_t g, int64_t width) const {
    return static_cast<const Bf16*>(rows) + g * b_.rows.keys * width;
  }

  template <class Visit>
  [[gnu::always_inline]] void walk(const Bf16* rows, int64_t width, const Visit& visit) {
    walk_groups<Avx512>(
        panels_, [&](int64_t t) -> int64_t { return b_.counts[t]; },
        PanelRows{reinterpret_cast<const float*>(rows), width / 2}, PanelRows{nullptr, 0}, visit);
  }

  /// q scaled so that scores are base-2 exponents, even columns and odd ones apart.
  void widen_queries(int64_t g) {
    const __m512 factor = _mm512_set1_ps(b_.scale * kLog2E);
    float* to = q_;
    for (int64_t t = 0; t < b_.queries; ++t)
      for (int64_t h = 0; h < b_.group; ++h) {
        const Bf16* q =
            static_cast<const Bf16*>(b_.q) + t * b_.q_token + (g * b_.group + h) * b_.width;
        for (int64_t x = 0; x < b_.rows.padded; x += 32, to += 32) {
          const __m512i row = _mm512_maskz_loadu_epi16(columns_left(b_.width - x), q + x);
          _mm512_storeu_ps(to, _mm512_mul_ps(factor, even_columns(row)));
          _mm512_storeu_ps(to + 16, _mm512_mul_ps(factor, odd_columns(row)));
        }
      }
  }

  /// kRegs registers of 32 columns: acc[j] += x . row ids[j].
  template <int kRegs>
  [[gnu::always_inline]] static void add_dots(__m512 (&acc)[W], const float* x, const Bf16* rows,
                                              int64_t width, const int32_t* ids) {
    __m512 part[2 * kRegs];
#pragma GCC unroll 4
    for (int r = 0; r < 2 * kRegs; ++r) part[r] = _mm512_loadu_ps(x + r * 16);
#pragma GCC unroll 16
    for (int j = 0; j < W; ++j) {
      const Bf16* y = rows + ids[j] * width;
#pragma GCC unroll 2
      for (int r = 0; r < kRegs; ++r) {
        const __m512i row = _mm512_loadu_si512(y + r * 32);
        acc[j] = _mm512_fmadd_ps(part[2 * r], even_columns(row), acc[j]);
        acc[j] = _mm512_fmadd_ps(part[2 * r + 1], odd_columns(row), acc[j]);
      }
    }
  }

  [[gnu::always_inline]] static __m512 dots(const float* x, const Bf16* rows, int64_t width,
                                            const int32_t* ids) {
    __m512 acc[W];
#pragma GCC unroll 16
    for (int j = 0; j < W; ++j) acc[j] = _mm512_setzero_ps();
    int64_t c = 0;
    for (; c + 64 <= width; c += 64) add_dots<2>(acc, x + c, rows + c, width, ids);
    if (c < width) add_dots<1>(acc, x + c, rows + c, width, ids);
    return Avx512::sum_each(acc);
  }

  void score(const Bf16* k) {
    const int64_t width = b_.rows.padded;
    walk(k, width, [&](int64_t t, int64_t slot, const int32_t* ids, __mmask16 lanes) {
      for (int64_t h = t * b_.group; h < (t + 1) * b_.group; ++h) {
        const __m512 s =
            width == 64 ? dots(q_ + h * 64, k, 64, ids) : dots(q_ + h * width, k, width, ids);
        _mm512_storeu_ps(scores_ + h * stride_ + slot,
                         _mm512_mask_blend_ps(lanes, _mm512_set1_ps(kLowest), s));
      }
    });
  }

  void normalise(int64_t g) {
    for (int64_t t = 0; t < b_.queries; ++t)
      for (int64_t h = 0; h < b_.group; ++h) {
        const int64_t i = t * b_.group + h;
        Softmax done{-__builtin_inff(), 0.0f};
        if (b_.counts[t] > 0) done = exponentiate<Avx512>(scores_ + i * stride_, b_.counts[t]);
        b_.lse[t * b_.lse_token + g * b_.group + h] = done.lse;
        inverse_[i] = done.inverse;
      }
  }

  /// sums[0, kRegs registers of 32) += sum_j weights[j] * row ids[j], even and odd columns apart.
  template <int kRegs>
  [[gnu::always_inline]] static void add_rows_of(float* sums, const Bf16* rows, int64_t width,
                                                 const int32_t* ids, const float* weights) {
    __m512 total[2][2 * kRegs];
#pragma GCC unroll 4
    for (int r = 0; r < 2 * kRegs; ++r) {
      total[0][r] = _mm512_loadu_ps(sums + r * 16);
      total[1][r] = _mm512_setzero_ps();
    }
#pragma GCC unroll 16
    for (int j = 0; j < W; ++j) {
      const Bf16* y = rows + ids[j] * width;
      const __m512 by = _mm512_set1_ps(weights[j]);
#pragma GCC unroll 2
      for (int r = 0; r < kRegs; ++r) {
        const __m512i row = _mm512_loadu_si512(y + r * 32);
        auto& to = total[j % 2];
        to[2 * r] = _mm512_fmadd_ps(by, even_columns(row), to[2 * r]);
        to[2 * r + 1] = _mm512_fmadd_ps(by, odd_columns(row), to[2 * r + 1]);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < 2 * kRegs; ++r)
      _mm512_storeu_ps(sums + r * 16, _mm512_add_ps(total[0][r], total[1][r]));
  }

  void add_values(const Bf16* v) {
    const int64_t width = b_.rows.v_padded;
    for (int64_t i = 0; i < b_.queries * b_.group * width; i += 16)
      _mm512_storeu_ps(sums_ + i, _mm512_setzero_ps());
    walk(v, width, [&](int64_t t, int64_t slot, const int32_t* ids, __mmask16) {
      for (int64_t h = t * b_.group; h < (t + 1) * b_.group; ++h) {
        float* sums = sums_ + h * width;
        const float* weights = scores_ + h * stride_ + slot;
        int64_t c = 0;
        for (; c + 64 <= width; c += 64) add_rows_of<2>(sums + c, v + c, width, ids, weights);
        if (c < width) add_rows_of<1>(sums + c, v + c, width, ids, weights);
      }
    });
  }

  void store(int64_t g) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    for (int64_t t = 0; t < b_.queries; ++t)
      for (int64_t h = 0; h < b_.group; ++h) {
        const int64_t i = t * b_.group + h;
        const __m512 by = _mm512_set1_ps(inverse_[i]);
        Bf16* out = static_cast<Bf16*>(b_.out) + t * b_.out_token + (g * b_.group + h) * b_.v_width;
        for (int64_t x = 0; x < b_.v_width; x += 32) {
          const float* sums = sums_ + i * b_.rows.v_padded + x;
          const __m512 even = _mm512_mul_ps(by, _mm512_loadu_ps(sums));
          const __m512 odd = _mm512_mul_ps(by, _mm512_loadu_ps(sums + 16));
          store16(out + x, _mm512_permutex2var_ps(even, low, odd), b_.v_width - x);
          store16(out + x + 16, _mm512_permutex2var_ps(even, high, odd), b_.v_width - x - 16);
        }
      }
  }

  const NarrowBlock& b_;
  int32_t shift_;
  int64_t stride_;
  float *q_, *scores_, *sums_, *inverse_;
  Panels panels_;
};

}  // namespace dsa::cpu
