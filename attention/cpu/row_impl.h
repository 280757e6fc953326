// The row kernels for one ISA; row_<isa>.cpp makes the struct once. All are bound by reading and
// writing their rows, but for cross_entropy: two exponentials a logit, from L2.
#pragma once
#include "attention/cpu/bf16.h"
#include "attention/cpu/row_kernels.h"

namespace dsa::cpu {

template <class Isa>
struct RowMath {
  using Reg = typename Isa::Reg;
  static constexpr float kLog2e = 1.44269504f, kInfinity = __builtin_inff();

  /// The first n lanes from p, the others `fill`.
  template <class Element>
  [[gnu::always_inline]] static Reg load(const Element* p, int64_t n, float fill) {
    const Reg x = load_lanes<Isa>(p, n);
    return n >= Isa::kWidth ? x : Isa::blend(Isa::first(n), x, Isa::set1(fill));
  }
  static float value(const float* p) { return *p; }
  static float value(const Bf16* p) {
    const uint32_t bits = uint32_t{p->bits} << 16;
    float x;
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
  }
  /// 0 or d.factor: the row's places from `at` on. murmur3's finaliser over the place and the key.
  [[gnu::always_inline]] static Reg kept(const RowDropout& d, int64_t at) {
    using Int = typename Isa::Int;
    const auto multiply = [](Int x, uint32_t by) {
      return Isa::imul(x, Isa::iset1(static_cast<int32_t>(by)));
    };
    const Int place = Isa::iadd(Isa::iota(), Isa::iset1(static_cast<int32_t>(at)));
    Int h = Isa::ixor(multiply(place, 0x9e3779b1u), Isa::iset1(static_cast<int32_t>(d.key[0])));
    h = multiply(Isa::ixor(h, Isa::template shift_right<16>(h)), 0x85ebca6bu);
    h = Isa::ixor(h, Isa::iset1(static_cast<int32_t>(d.key[1])));
    h = multiply(Isa::ixor(h, Isa::template shift_right<13>(h)), 0xc2b2ae35u);
    h = Isa::ixor(h, Isa::template shift_right<16>(h));
    return Isa::blend(Isa::igt(Isa::iset1(d.threshold), h), Isa::zero(), Isa::set1(d.factor));
  }
  /// 1 / (1 + e^-x)
  [[gnu::always_inline]] static Reg sigmoid(Reg x) {
    const Reg power = Isa::min(Isa::mul(x, Isa::set1(-kLog2e)), Isa::set1(126.0f));
    const Reg one = Isa::set1(1.0f);
    return Isa::div(one, Isa::add(one, exp2<Isa>(power)));
  }
  [[gnu::always_inline]] static Reg exp_below(Reg x, Reg maximum) {  ///< e^(x - maximum)
    return exp2<Isa>(Isa::mul(Isa::sub(x, maximum), Isa::set1(kLog2e)));
  }
};

template <class Isa, class Element>
struct Rows : RowMath<Isa> {
  using Math = RowMath<Isa>;
  using typename Math::Reg;
  static constexpr int64_t kWidth = Isa::kWidth;

  static Reg lanes(const Element* p, int64_t n) { return load_lanes<Isa>(p, n); }
  static Reg floats(const float* p, int64_t n) { return load_lanes<Isa>(p, n); }
  static void store(Element* p, Reg x, int64_t n) { store_lanes<Isa>(p, x, n); }

  static float maximum_of(const Element* x, int64_t n) {
    Reg a = Isa::set1(-Math::kInfinity), b = a;
    int64_t j = 0;
    for (; j + 2 * kWidth <= n; j += 2 * kWidth) {
      a = Isa::max(a, lanes(x + j, kWidth));
      b = Isa::max(b, lanes(x + j + kWidth, kWidth));
    }
    for (; j < n; j += kWidth) a = Isa::max(a, Math::load(x + j, n - j, -Math::kInfinity));
    return Isa::reduce_max(Isa::max(a, b));
  }

