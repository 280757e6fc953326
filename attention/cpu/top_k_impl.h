// Streaming exact top-k of one row of scores, for any ISA.
//
// Scores arrive in ascending key order and the buffer stays in that order, so "strictly above the
// K-th best so far" IS the rule "ties go to the smaller id", and no final sort is needed.
// A NaN passes every comparison below (they all ask "not less or equal"), reaches the buffer and is
// found when the buffer shrinks: NaN detection costs the hot loop nothing.
#pragma once
#include "attention/cpu/kth_value_impl.h"
#include "attention/cpu/top_k_buffer.h"

#include <cstddef>

namespace dsa::cpu {

template <class Isa>
struct TopK {
  using Search = KthValue<Isa>;
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
    result.margin = 0;
    result.is_overfull = false;
    start(result);
    return result;
  }

  static Int ids_from(int64_t first_id) {
    return Isa::iadd(Isa::iota(), Isa::iset1(static_cast<int32_t>(first_id)));
  }

  /// What is kept: scores above `pivot`, and the first `equal_wanted` equal to it; `kept` in all.
  struct Cut {
    float pivot;
    int64_t equal_wanted, kept;
  };

  /// The lanes of x that a cut keeps; counts the equal ones down.
  [[gnu::always_inline]] static uint32_t kept_lanes(Cut& cut, Mask valid, Reg x) {
    const Reg pivots = Isa::set1(cut.pivot);
    uint32_t keep = Isa::bits(Isa::both(valid, Isa::gt(x, pivots)));
    if (cut.equal_wanted == 0) return keep;
    uint32_t equal = Isa::bits(Isa::both(valid, Isa::eq(x, pivots)));
    while (__builtin_popcount(equal) > cut.equal_wanted)
      equal &= ~(0x80000000u >> __builtin_clz(equal));
    cut.equal_wanted -= __builtin_popcount(equal);
    return keep | equal;
  }

  /// The cut that keeps the K best, or K..K+slack that include them; all, if no more are there.
  /// False if a score is NaN; then the buffer knows which.
  static bool find_cut(TopKBuffer& buffer, int64_t slack, Cut& cut) {
    typename Search::Bracket bracket;
    if (!Search::find_bracket(buffer.scores, buffer.filled, bracket)) {
      int64_t s = 0;
      while (buffer.scores[s] == buffer.scores[s]) ++s;
      if (buffer.nan_id < 0) buffer.nan_id = buffer.ids[s];
      return false;
    }
    if (buffer.filled <= buffer.top_k + slack) {
      cut = {Search::from_order_key(bracket.low + 1), buffer.filled, buffer.filled};
      return true;
    }
    Search::narrow({buffer.scores, buffer.filled, buffer.top_k, slack, buffer.spare}, bracket);
    if (slack == 0 && bracket.above_low == buffer.top_k) {  // no ties to break
      cut = {Search::from_order_key(bracket.low), 0, buffer.top_k};
      return true;
    }
    const int64_t above = bracket.above_high;
    const int64_t missing = above < buffer.top_k ? buffer.top_k - above : 0;
    cut = {Search::from_order_key(bracket.high), missing, above + missing};
    return true;
  }

  /// Keeps the K best of a buffer that holds more than K+slack, or K..K+slack that include them.
  static void shrink(TopKBuffer& buffer, int64_t slack) {
    Cut cut;
    if (!find_cut(buffer, slack, cut)) {
      buffer.filled = 0;
      return;
    }
    buffer.is_selective = true;
    buffer.guess = -__builtin_inff();  // more than K lie above it
    buffer.is_plateau = false;
    if (buffer.margin > 0) return shrink_to_margin(buffer, cut.pivot);
    buffer.threshold = cut.pivot;
    int64_t kept = 0;
    for (int64_t s = 0, wanted = cut.kept; kept < wanted; s += kWidth) {
      const Reg x = Isa::load(buffer.scores + s);
      const auto ids = Isa::iload(buffer.ids + s);
      const uint32_t keep = kept_lanes(cut, Isa::first(buffer.filled - s), x);
      Isa::compress_store(buffer.scores + kept, Isa::from_bits(keep), x);
      Isa::compress_store(buffer.ids + kept, Isa::from_bits(keep), ids);
      kept += __builtin_popcount(keep);
    }
    buffer.filled = kept;
  }

