// Streaming exact top-k of one row of scores, for any ISA.
//
// Scores arrive in ascending key order and the buffer stays in that order, so "strictly above the
// K-th best so far" IS the rule "ties go to the smaller id", and no final sort is needed.
// A NaN passes every comparison below (they all ask "not less or equal"), reaches the buffer and is
// found when the buffer shrinks: NaN detection costs the hot loop nothing.
#pragma once
#include "attention/cpu/select_kernels.h"

#include <cstddef>

namespace dsa::cpu {

/// Scores and ids kept so far, in ascending id order.
struct TopKBuffer {
  float* scores;
  int32_t* ids;
  float* spare;  ///< scratch of the same room, shared by the buffers of one thread
  int64_t capacity;
  int64_t top_k;
  int64_t filled;
  float threshold;    ///< only scores above it can still be selected, once `is_selective`
  bool is_selective;  ///< false: everything is kept, -inf included
  int64_t nan_id;     ///< first key whose score is NaN, or -1
};

template <class Isa>
struct TopK {
  using Reg = typename Isa::Reg;
  using Int = typename Isa::Int;
  using Mask = typename Isa::Mask;
  static constexpr int64_t kWidth = Isa::kWidth;

  /// Room beyond the capacity, for stores of whole registers.
  static constexpr int64_t kSlack = 64;

  // Twice K, so that a shrink drops about half of the buffer and its cost is spread over K inserts.
  static int64_t capacity(int64_t top_k) { return top_k > 1024 ? 2 * top_k : top_k + 1024; }

  /// Floats for `rows` buffers and their shared spare.
  static int64_t scratch(int64_t top_k, int64_t rows) {
    return (2 * rows + 1) * (capacity(top_k) + kSlack);
  }

  /// The buffer of row `row` of `rows` in that scratch, ready for a row of scores.
  static TopKBuffer buffer(float* scratch, int64_t top_k, int64_t row, int64_t rows) {
    const int64_t room = capacity(top_k) + kSlack;
    TopKBuffer result;
    result.scores = scratch + 2 * row * room;
    result.ids = reinterpret_cast<int32_t*>(result.scores + room);
    result.spare = scratch + 2 * rows * room;
    result.capacity = room - kSlack;
    result.top_k = top_k;
    start(result);
    return result;
  }

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