  /// Sum of e^(x - maximum); NaN if a difference is. exp2 alone would take NaN for a small number.
  static float sum_of_exponentials(const Element* x, int64_t n, float maximum) {
    const Reg high = Isa::set1(maximum);
    Reg a = Isa::zero(), b = a;
    auto is_number = Isa::eq(a, a);
    const auto term = [&](Reg lane) {
      const Reg below = Isa::sub(lane, high);
      is_number = Isa::both(is_number, Isa::eq(below, below));
      return exp2<Isa>(Isa::mul(below, Isa::set1(Math::kLog2e)));
    };
    int64_t j = 0;
    for (; j + 2 * kWidth <= n; j += 2 * kWidth) {
      a = Isa::add(a, term(lanes(x + j, kWidth)));
      b = Isa::add(b, term(lanes(x + j + kWidth, kWidth)));
    }
    for (; j < n; j += kWidth) a = Isa::add(a, term(Math::load(x + j, n - j, -Math::kInfinity)));
    const bool all = Isa::popcount(is_number) == kWidth;
    return all ? Isa::reduce_add(Isa::add(a, b)) : __builtin_nanf("");
  }

  static RowLoss cross_entropy(Element* logits, int64_t n, int64_t target, float factor) {
    if (target < 0) {
      for (int64_t j = 0; factor >= 0 && j < n; j += kWidth) store(logits + j, Isa::zero(), n - j);
      return {0, false};
    }
    const float maximum = maximum_of(logits, n);
    const float sum = sum_of_exponentials(logits, n, maximum);
    const float own = Math::value(logits + target);
    RowLoss loss{__builtin_logf(sum) + (maximum - own), own == maximum};
    for (int64_t j = 0; loss.is_first_maximum && j < target; ++j)
      loss.is_first_maximum = Math::value(logits + j) != maximum;
    if (factor < 0) return loss;
    const Reg high = Isa::set1(maximum), share = Isa::set1(factor / sum);
    for (int64_t j = 0; j < n; j += kWidth) {
      const Reg p = Math::exp_below(lanes(logits + j, n - j), high);
      store(logits + j, Isa::mul(p, share), n - j);
    }
    const float wanted = (__builtin_expf(own - maximum) / sum - 1.0f) * factor;
    store(logits + target, Isa::set1(wanted), 1);
    return loss;
  }

  static float rms_norm(const float* x, const float* scale, int64_t n, float epsilon,
                        Element* out) {
    Reg squares = Isa::zero();
    for (int64_t j = 0; j < n; j += kWidth) {
      const Reg lane = floats(x + j, n - j);
      squares = Isa::fma(lane, lane, squares);
    }
    const float mean = Isa::reduce_add(squares) / static_cast<float>(n);
    const float factor = 1.0f / __builtin_sqrtf(mean + epsilon);
    for (int64_t j = 0; j < n; j += kWidth) {
      const Reg normed = Isa::mul(floats(x + j, n - j), Isa::set1(factor));
      store(out + j, Isa::mul(normed, floats(scale + j, n - j)), n - j);
    }
    return factor;
  }

  static void rms_norm_backward(const Element* dout, const float* x, const float* scale,
                                float factor, int64_t n, float* dx, float* dscale) {
    Reg along = Isa::zero();
    for (int64_t j = 0; j < n; j += kWidth) {
      const Reg g = Isa::mul(lanes(dout + j, n - j), floats(scale + j, n - j));
      along = Isa::fma(g, floats(x + j, n - j), along);
    }
    const float pull = -Isa::reduce_add(along) / static_cast<float>(n) * factor * factor * factor;
    for (int64_t j = 0; j < n; j += kWidth) {
      const int64_t left = n - j;
      const Reg g = lanes(dout + j, left), lane = floats(x + j, left);
      const Reg straight = Isa::mul(Isa::mul(g, floats(scale + j, left)), Isa::set1(factor));
      store_lanes<Isa>(dx + j, Isa::fma(lane, Isa::set1(pull), straight), left);
      const Reg normed = Isa::mul(lane, Isa::set1(factor));
      store_lanes<Isa>(dscale + j, Isa::fma(g, normed, floats(dscale + j, left)), left);
    }
  }