  /// Keeps what is not more than the margin below `pivot`, which is no better than the K-th best.
  static void shrink_to_margin(TopKBuffer& buffer, float pivot) {
    buffer.threshold = Search::from_order_key(Search::key_below(pivot - buffer.margin));
    const Reg threshold = Isa::set1(buffer.threshold);
    int64_t kept = 0;
    for (int64_t s = 0; s < buffer.filled; s += kWidth) {
      const Reg x = Isa::load(buffer.scores + s);
      const auto ids = Isa::iload(buffer.ids + s);
      const Mask keep = Isa::both(Isa::first(buffer.filled - s), Isa::gt(x, threshold));
      Isa::compress_store(buffer.scores + kept, keep, x);
      Isa::compress_store(buffer.ids + kept, keep, ids);
      kept += Isa::popcount(keep);
    }
    buffer.filled = kept;
    if (kept <= buffer.capacity - buffer.capacity / 8) return;
    buffer.is_overfull = true;
    buffer.filled = 0;
    buffer.threshold = __builtin_inff();
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
    constexpr int64_t kGroup = 4;    // vectors per test of "any candidate at all?"
    constexpr int64_t kAhead = 512;  // scores fetched early, of the next row at the end of this one
    const int64_t usually_full = buffer.capacity - kGroup * kWidth;
    // The first shrink ends a plateau: its value, less the margin, is the threshold from then on.
    int64_t full = buffer.is_plateau ? buffer.top_k + kGroup * kWidth : usually_full;
    // Counted in a register: through the buffer, every append would wait for the last one's store.
    int64_t filled = buffer.filled;
    const auto append = [&](Mask mask, Reg x, Int ids) {
      Isa::compress_store(buffer.scores + filled, mask, x);
      Isa::compress_store(buffer.ids + filled, mask, ids);
      filled += Isa::popcount(mask);
    };
    const auto make_room = [&] {
      buffer.filled = filled;
      shrink(buffer, buffer.top_k / 8);
      filled = buffer.filled;
      full = usually_full;
    };
    for (; s + kGroup * kWidth <= n; s += kGroup * kWidth) {
      const Reg threshold = Isa::set1(buffer.threshold);
      Reg x[kGroup];
      Mask above[kGroup];
#pragma GCC unroll 4
      for (int64_t v = 0; v < kGroup; ++v) {
        x[v] = Isa::load(scores + s + v * kWidth);
        above[v] = Isa::not_le(x[v], threshold);
        __builtin_prefetch(scores + s + v * kWidth + kAhead);
      }
      const Mask any =
          Isa::either(Isa::either(above[0], above[1]), Isa::either(above[2], above[3]));
      if (Isa::bits(any) == 0) continue;
      auto ids = ids_from(first_id + s);
      int64_t most = 0;
#pragma GCC unroll 4
      for (int64_t v = 0; v < kGroup; ++v) {
        const int64_t found = Isa::popcount(above[v]);
        most = most > found ? most : found;
      }
      if (most <= kWidth / 2) {
#pragma GCC unroll 4
        for (int64_t v = 0; v < kGroup; ++v) {
          Isa::compress_store_few(buffer.scores + filled, above[v], x[v]);
          Isa::compress_store_few(buffer.ids + filled, above[v], ids);
          filled += Isa::popcount(above[v]);
          ids = Isa::iadd(ids, Isa::iset1(kWidth));
        }
      } else {
#pragma GCC unroll 4
        for (int64_t v = 0; v < kGroup; ++v) {
          append(above[v], x[v], ids);
          ids = Isa::iadd(ids, Isa::iset1(kWidth));
        }
      }
      if (filled > full) make_room();
    }
    for (; s < n; s += kWidth) {
      const Mask valid = Isa::first(n - s);
      const Reg x = Isa::load(scores + s, valid);
      append(Isa::both(valid, Isa::not_le(x, Isa::set1(buffer.threshold))), x,
             ids_from(first_id + s));
      if (filled > full) make_room();
    }
    buffer.filled = filled;
  }

  static constexpr int64_t kSample = 256;  ///< scores that a guess is made of

  static void start(TopKBuffer& buffer) {
    buffer.filled = 0;
    buffer.threshold = -__builtin_inff();
    buffer.is_selective = false;
    buffer.nan_id = -1;
    buffer.guess = -__builtin_inff();
    buffer.is_plateau = false;
  }

  /// Starts a row of n scores with a threshold guessed from the first `known` of them (at least 256),
  /// so that little more than K pass it; without one if the row is too short, or K too large, for a
  /// sample to help.
  static void start_with_guess(TopKBuffer& buffer, const float* scores, int64_t known, int64_t n) {
    start(buffer);
    if (n <= buffer.capacity) return;
    const float expected = static_cast<float>(kSample * buffer.top_k) / static_cast<float>(n);
    // Three standard deviations of the sample's count (2.4 where `guess_from_lanes` falls short by the
    // eighth it may), so that a miss is rare.
    const auto rank = static_cast<int64_t>(expected + 3 * __builtin_sqrtf(expected) + 2);
    if (rank > kSample / 2) return;
    buffer.is_selective = set_guess(buffer, scores, known / (kSample / kWidth), rank);
    if (!buffer.is_selective) return;
    // One below: values equal to the guess pass, so a plateau there is no miss.
    buffer.threshold = Search::from_order_key(Search::key_below(buffer.guess - buffer.margin));
  }

  /// Such a guess from the sample sorted lane by lane; false if it is too far off.
  static bool guess_from_lanes(TopKBuffer& buffer, const float* scores, int64_t stride,
                               int64_t rank) {
    const typename Search::SortedLanes sample(scores, stride);
    const float guess = sample.estimate(kSample, rank + rank / 8).value;
    const int64_t above = sample.count_above(guess);
    if (above < rank - rank / 8 || above > rank + rank / 4) return false;
    buffer.guess = guess;
    return true;
  }

