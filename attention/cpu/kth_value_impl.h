// The K-th best of some scores, for any ISA: counting passes over a shrinking set, between ends that
// close in by interpolation.
#pragma once
#include <cstdint>

namespace dsa::cpu {

template <class Isa>
struct KthValue {
  using Reg = typename Isa::Reg;
  using Mask = typename Isa::Mask;
  static constexpr int64_t kWidth = Isa::kWidth;

  static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

  /// Integers in the order of the floats; the only place where -0 < +0.
  static int32_t order_key(float value) {
    int32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits ^ static_cast<int32_t>(static_cast<uint32_t>(bits >> 31) >> 1);
  }
  static float from_order_key(int64_t key) {
    int32_t bits = static_cast<int32_t>(key);
    bits ^= static_cast<int32_t>(static_cast<uint32_t>(bits >> 31) >> 1);
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
  }

  static int64_t count_above(const float* scores, int64_t n, float pivot) {
    const Reg pivots = Isa::set1(pivot);
    // Two counters: one chain waits for the previous addition.
    auto even = Isa::iset1(0), odd = Isa::iset1(0);
    int64_t s = 0;
    for (; s + 2 * kWidth <= n; s += 2 * kWidth) {
      even = Isa::count(even, Isa::gt(Isa::load(scores + s), pivots));
      odd = Isa::count(odd, Isa::gt(Isa::load(scores + s + kWidth), pivots));
    }
    for (; s < n; s += kWidth) {
      even = Isa::count(even, Isa::both(Isa::first(n - s), Isa::gt(Isa::load(scores + s), pivots)));
    }
    return Isa::ireduce_add(even) + Isa::ireduce_add(odd);
  }

  /// Where the K-th best value lies: count(> low) = above_low >= K > above_high = count(> high).
  struct Bracket {
    int64_t low, high;  ///< order keys
    int64_t above_low, above_high;
  };

  /// The order key below that of x; both zeros are one value.
  static int64_t key_below(float x) {
    const int64_t key = order_key(x);
    return key == 0 ? -2 : key - 1;
  }

  /// Smallest and largest of some scores.
  struct Extremes {
    Reg smallest = Isa::set1(__builtin_inff()), largest = Isa::set1(-__builtin_inff());
    void add(Reg x) {
      smallest = Isa::min(smallest, x);
      largest = Isa::max(largest, x);
    }
    void add(Mask m, Reg x) {
      smallest = Isa::min(smallest, Isa::blend(m, x, smallest));
      largest = Isa::max(largest, Isa::blend(m, x, largest));
    }
    int64_t low() const { return key_below(Isa::reduce_min(smallest)); }
    int64_t high() const { return order_key(Isa::reduce_max(largest)); }
  };

  /// The bracket of all n scores; false if one of them is NaN.
  static bool find_bracket(const float* scores, int64_t n, Bracket& bracket) {
    Extremes even, odd;
    Mask is_number = Isa::first(kWidth);
    int64_t s = 0;
    for (; s + 2 * kWidth <= n; s += 2 * kWidth) {
      const Reg x = Isa::load(scores + s), y = Isa::load(scores + s + kWidth);
      is_number = Isa::both(is_number, Isa::both(Isa::eq(x, x), Isa::eq(y, y)));
      even.add(x);
      odd.add(y);
    }
    uint32_t nans = Isa::bits(Isa::first(kWidth)) & ~Isa::bits(is_number);
    for (; s < n; s += kWidth) {
      const Mask valid = Isa::first(n - s);
      const Reg x = Isa::load(scores + s);
      nans |= Isa::bits(valid) & ~Isa::bits(Isa::eq(x, x));
      even.add(valid, x);
    }
    even.add(odd.smallest);
    even.add(odd.largest);
    bracket = {even.low(), even.high(), n, 0};
    return nans == 0;
  }

  /// Moves the ends of the bracket to scores that exist: without this, a few far values leave many
  /// steps between them and a plateau.
  static void tighten(const float* scores, int64_t n, Bracket& bracket) {
    const Reg low = Isa::set1(from_order_key(bracket.low));
    const Reg high = Isa::set1(from_order_key(bracket.high));
    Extremes inside;
    for (int64_t s = 0; s < n; s += kWidth) {
      const Reg x = Isa::load(scores + s);
      // "not <=" because below -inf there is no number: the key before -inf reads as NaN.
      const Mask above_low = Isa::both(Isa::first(n - s), Isa::not_le(x, low));
      const uint32_t too_high = Isa::bits(Isa::gt(x, high));
      inside.add(Isa::from_bits(Isa::bits(above_low) & ~too_high), x);
    }
    bracket.low = inside.low();
    bracket.high = inside.high();
  }