  static void rotate(const Element* x, const float* cos, const float* sin, const RowRotation& r,
                     Element* out) {
    const int64_t half = r.turned / 2;
    for (int64_t head = 0; head < r.heads; ++head, x += r.width, out += r.width) {
      if (r.interleaved) {
        for (int64_t j = 0; j < half; ++j) {
          const float a = Math::value(x + 2 * j), b = Math::value(x + 2 * j + 1);
          const float s = r.direction * sin[j];
          store(out + 2 * j, Isa::set1(a * cos[j] - b * s), 1);
          store(out + 2 * j + 1, Isa::set1(b * cos[j] + a * s), 1);
        }
      } else {
        for (int64_t j = 0; j < half; j += kWidth) {
          const int64_t left = half - j;
          const Reg a = lanes(x + j, left), b = lanes(x + half + j, left);
          const Reg c = floats(cos + j, left);
          const Reg s = Isa::mul(floats(sin + j, left), Isa::set1(r.direction));
          store(out + j, Isa::sub(Isa::mul(a, c), Isa::mul(b, s)), left);
          store(out + half + j, Isa::fma(a, s, Isa::mul(b, c)), left);
        }
      }
      for (int64_t j = r.turned; j < r.width; ++j) out[j] = x[j];
    }
  }

  static void add_dropped(const float* x, const Element* branch, const RowDropout& d, int64_t n,
                          float* out) {
    for (int64_t j = 0; j < n; j += kWidth) {
      const Reg sum = Isa::fma(lanes(branch + j, n - j), Math::kept(d, j), floats(x + j, n - j));
      store_lanes<Isa>(out + j, sum, n - j);
    }
  }

  static void dropped(const float* x, const RowDropout& d, int64_t n, Element* out) {
    for (int64_t j = 0; j < n; j += kWidth)
      store(out + j, Isa::mul(floats(x + j, n - j), Math::kept(d, j)), n - j);
  }

  static void silu_dropped(const Element* x, const RowDropout& d, int64_t n, Element* out) {
    for (int64_t j = 0; j < n; j += kWidth) {
      const Reg lane = lanes(x + j, n - j);
      store(out + j, Isa::mul(Isa::mul(lane, Math::sigmoid(lane)), Math::kept(d, j)), n - j);
    }
  }

  /// silu'(x) = s (1 + x (1 - s)), s = sigmoid(x)
  static void silu_dropped_backward(const Element* x, const Element* dout, const RowDropout& d,
                                    int64_t n, Element* dx) {
    const Reg one = Isa::set1(1.0f);
    for (int64_t j = 0; j < n; j += kWidth) {
      const Reg lane = lanes(x + j, n - j), s = Math::sigmoid(lane);
      const Reg slope = Isa::mul(s, Isa::fma(lane, Isa::sub(one, s), one));
      const Reg g = Isa::mul(lanes(dout + j, n - j), Math::kept(d, j));
      store(dx + j, Isa::mul(g, slope), n - j);
    }
  }

  static void mix(const Element* rows, const int64_t* places, const float* shares, int64_t copies,
                  int64_t n, Element* out) {
    for (int64_t j = 0; j < n; j += kWidth) {
      Reg sum = Isa::zero();
      for (int64_t a = 0; a < copies; ++a)
        sum = Isa::fma(lanes(rows + places[a] * n + j, n - j), Isa::set1(shares[a]), sum);
      store(out + j, sum, n - j);
    }
  }

