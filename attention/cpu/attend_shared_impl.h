// Sparse-attention forward where many heads share one kv head (MQA, and MLA in MQA mode): the rows a
// query selected are gathered once into panels, then both products are dense. Bound by the
// multiply-adds: 2 * H * (D + V) a key, against (D + V) elements gathered.
#pragma once
#include "attention/cpu/attend_kernels.h"
#include "attention/cpu/attend_rows.h"
#include "attention/cpu/bf16.h"

namespace dsa::cpu {

/// What one 32-bit lane holds, and one multiply-add of it.
template <class Isa, class Source_>
struct FloatUnits {
  using Source = Source_;
  static constexpr int64_t kElements = 1;

  static typename Isa::Reg multiply_add(typename Isa::Reg a, typename Isa::Reg b,
                                        typename Isa::Reg sum) {
    return Isa::fma(a, b, sum);
  }
  /// Lanes are units `unit`, `unit` + 1, ... of a row of `width` elements, 0 past its end.
  static typename Isa::Reg load(const Source* row, int64_t unit, int64_t width) {
    return load_lanes<Isa>(row + unit, width - unit);
  }
  /// Lanes are columns x, x + 1, ... of the rows of one unit's keys.
  static typename Isa::Reg load_values(const Source* const* rows, int64_t x, int64_t width) {
    return load_lanes<Isa>(rows[0] + x, width - x);
  }
  static void store_weights(float* units, int64_t key, typename Isa::Reg p) {
    Isa::store(units + key, p);
  }
};

/// Two neighbouring bfloat16 in a lane, summed in float32.
template <class Isa>
struct PairUnits {
  using Source = Bf16;
  static constexpr int64_t kElements = 2;

