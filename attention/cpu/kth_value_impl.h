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

  /// Sixteen registers sorted lane by lane, falling: kWidth samples of 16, without a branch.
  struct SortedLanes {
    Reg x[16];

    /// Every `stride` scores one register.
    [[gnu::always_inline]] SortedLanes(const float* scores, int64_t stride) {
#pragma GCC unroll 16
      for (int v = 0; v < 16; ++v) x[v] = Isa::load(scores + v * stride);
      constexpr Network kNetwork;
#pragma GCC unroll 63
      for (int c = 0; c < 63; ++c) {
        const Reg a = x[kNetwork.first[c]], b = x[kNetwork.second[c]];
        x[kNetwork.first[c]] = Isa::max(a, b);
        x[kNetwork.second[c]] = Isa::min(a, b);
      }
    }

    /// Estimates the score that `wanted` of n lie above: the mean over lanes of every sixteenth is as
    /// good as the quantile of all 16 * kWidth.
    Estimate estimate(int64_t n, int64_t wanted) const {
      // x[i] estimates the score with a share of (i + 1) / 17 above it.
      const float place = 17.0f * static_cast<float>(wanted) / static_cast<float>(n) - 1;
      const int i = place <= 0 ? 0 : place >= 14 ? 14 : static_cast<int>(place);
      const float upper = Isa::reduce_add(x[i]) / kWidth;
      const float lower = Isa::reduce_add(x[i + 1]) / kWidth;
      const float share = place <= 0 ? 0 : place >= 15 ? 1 : place - static_cast<float>(i);
      return {upper + share * (lower - upper), (upper - lower) * 17 / static_cast<float>(n)};
    }

    /// How many of the sample lie above a score.
    int64_t count_above(float score) const {
      const Reg pivot = Isa::set1(score);
      auto even = Isa::iset1(0), odd = Isa::iset1(0);
#pragma GCC unroll 8
      for (int v = 0; v < 16; v += 2) {
        even = Isa::count(even, Isa::gt(x[v], pivot));
        odd = Isa::count(odd, Isa::gt(x[v + 1], pivot));
      }
      return Isa::ireduce_add(even) + Isa::ireduce_add(odd);
    }
  };

  /// Of n >= 16 * kWidth scores.
  static Estimate estimate(const float* scores, int64_t n, int64_t wanted) {
    return SortedLanes(scores, (n - kWidth) / 15).estimate(n, wanted);
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

    /// @param above_scores  how many lie above all of the scores searched
    int64_t next(const Candidates& search, int64_t above_scores, const Bracket& bracket, int step) {
      const int64_t middle = search.wanted + search.slack / 2;
      int64_t pivot = bracket.low;
      if (step == 0 && search.n >= 16 * kWidth) {
        sample = estimate(search.scores, search.n, middle - above_scores);
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

  /// One pass instead of three around an estimate: counts the scores above it and keeps those near it, 2.5
  /// standard deviations of its rank to either side, which about one estimate in a hundred misses. The
  /// bracket is narrower either way; returns how many scores lie above all of those still searched.
  static int64_t keep_window(Candidates& search, Bracket& bracket) {
    const Estimate sample = estimate(search.scores, search.n, search.wanted);
    const auto n = static_cast<float>(search.n), wanted = static_cast<float>(search.wanted);
    const float deviation = __builtin_sqrtf(wanted * (n - wanted) / (16 * kWidth));
    const float reach = sample.gap * (2.5f * deviation + 1);
    const int64_t lower = order_key(sample.value - reach), upper = order_key(sample.value + reach);
    if (lower >= bracket.high || upper <= bracket.low) return 0;
    const int64_t low = lower > bracket.low ? lower : bracket.low,
                  high = least(upper, bracket.high);
    const Reg lows = Isa::set1(from_order_key(low)), highs = Isa::set1(from_order_key(high));
    auto above = Isa::iset1(0);
    int64_t inside = 0;
    const auto split = [&](Reg x, Mask valid) {
      const Mask is_above = Isa::both(valid, Isa::gt(x, highs));
      const uint32_t is_inside =
          Isa::bits(Isa::both(valid, Isa::not_le(x, lows))) & ~Isa::bits(is_above);
      above = Isa::count(above, is_above);
      Isa::compress_store(search.spare + inside, Isa::from_bits(is_inside), x);
      inside += __builtin_popcount(is_inside);
    };
    const Mask all = Isa::first(kWidth);
    int64_t s = 0;
    for (; s + kWidth <= search.n; s += kWidth) split(Isa::load(search.scores + s), all);
    if (s < search.n) split(Isa::load(search.scores + s), Isa::first(search.n - s));
    const int64_t above_high = Isa::ireduce_add(above), above_low = above_high + inside;
    if (above_low < search.wanted) {
      bracket.high = low;
      bracket.above_high = above_low;
      return 0;
    }
    bracket.low = low;
    bracket.above_low = above_low;
    if (above_high >= search.wanted) {
      bracket.low = high;
      bracket.above_low = above_high;
      return 0;
    }
    bracket.high = high;
    bracket.above_high = above_high;
    search.scores = search.spare;
    search.n = inside;
    return above_high;
  }

  /// Narrows `bracket` until some value has wanted..wanted+slack scores above it (then low = high =
  /// its key), or until `high` is the wanted-th best value itself.
  static void narrow(Candidates search, Bracket& bracket) {
    int64_t above_scores = 0;  // how many lie above all of the scores still searched
    if (search.slack == 0 && search.n >= 16 * kWidth && bracket.high - bracket.low > 1)
      above_scores = keep_window(search, bracket);
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
      const int64_t pivot = pivots.next(search, above_scores, bracket, step);
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
