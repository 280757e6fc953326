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
    /// Of the two zeros the lower, as in `key_below`: a bracket around a plateau of zeros is then closed.
    int64_t high() const {
      const int64_t key = order_key(Isa::reduce_max(largest));
      return key == 0 ? -1 : key;
    }
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
    int64_t kept = 0, s = 0;
    const auto keep = [&](Reg x, uint32_t valid) {
      const uint32_t inside =
          valid & Isa::bits(Isa::not_le(x, low)) & ~Isa::bits(Isa::not_le(x, high));
      Isa::compress_store(out + kept, Isa::from_bits(inside), x);
      kept += __builtin_popcount(inside);
    };
    // Whole registers apart: to make the mask of valid lanes takes longer than both comparisons.
    for (; s + kWidth <= n; s += kWidth) keep(Isa::load(scores + s), ~0u);
    if (s < n) keep(Isa::load(scores + s), Isa::bits(Isa::first(n - s)));
    return kept;
  }

  /// Batcher's odd-even merge sort of 16 as a list of pairs to compare.
  struct Network {
    int8_t first[63] = {}, second[63] = {};
    constexpr Network() {
      int8_t n = 0;
      for (int p = 1; p < 16; p *= 2)
        for (int k = p; k >= 1; k /= 2)
          for (int j = k % p; j + k < 16; j += 2 * k)
            for (int i = j; i < j + k && i + k < 16; ++i)
              if (i / (2 * p) == (i + k) / (2 * p)) {
                first[n] = static_cast<int8_t>(i);
                second[n++] = static_cast<int8_t>(i + k);
              }
    }
  };

  /// A first value to count at, and how far apart scores lie near it.
  struct Estimate {
    float value, gap;
  };

  /// Estimates the score that `wanted` of n >= 16 * kWidth lie above. Sixteen registers sorted lane by
  /// lane give kWidth estimates of every sixteenth; their mean is as good as the quantile of all
  /// 16 * kWidth, and costs no branch.
  static Estimate estimate(const float* scores, int64_t n, int64_t wanted) {
    Reg x[16];
#pragma GCC unroll 16
    for (int v = 0; v < 16; ++v) x[v] = Isa::load(scores + v * ((n - kWidth) / 15));
    constexpr Network kNetwork;
#pragma GCC unroll 63
    for (int c = 0; c < 63; ++c) {
      const Reg a = x[kNetwork.first[c]], b = x[kNetwork.second[c]];
      x[kNetwork.first[c]] = Isa::max(a, b);
      x[kNetwork.second[c]] = Isa::min(a, b);
    }
    // x[i] estimates the score with a share of (i + 1) / 17 above it.
    const float place = 17.0f * static_cast<float>(wanted) / static_cast<float>(n) - 1;
    const int i = place <= 0 ? 0 : place >= 14 ? 14 : static_cast<int>(place);
    const float upper = Isa::reduce_add(x[i]) / kWidth, lower = Isa::reduce_add(x[i + 1]) / kWidth;
    const float share = place <= 0 ? 0 : place >= 15 ? 1 : place - static_cast<float>(i);
    return {upper + share * (lower - upper), (upper - lower) * 17 / static_cast<float>(n)};
  }

  /// What to narrow down: among `scores`, a value with wanted..wanted+slack above it.
  struct Candidates {
    const float* scores;
    int64_t n, wanted, slack;
    float* spare;  ///< room for n scores
  };

  /// The wanted-th best of at most 2 * kWidth scores, below `above_scores` others: each lane counts
  /// the scores above its own, so no count waits for the one before.
  static Bracket rank_all(const Candidates& search, int64_t above_scores) {
    const Mask has[2] = {Isa::first(search.n),
                         Isa::first(search.n > kWidth ? search.n - kWidth : 0)};
    const Reg x[2] = {Isa::load(search.scores, has[0]), Isa::load(search.scores + kWidth, has[1])};
    auto above0 = Isa::iset1(0), above1 = Isa::iset1(0);
    for (int64_t s = 0; s < search.n; ++s) {
      const Reg score = Isa::set1(search.scores[s]);
      above0 = Isa::count(above0, Isa::gt(score, x[0]));
      above1 = Isa::count(above1, Isa::gt(score, x[1]));
    }
    const auto wanted = Isa::iset1(static_cast<int32_t>(search.wanted - above_scores));
    Extremes best;
    best.add(Isa::both(has[0], Isa::igt(wanted, above0)), x[0]);
    best.add(Isa::both(has[1], Isa::igt(wanted, above1)), x[1]);
    const Reg value = Isa::set1(Isa::reduce_min(best.smallest));
    int64_t above = above_scores, not_below = above_scores;
    for (int v = 0; v < 2; ++v) {
      const int64_t larger = Isa::popcount(Isa::both(has[v], Isa::gt(x[v], value)));
      above += larger;
      not_below += larger + Isa::popcount(Isa::both(has[v], Isa::eq(x[v], value)));
    }
    return {best.low(), best.low() + 1, not_below, above};
  }

  /// The value to count at in this step. The first is an estimate from a sample; the second goes as
  /// far from it as the scores lie apart there, and half as far again so as to have the wanted one
  /// between the two.
  struct Pivots {
    Estimate sample{};
    bool is_sampled = false;
    int64_t last_above = 0;

    int64_t next(const Candidates& search, const Bracket& bracket, int step) {
      const int64_t middle = search.wanted + search.slack / 2;
      int64_t pivot = bracket.low;
      if (step == 0 && search.n >= 16 * kWidth) {
        sample = estimate(search.scores, search.n, middle);
        is_sampled = true;
        pivot = order_key(sample.value);
      } else if (step == 1 && is_sampled) {
        const auto distance = static_cast<float>(last_above - middle);
        const float beyond = 0.5f * distance + (distance < 0 ? -4 : 4);
        pivot = order_key(sample.value + sample.gap * (distance + beyond));
      }
      if (pivot > bracket.low && pivot < bracket.high) return pivot;
      return next_pivot(bracket, middle, step);
    }
  };

  /// Narrows `bracket` until some value has wanted..wanted+slack scores above it (then low = high =
  /// its key), or until `high` is the wanted-th best value itself.
  static void narrow(Candidates search, Bracket& bracket) {
    int64_t above_scores = 0;  // how many lie above all of the scores still searched
    Pivots pivots;
    for (int step = 0; bracket.high - bracket.low > 1; ++step) {
      if (search.n <= 2 * kWidth) {
        bracket = rank_all(search, above_scores);
        return;
      }
      if (step % 3 == 2) {
        tighten(search.scores, search.n, bracket);
        if (bracket.high - bracket.low <= 1) return;
      }
      const int64_t pivot = pivots.next(search, bracket, step);
      const int64_t above =
          above_scores + count_above(search.scores, search.n, from_order_key(pivot));
      pivots.last_above = above;
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
      if (search.n > kWidth && bracket.above_low - bracket.above_high <= search.n / 2) {
        search.n = keep_inside(search.scores, search.n, bracket, search.spare);
        search.scores = search.spare;
        above_scores = bracket.above_high;
      }
    }
  }
};

}  // namespace dsa::cpu