  static typename Isa::Reg multiply_add(typename Isa::Reg a, typename Isa::Reg b,
                                        typename Isa::Reg sum) {
    return Isa::add_pair_products(sum, a, b);
  }
  static typename Isa::Reg load(const Bf16* row, int64_t unit, int64_t width) {
    const Bf16* at = row + 2 * unit;
    const int64_t left = width - 2 * unit;
    if (left >= 2 * Isa::kWidth) return Isa::load(reinterpret_cast<const float*>(at));
    Bf16 filled[2 * Isa::kWidth] = {};
    for (int64_t j = 0; j < left; ++j) filled[j] = at[j];
    return Isa::load(reinterpret_cast<const float*>(filled));
  }
  static typename Isa::Reg load_values(const Bf16* const* rows, int64_t x, int64_t width) {
    // A float's upper half is its bfloat16: the second row needs no shift, the first one does.
    const auto low = Isa::as_int(load_lanes<Isa>(rows[0] + x, width - x));
    const auto high = Isa::as_int(load_lanes<Isa>(rows[1] + x, width - x));
    return Isa::as_float(Isa::ixor(Isa::template shift_right<16>(low), high));
  }
  static void store_weights(float* units, int64_t key, typename Isa::Reg p) {
    store_lanes<Isa>(reinterpret_cast<Bf16*>(units) + key, p, Isa::kWidth);
  }
};

inline constexpr int kTileHeads = 8;
inline constexpr int kTileRegs = 3;              ///< 8 x 3 sums and 3 columns fit 32 registers
inline constexpr int64_t kChunkUnits = 256;      ///< units of keys whose values fit L2 at V = 512
inline constexpr int64_t kSharedAlignment = 16;  ///< floats

/// c[heads][regs] (+)= a[heads][n] * b[n][regs registers].
template <class Isa, class Units, int kHeads, int kRegs>
void product_tile(const float* a, int64_t a_stride, const float* b, int64_t n, float* c,
                  int64_t c_stride, bool add) {
  typename Isa::Reg sum[kHeads][kRegs];
#pragma GCC unroll 8
  for (int h = 0; h < kHeads; ++h)
#pragma GCC unroll 3
    for (int r = 0; r < kRegs; ++r)
      sum[h][r] = add ? Isa::load(c + h * c_stride + r * Isa::kWidth) : Isa::zero();
  for (int64_t u = 0; u < n; ++u, b += kRegs * Isa::kWidth) {
    typename Isa::Reg column[kRegs];
#pragma GCC unroll 3
    for (int r = 0; r < kRegs; ++r) column[r] = Isa::load(b + r * Isa::kWidth);
#pragma GCC unroll 8
    for (int h = 0; h < kHeads; ++h) {
      const auto x = Isa::set1(a[h * a_stride + u]);
#pragma GCC unroll 3
      for (int r = 0; r < kRegs; ++r) sum[h][r] = Units::multiply_add(x, column[r], sum[h][r]);
    }
  }
#pragma GCC unroll 8
  for (int h = 0; h < kHeads; ++h)
#pragma GCC unroll 3
    for (int r = 0; r < kRegs; ++r) Isa::store(c + h * c_stride + r * Isa::kWidth, sum[h][r]);
}

template <class Isa, class Units, int kRegs>
void product_columns(const float* a, int64_t a_stride, int64_t heads, const float* b, int64_t n,
                     float* c, int64_t c_stride, bool add) {
  int64_t h = 0;
  for (; h + kTileHeads <= heads; h += kTileHeads)
    product_tile<Isa, Units, kTileHeads, kRegs>(a + h * a_stride, a_stride, b, n, c + h * c_stride,
                                                c_stride, add);
  for (; h < heads; ++h)
    product_tile<Isa, Units, 1, kRegs>(a + h * a_stride, a_stride, b, n, c + h * c_stride, c_stride,
                                       add);
}

/// One panel of `regs` registers of columns for all heads.
template <class Isa, class Units>
void product_panel(const float* a, int64_t a_stride, int64_t heads, const float* b, int64_t n,
                   int64_t regs, float* c, int64_t c_stride, bool add) {
  if (regs == 3) return product_columns<Isa, Units, 3>(a, a_stride, heads, b, n, c, c_stride, add);
  if (regs == 2) return product_columns<Isa, Units, 2>(a, a_stride, heads, b, n, c, c_stride, add);
  product_columns<Isa, Units, 1>(a, a_stride, heads, b, n, c, c_stride, add);
}

/// Sizes of one call's scratch, in floats; every part begins at a cache line.
template <class Isa, class Units>
struct SharedSizes {
  int64_t units;  ///< of a q or k row
  int64_t chunk;  ///< keys done at a time
  int64_t v_padded;

  explicit SharedSizes(const SharedBlock& b)
      : units((b.width + Units::kElements - 1) / Units::kElements),
        chunk(kChunkUnits * Units::kElements),
        v_padded(rounded_up<Isa>(b.v_width)) {}

  int64_t q_stride() const { return rounded_up<Isa>(units); }
  int64_t total(int64_t heads) const {
    return heads * (q_stride() + chunk + kChunkUnits + v_padded + 2) +
           units * kTileRegs * Isa::kWidth + kChunkUnits * v_padded + 7 * kSharedAlignment;
  }
};

template <class Isa, class Units>
int64_t shared_scratch_of(const SharedBlock& b) {
  return SharedSizes<Isa, Units>(b).total(b.heads);
}

/// One query at a time: its heads, and the keys it selected.
template <class Isa, class Units>
class SharedQuery {
 public:
  SharedQuery(const SharedBlock& b, int64_t query)
      : b_(b),
        n_(b),
        query_(static_cast<const Source*>(b.q) + query * b.q_token),
        ids_(b.ids + query * b.top_k),
        count_(b.counts[query]),
        result_(static_cast<Source*>(b.out) + query * b.out_token),
        lse_(b.lse + query * b.lse_token) {
    float* at = b.scratch;
    const auto take = [&](int64_t floats) {
      float* part = at;
      at += (floats + kSharedAlignment - 1) / kSharedAlignment * kSharedAlignment;
      return part;
    };
    q_ = take(b.heads * n_.q_stride());
    keys_ = take(n_.units * kTileRegs * Isa::kWidth);
    scores_ = take(b.heads * n_.chunk);
    weights_ = take(b.heads * kChunkUnits);
    values_ = take(kChunkUnits * n_.v_padded);
    out_ = take(b.heads * n_.v_padded);
    largest_ = take(b.heads);
    sum_ = take(b.heads);
  }