  /// The next value to count at: interpolated between the ends of the bracket, and every third time
  /// its middle in integer order, which bounds the number of steps for any distribution.
  static int64_t next_pivot(const Bracket& bracket, int64_t wanted, int step) {
    const float low = from_order_key(bracket.low), high = from_order_key(bracket.high);
    const int64_t middle = (bracket.low + bracket.high) >> 1;
    if (step % 3 == 2 || !__builtin_isfinite(low) || !__builtin_isfinite(high)) return middle;
    const float share = static_cast<float>(bracket.above_low - wanted) /
                        static_cast<float>(bracket.above_low - bracket.above_high);
    const int64_t pivot = order_key(low + (high - low) * share);
    if (pivot <= bracket.low) return bracket.low + 1;
    return pivot >= bracket.high ? bracket.high - 1 : pivot;
  }

  /// Copies the scores inside (low, high] to `out`; returns how many.
  static int64_t keep_inside(const float* scores, int64_t n, const Bracket& bracket, float* out) {
    // "not <=" because below -inf there is no number: the key before -inf reads as NaN.
    const Reg low = Isa::set1(from_order_key(bracket.low));
    const Reg high = Isa::set1(from_order_key(bracket.high));
    int64_t kept = 0;
    for (int64_t s = 0; s < n; s += kWidth) {
      const Reg x = Isa::load(scores + s);
      const Mask candidates = Isa::both(Isa::first(n - s), Isa::not_le(x, low));
      const uint32_t inside = Isa::bits(candidates) & ~Isa::bits(Isa::not_le(x, high));
      Isa::compress_store(out + kept, Isa::from_bits(inside), x);
      kept += __builtin_popcount(inside);
    }
    return kept;
  }

  /// A first value to count at: an estimate of the score that `wanted` of n > 8 * kWidth lie above.
  /// Eight registers sorted lane by lane give kWidth estimates of every eighth; their mean is as
  /// good as the quantile of all 8 * kWidth, and costs no branch.
  static int64_t sample_pivot(const float* scores, int64_t n, int64_t wanted) {
    Reg x[8];
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v) x[v] = Isa::load(scores + v * ((n - kWidth) / 7));
    constexpr int8_t kNetwork[19][2] = {{0, 2}, {1, 3}, {4, 6}, {5, 7}, {0, 4}, {1, 5}, {2, 6},
                                        {3, 7}, {0, 1}, {2, 3}, {4, 5}, {6, 7}, {2, 4}, {3, 5},
                                        {1, 4}, {3, 6}, {1, 2}, {3, 4}, {5, 6}};
#pragma GCC unroll 19
    for (int c = 0; c < 19; ++c) {
      const Reg low = x[kNetwork[c][0]], high = x[kNetwork[c][1]];
      x[kNetwork[c][0]] = Isa::max(low, high);
      x[kNetwork[c][1]] = Isa::min(low, high);
    }
    // x[i] estimates the score with a share of (i + 1) / 9 above it.
    float estimates[8];
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v) estimates[v] = Isa::reduce_add(x[v]) / kWidth;
    const float place = 9.0f * static_cast<float>(wanted) / static_cast<float>(n) - 1;
    if (place <= 0) return order_key(estimates[0]);
    if (place >= 7) return order_key(estimates[7]);
    const int i = static_cast<int>(place);
    const float share = place - static_cast<float>(i);
    return order_key(estimates[i] + share * (estimates[i + 1] - estimates[i]));
  }

  /// What to narrow down: among `scores`, a value with wanted..wanted+slack above it.
  struct Candidates {
    const float* scores;
    int64_t n, wanted, slack;
    float* spare;  ///< room for n scores
  };

  /// Narrows `bracket` until some value has wanted..wanted+slack scores above it (then low = high =
  /// its key), or until `high` is the wanted-th best value itself.
  static void narrow(Candidates search, Bracket& bracket) {
    int64_t above_scores = 0;  // how many lie above all of the scores still searched
    for (int step = 0; bracket.high - bracket.low > 1; ++step) {
      if (step % 3 == 2) {
        tighten(search.scores, search.n, bracket);
        if (bracket.high - bracket.low <= 1) return;
      }
      const int64_t middle = search.wanted + search.slack / 2;
      int64_t pivot = step == 0 && search.n >= 16 * kWidth
                          ? sample_pivot(search.scores, search.n, middle)
                          : bracket.low;
      if (pivot <= bracket.low || pivot >= bracket.high) pivot = next_pivot(bracket, middle, step);
      const int64_t above =
          above_scores + count_above(search.scores, search.n, from_order_key(pivot));
      if (above >= search.wanted && above <= search.wanted + search.slack) {
        bracket = {pivot, pivot, above, above};
        return;
      }
      if (above >= search.wanted) {
        bracket.low = pivot;
        bracket.above_low = above;
      } else {
        bracket.high = pivot;
        bracket.above_high = above;
      }
      if (search.n > 4 * kWidth && bracket.above_low - bracket.above_high <= search.n / 2) {
        search.n = keep_inside(search.scores, search.n, bracket, search.spare);
        search.scores = search.spare;
        above_scores = bracket.above_high;
      }
    }
  }
};

}  // namespace dsa::cpu