  static Int ids_from(int64_t first_id) {
    return Isa::iadd(Isa::iota(), Isa::iset1(static_cast<int32_t>(first_id)));
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

  /// Extremes of the buffer; records the first NaN and returns false if there is one.
  static bool find_bracket(TopKBuffer& buffer, Bracket& bracket) {
    const float infinity = __builtin_inff();
    Reg largest = Isa::set1(-infinity), smallest = Isa::set1(infinity);
    for (int64_t s = 0; s < buffer.filled; s += kWidth) {
      const Mask valid = Isa::first(buffer.filled - s);
      const Reg x = Isa::load(buffer.scores + s);
      if (const uint32_t nans = Isa::bits(valid) & ~Isa::bits(Isa::eq(x, x))) {
        if (buffer.nan_id < 0) buffer.nan_id = buffer.ids[s + __builtin_ctz(nans)];
        return false;
      }
      largest = Isa::max(largest, Isa::blend(valid, x, largest));
      smallest = Isa::min(smallest, Isa::blend(valid, x, smallest));
    }
    bracket = {int64_t{order_key(Isa::reduce_min(smallest))} - 1,
               int64_t{order_key(Isa::reduce_max(largest))}, buffer.filled, 0};
    return true;
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

  /// Narrows `bracket` until some value has K..K+slack scores above it (then low = high = its key),
  /// or until `high` is the K-th best value itself.
  static void narrow(const TopKBuffer& buffer, int64_t slack, Bracket& bracket) {
    const int64_t top_k = buffer.top_k;
    const float* scores = buffer.scores;
    int64_t n = buffer.filled, above_scores = 0;  // how many lie above all of scores[0..n)
    for (int step = 0; bracket.high - bracket.low > 1; ++step) {
      const int64_t pivot = next_pivot(bracket, top_k + slack / 2, step);
      const int64_t above = above_scores + count_above(scores, n, from_order_key(pivot));
      if (above >= top_k && above <= top_k + slack) {
        bracket = {pivot, pivot, above, above};
        return;
      }
      if (above >= top_k) {
        bracket.low = pivot;
        bracket.above_low = above;
      } else {
        bracket.high = pivot;
        bracket.above_high = above;
      }
      if (n > 4 * kWidth && bracket.above_low - bracket.above_high <= n / 2) {
        n = keep_inside(scores, n, bracket, buffer.spare);
        scores = buffer.spare;
        above_scores = bracket.above_high;
      }
    }
  }

  /// Keeps the scores above `pivot` and the first `equal_wanted` equal to it, in order.
  static void compact(TopKBuffer& buffer, float pivot, int64_t equal_wanted) {
    const Reg pivots = Isa::set1(pivot);
    int64_t kept = 0;
    for (int64_t s = 0; s < buffer.filled; s += kWidth) {
      const Mask valid = Isa::first(buffer.filled - s);
      const Reg x = Isa::load(buffer.scores + s);
      uint32_t keep = Isa::bits(Isa::both(valid, Isa::gt(x, pivots)));
      if (equal_wanted > 0) {
        uint32_t equal = Isa::bits(Isa::both(valid, Isa::eq(x, pivots)));
        for (; equal != 0 && equal_wanted > 0; --equal_wanted, equal &= equal - 1) {
          keep |= equal & -equal;
        }
      }
      const Mask mask = Isa::from_bits(keep);
      const auto ids = Isa::iload(buffer.ids + s);
      Isa::compress_store(buffer.scores + kept, mask, x);
      Isa::compress_store(buffer.ids + kept, mask, ids);
      kept += __builtin_popcount(keep);
    }
    buffer.filled = kept;
  }

  /// Keeps the K best, or K..K+slack that include them; raises the threshold. No-op when not over.
  static void shrink(TopKBuffer& buffer, int64_t slack) {
    Bracket bracket;
    if (!find_bracket(buffer, bracket)) {
      buffer.filled = 0;
      return;
    }
    if (buffer.filled <= buffer.top_k + slack) return;
    narrow(buffer, slack, bracket);
    const float pivot = from_order_key(bracket.high);
    const int64_t missing = buffer.top_k - bracket.above_high;
    compact(buffer, pivot, missing > 0 ? missing : 0);
    buffer.threshold = pivot;
    buffer.is_selective = true;
  }

  /// The first scores of a row need no comparison: keep them until the buffer is full.
  static int64_t fill(TopKBuffer& buffer, const float* scores, int64_t n, int64_t first_id) {
    const int64_t room = buffer.capacity - buffer.filled;
    const int64_t taken = n < room ? n : room;
    auto ids = ids_from(first_id);
    for (int64_t s = 0; s < taken; s += kWidth) {
      const Mask valid = Isa::first(taken - s);
      Isa::store(buffer.scores + buffer.filled + s, Isa::load(scores + s, valid));
      Isa::istore(buffer.ids + buffer.filled + s, ids);
      ids = Isa::iadd(ids, Isa::iset1(kWidth));
    }
    buffer.filled += taken;
    if (buffer.filled == buffer.capacity) shrink(buffer, buffer.top_k / 8);
    return taken;
  }

  /// Offers the scores of keys first_id .. first_id + n. Reads exactly n scores.
  static void feed(TopKBuffer& buffer, const float* scores, int64_t n, int64_t first_id) {
    int64_t s = 0;
    if (!buffer.is_selective) s = fill(buffer, scores, n, first_id);
    constexpr int64_t kGroup = 4;  // vectors per test of "any candidate at all?"
    for (; s + kGroup * kWidth <= n; s += kGroup * kWidth) {
      const Reg threshold = Isa::set1(buffer.threshold);
      Reg x[kGroup];
      uint32_t above[kGroup];
#pragma GCC unroll 4
      for (int64_t v = 0; v < kGroup; ++v) {
        x[v] = Isa::load(scores + s + v * kWidth);
        above[v] = Isa::bits(Isa::not_le(x[v], threshold));
      }
      if ((above[0] | above[1] | above[2] | above[3]) == 0) continue;
      auto ids = ids_from(first_id + s);
#pragma GCC unroll 4
      for (int64_t v = 0; v < kGroup; ++v) {
        append(buffer, Isa::from_bits(above[v]), x[v], ids);
        ids = Isa::iadd(ids, Isa::iset1(kWidth));
      }
      if (buffer.filled > buffer.capacity - kGroup * kWidth) shrink(buffer, buffer.top_k / 8);
    }
    for (; s < n; s += kWidth) {
      const Mask valid = Isa::first(n - s);
      const Reg x = Isa::load(scores + s, valid);
      const Mask above = Isa::both(valid, Isa::not_le(x, Isa::set1(buffer.threshold)));
      append(buffer, above, x, ids_from(first_id + s));
      if (buffer.filled > buffer.capacity - kGroup * kWidth) shrink(buffer, buffer.top_k / 8);
    }
  }

  static void append(TopKBuffer& buffer, Mask mask, Reg scores, Int ids) {
    Isa::compress_store(buffer.scores + buffer.filled, mask, scores);
    Isa::compress_store(buffer.ids + buffer.filled, mask, ids);
    buffer.filled += Isa::popcount(mask);
  }

  static void start(TopKBuffer& buffer) {
    buffer.filled = 0;
    buffer.threshold = -__builtin_inff();
    buffer.is_selective = false;
    buffer.nan_id = -1;
  }

  /// Starts a row of n scores with a threshold guessed from a sample of them, so that little more
  /// than K pass it. Returns false if the row is too short, or K too large, for a sample to help.
  static bool start_with_guess(TopKBuffer& buffer, const float* scores, int64_t n) {
    start(buffer);
    constexpr int64_t kSample = 256;
    if (n <= buffer.capacity) return false;
    const float expected = static_cast<float>(kSample * buffer.top_k) / static_cast<float>(n);
    // Three standard deviations of the sample's count, so that a miss is rare.
    const auto rank = static_cast<int64_t>(expected + 3 * __builtin_sqrtf(expected) + 2);
    if (rank > kSample / 2) return false;
    const int64_t stride = n / (kSample / kWidth);
    for (int64_t s = 0; s < kSample; s += kWidth) {
      Isa::store(buffer.scores + s, Isa::load(scores + s / kWidth * stride));
    }
    TopKBuffer sample = buffer;
    sample.filled = kSample;
    sample.top_k = rank;
    Bracket bracket;
    if (!find_bracket(sample, bracket)) return false;
    narrow(sample, rank / 4, bracket);
    // One below: values equal to the pivot pass, so a plateau at the pivot is no miss.
    buffer.threshold = from_order_key(bracket.high - 1);
    buffer.is_selective = true;
    return true;
  }

  /// Offers a whole row of n scores.
  static void feed_row(TopKBuffer& buffer, const float* scores, int64_t n) {
    const bool is_guess = start_with_guess(buffer, scores, n);
    feed(buffer, scores, n, 0);
    if (!is_guess || buffer.nan_id >= 0 || buffer.filled >= buffer.top_k) return;
    start(buffer);
    feed(buffer, scores, n, 0);
  }

  /// Writes the selected ids, pads with -1 to `width`, and returns how many there are; ~(first NaN
  /// key) < 0 if a score was NaN.
  static int32_t finish(TopKBuffer& buffer, int32_t* ids, int64_t width) {
    shrink(buffer, 0);
    if (buffer.nan_id >= 0) return ~static_cast<int32_t>(buffer.nan_id);
    __builtin_memcpy(ids, buffer.ids, static_cast<size_t>(buffer.filled) * sizeof(int32_t));
    for (int64_t slot = buffer.filled; slot < width; ++slot) ids[slot] = -1;
    return static_cast<int32_t>(buffer.filled);
  }
};

}  // namespace dsa::cpu