  void forward() {
    for (int64_t h = 0; h < b_.heads; ++h) {
      const Source* q = query_ + h * b_.width;
      for (int64_t u = 0; u < n_.units; u += Isa::kWidth)
        Isa::store(q_ + h * n_.q_stride() + u, Units::load(q, u, b_.width));
      largest_[h] = kLowest;
      sum_[h] = 0;
    }
    for (int64_t first = 0; first < count_; first += n_.chunk) {
      const int64_t keys = count_ - first < n_.chunk ? count_ - first : n_.chunk;
      score(ids_ + first, keys);
      pack_values(ids_ + first, keys);
      weigh(keys, first > 0);
      add_values(keys, first > 0);
    }
    store();
  }

 private:
  using Reg = typename Isa::Reg;
  using Source = typename Units::Source;
  static constexpr int64_t W = Isa::kWidth;

  /// The last key stands in for those that fill up a register: a row of a key that was not selected
  /// must not enter, even with weight 0, for it may hold NaN.
  static int64_t id_at(const int32_t* ids, int64_t keys, int64_t i) {
    return ids[i < keys ? i : keys - 1];
  }

  /// keys_[units][regs * W] of keys [first, first + regs * W).
  void pack_keys(const int32_t* ids, int64_t keys, int64_t first, int64_t regs) {
    for (int64_t r = 0; r < regs; ++r) {
      const Source* rows[W];
      for (int64_t j = 0; j < W; ++j)
        rows[j] =
            static_cast<const Source*>(b_.k) + id_at(ids, keys, first + r * W + j) * b_.k_stride;
      for (int64_t u = 0; u < n_.units; u += W) {
        Reg block[W];
        for (int64_t j = 0; j < W; ++j) block[j] = Units::load(rows[j], u, b_.width);
        transpose<Isa>(block);
        const int64_t whole = n_.units - u < W ? n_.units - u : W;
        for (int64_t j = 0; j < whole; ++j) Isa::store(keys_ + ((u + j) * regs + r) * W, block[j]);
      }
    }
  }

  void score(const int32_t* ids, int64_t keys) {
    for (int64_t first = 0; first < keys; first += kTileRegs * W) {
      const int64_t left = (keys - first + W - 1) / W;
      const int64_t regs = left < kTileRegs ? left : kTileRegs;
      pack_keys(ids, keys, first, regs);
      product_panel<Isa, Units>(q_, n_.q_stride(), b_.heads, keys_, n_.units, regs, scores_ + first,
                                n_.chunk, false);
    }
  }

  /// values_[panels of kTileRegs * W columns][units of keys][columns of the panel].
  void pack_values(const int32_t* ids, int64_t keys) {
    const int64_t key_units = (keys + Units::kElements - 1) / Units::kElements;
    for (int64_t u = 0; u < key_units; ++u) {
      const Source* rows[Units::kElements];
      for (int64_t j = 0; j < Units::kElements; ++j)
        rows[j] = static_cast<const Source*>(b_.v) +
                  id_at(ids, keys, u * Units::kElements + j) * b_.v_stride;
      for (int64_t x = 0; x < n_.v_padded; x += W) {
        const int64_t panel = x / (kTileRegs * W) * kTileRegs * W;
        const int64_t left = n_.v_padded - panel;
        const int64_t columns = left < kTileRegs * W ? left : kTileRegs * W;
        Isa::store(values_ + panel * key_units + u * columns + x - panel,
                   Units::load_values(rows, x, b_.v_width));
      }
    }
  }