  static void mix_backward(const Element* rows, const int64_t* places, const float* shares,
                           int64_t copies, int64_t n, const Element* dout, Element* drows,
                           float* dshares) {
    for (int64_t a = 0; a < copies; ++a) {
      const Element* row = rows + places[a] * n;
      Element* drow = drows + places[a] * n;
      Reg dot = Isa::zero();
      for (int64_t j = 0; j < n; j += kWidth) {
        const Reg g = lanes(dout + j, n - j);
        dot = Isa::fma(lanes(row + j, n - j), g, dot);
        store(drow + j, Isa::mul(g, Isa::set1(shares[a])), n - j);
      }
      dshares[a] = Isa::reduce_add(dot);
    }
  }

  static constexpr RowwiseKernelsOf<Element> kernels() {
    return {.cross_entropy = cross_entropy,
            .rms_norm = rms_norm,
            .rms_norm_backward = rms_norm_backward,
            .rotate = rotate,
            .add_dropped = add_dropped,
            .dropped = dropped,
            .silu_dropped = silu_dropped,
            .silu_dropped_backward = silu_dropped_backward,
            .mix = mix,
            .mix_backward = mix_backward};
  }
};

template <class Isa>
struct RowAttention : Rows<Isa, float> {
  using Math = RowMath<Isa>;
  using typename Math::Reg;
  static constexpr int64_t kWidth = Isa::kWidth;

  static float softmax_dropped(float* scores, int64_t seen, int64_t n, float scale,
                               const RowDropout& d) {
    for (int64_t j = 0; j < seen; j += kWidth) {
      const Reg scaled = Isa::mul(load_lanes<Isa>(scores + j, seen - j), Isa::set1(scale));
      store_lanes<Isa>(scores + j, scaled, seen - j);
    }
    const float maximum = Rows<Isa, float>::maximum_of(scores, seen);
    const float sum = Rows<Isa, float>::sum_of_exponentials(scores, seen, maximum);
    const float lse = maximum + __builtin_logf(sum);
    const Reg high = Isa::set1(maximum), share = Isa::set1(1.0f / sum);
    for (int64_t j = 0; j < seen; j += kWidth) {
      const Reg p = Isa::mul(Math::exp_below(load_lanes<Isa>(scores + j, seen - j), high), share);
      store_lanes<Isa>(scores + j, Isa::mul(p, Math::kept(d, j)), seen - j);
    }
    for (int64_t j = seen; j < n; ++j) scores[j] = 0;
    return lse;
  }

  static void softmax_dropped_backward(float* scores, float* dout, int64_t seen, int64_t n,
                                       float scale, float lse, float delta, const RowDropout& d) {
    const Reg high = Isa::set1(lse), sum = Isa::set1(delta), by = Isa::set1(scale);
    for (int64_t j = 0; j < seen; j += kWidth) {
      const int64_t left = seen - j;
      const Reg score = Isa::mul(load_lanes<Isa>(scores + j, left), by);
      // Rounding may put a score an ulp above the log-sum-exp, which exp2 bears.
      const Reg p = Math::exp_below(score, high), kept = Isa::mul(p, Math::kept(d, j));
      const Reg g = Isa::sub(Isa::mul(kept, load_lanes<Isa>(dout + j, left)), Isa::mul(p, sum));
      store_lanes<Isa>(scores + j, kept, left);
      store_lanes<Isa>(dout + j, Isa::mul(g, by), left);
    }
    for (int64_t j = seen; j < n; ++j) scores[j] = dout[j] = 0;
  }
};

template <class Isa>
constexpr RowwiseKernels rowwise_kernels_of() {
  return {.f32 = Rows<Isa, float>::kernels(),
          .bf16 = Rows<Isa, Bf16>::kernels(),
          .softmax_dropped = RowAttention<Isa>::softmax_dropped,
          .softmax_dropped_backward = RowAttention<Isa>::softmax_dropped_backward};
}

}  // namespace dsa::cpu