  /// Finds a guess that about `rank` of kSample scores lie above; false where a NaN prevents one.
  static bool set_guess(TopKBuffer& buffer, const float* scores, int64_t stride, int64_t rank) {
    if constexpr (kSample == 16 * kWidth) {
      // Sorting is the faster way, but a waste on a plateau.
      const Mask same = Isa::eq(Isa::load(scores), Isa::load(scores + 15 * stride));
      if (Isa::popcount(same) < kWidth && guess_from_lanes(buffer, scores, stride, rank))
        return true;
    }
    for (int64_t s = 0; s < kSample; s += kWidth)
      Isa::store(buffer.scores + s, Isa::load(scores + s / kWidth * stride));
    typename Search::Bracket bracket;
    if (!Search::find_bracket(buffer.scores, kSample, bracket)) return false;
    buffer.is_plateau = bracket.high - bracket.low <= 1;
    Search::narrow({buffer.scores, kSample, rank, rank / 4, buffer.spare}, bracket);
    buffer.guess = Search::from_order_key(bracket.high);
    return true;
  }

  /// Whether fewer than K scores passed a guess: the row must be offered again, without one.
  static bool is_missed(const TopKBuffer& buffer) {
    return buffer.guess > -__builtin_inff() && buffer.nan_id < 0 && buffer.filled < buffer.top_k;
  }

  /// Offers a whole row of n scores.
  static void feed_row(TopKBuffer& buffer, const float* scores, int64_t n) {
    start_with_guess(buffer, scores, n, n);
    feed(buffer, scores, n, 0);
    if (!is_missed(buffer)) return;
    start(buffer);
    feed(buffer, scores, n, 0);
  }

  /// Floats that `merge` asks for.
  static int64_t merge_scratch(int64_t top_k, int64_t parts) {
    return 3 * (parts * capacity(top_k) + kSlack);
  }

  /// `finish` of a row whose keys were offered to `count` buffers alike, each a range of keys, ascending:
  /// the `top_k` best of all are among those of each, which keeps as many or all of its range.
  static int32_t merge(const TopKBuffer* const* parts, int64_t count, int64_t top_k, float* scratch,
                       int32_t* ids, int64_t width) {
    TopKBuffer all = *parts[0];
    const int64_t room = count * parts[0]->capacity + kSlack;
    all.top_k = top_k;
    all.scores = scratch;
    all.ids = reinterpret_cast<int32_t*>(scratch + room);
    all.spare = scratch + 2 * room;
    all.capacity = room - kSlack;
    start(all);
    for (int64_t p = 0; p < count; ++p) {
      const TopKBuffer& part = *parts[p];
      const auto bytes = static_cast<size_t>(part.filled) * sizeof(float);
      __builtin_memcpy(all.scores + all.filled, part.scores, bytes);
      __builtin_memcpy(all.ids + all.filled, part.ids, bytes);
      // A NaN of an earlier part, not yet found there, is in front of this one.
      for (int64_t s = 0; part.nan_id >= 0 && s < all.filled; ++s)
        if (all.scores[s] != all.scores[s]) return ~all.ids[s];
      if (part.nan_id >= 0) return ~static_cast<int32_t>(part.nan_id);
      all.filled += part.filled;
    }
    return finish(all, ids, width);
  }

  /// Writes the selected ids, pads with -1 to `width`, and returns how many there are; ~(first NaN
  /// key) < 0 if a score was NaN.
  static int32_t finish(TopKBuffer& buffer, int32_t* ids, int64_t width) {
    Cut cut;
    if (buffer.nan_id >= 0 || !find_cut(buffer, 0, cut))
      return ~static_cast<int32_t>(buffer.nan_id);
    return write_kept(buffer, cut, ids, width);
  }

  /// The same for a cut that is known.
  static int32_t write_kept(const TopKBuffer& buffer, Cut cut, int32_t* ids, int64_t width) {
    int64_t kept = 0, s = 0;
    const auto keep_next = [&](int32_t* out, Mask valid) {
      const uint32_t keep = kept_lanes(cut, valid, Isa::load(buffer.scores + s));
      Isa::compress_store(out, Isa::from_bits(keep), Isa::iload(buffer.ids + s));
      s += kWidth;
      return __builtin_popcount(keep);
    };
    const Mask all = Isa::first(kWidth);  // a mask that is made for each register takes longer
    while (s + kWidth <= buffer.filled && kept + kWidth <= width)
      kept += keep_next(ids + kept, all);
    // A whole register may reach into the next row. Once the row is full, nothing else is kept.
    while (s < buffer.filled && kept < width) {
      int32_t last[kWidth];
      // No cut keeps more than the width, but a bug here would write past the tensor.
      const Mask valid = Isa::first(buffer.filled - s);
      const int64_t n = Search::least(keep_next(last, valid), width - kept);
      __builtin_memcpy(ids + kept, last, static_cast<size_t>(n) * sizeof *ids);
      kept += n;
    }
    for (int64_t slot = kept; slot < width; ++slot) ids[slot] = -1;
    return static_cast<int32_t>(kept);
  }
};

}  // namespace dsa::cpu