  /// scores_ -> weights_ relative to the largest score so far; what was summed before is rescaled.
  void weigh(int64_t keys, bool rescale) {
    const auto factor = Isa::set1(b_.scale * kLog2E);
    const int64_t filled = (keys + 2 * W - 1) / (2 * W) * (2 * W);
    for (int64_t h = 0; h < b_.heads; ++h) {
      float* s = scores_ + h * n_.chunk;
      float* weights = weights_ + h * kChunkUnits;
      auto largest = Isa::set1(largest_[h]), poison = Isa::zero();
      for (int64_t c = 0; c < keys; c += W) {
        const auto lanes = Isa::first(keys - c);
        const auto x = Isa::mul(factor, Isa::load(s + c, lanes));
        poison = Isa::fma(x, Isa::zero(), poison);  // max and exp2 lose a NaN
        largest = Isa::max(largest, Isa::blend(lanes, x, Isa::set1(kLowest)));
      }
      const float top = Isa::reduce_max(largest);
      const auto shift = Isa::set1(top);
      auto sum = poison;
      for (int64_t c = 0; c < filled; c += W) {
        const auto lanes = Isa::first(keys - c > 0 ? keys - c : 0);
        const auto x = Isa::sub(Isa::mul(factor, Isa::load(s + c, lanes)), shift);
        const auto p = Isa::keep(lanes, exp2<Isa>(x));
        sum = Isa::add(sum, p);
        if (c < kChunkUnits * Units::kElements) Units::store_weights(weights, c, p);
      }
      if (rescale) rescale_head(h, top);
      sum_[h] += Isa::reduce_add(sum);
      largest_[h] = top;
    }
  }

  void rescale_head(int64_t h, float top) {
    if (largest_[h] == top) return;
    float lane[W] = {largest_[h] - top};
    Isa::store(lane, exp2<Isa>(Isa::load(lane)));
    sum_[h] *= lane[0];
    const auto factor = Isa::set1(lane[0]);
    for (float* x = out_ + h * n_.v_padded; x < out_ + (h + 1) * n_.v_padded; x += W)
      Isa::store(x, Isa::mul(factor, Isa::load(x)));
  }

  void add_values(int64_t keys, bool add) {
    const int64_t key_units = (keys + Units::kElements - 1) / Units::kElements;
    for (int64_t x = 0; x < n_.v_padded; x += kTileRegs * W) {
      const int64_t left = (n_.v_padded - x) / W;
      product_panel<Isa, Units>(weights_, kChunkUnits, b_.heads, values_ + x * key_units, key_units,
                                left < kTileRegs ? left : kTileRegs, out_ + x, n_.v_padded, add);
    }
  }

  void store() {
    for (int64_t h = 0; h < b_.heads; ++h) {
      Source* out = result_ + h * b_.v_width;
      const bool empty = count_ == 0;
      lse_[h] = empty ? -__builtin_inff() : (largest_[h] + __builtin_log2f(sum_[h])) * kLn2;
      const auto factor = Isa::set1(empty ? 0.0f : 1.0f / sum_[h]);
      for (int64_t x = 0; x < b_.v_width; x += W) {
        const auto total = empty ? Isa::zero() : Isa::load(out_ + h * n_.v_padded + x);
        store_lanes<Isa>(out + x, Isa::mul(factor, total), b_.v_width - x);
      }
    }
  }

  const SharedBlock& b_;
  const SharedSizes<Isa, Units> n_;
  const Source* query_;
  const int32_t* ids_;
  int64_t count_;
  Source* result_;
  float* lse_;
  float *q_, *keys_, *scores_, *weights_, *values_, *out_, *largest_, *sum_;
};

template <class Isa, class Units>
void shared_forward_of(const SharedBlock& b) {
  for (int64_t query = 0; query < b.queries; ++query) SharedQuery<Isa, Units>(b, query).forward();
}

template <class Isa, class Units>
constexpr SharedKernel shared_kernel_of() {
  return {shared_scratch_of<Isa, Units>, shared_forward_of<Isa, Units>};
}

}  // namespace dsa::cpu
