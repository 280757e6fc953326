// The fused indexer for float32 inputs where products of bfloat16 are cheaper: every key is scored
// in bfloat16, and in float32 only where that can matter.
//
// A coarse score lies within `error` of the exact one: |q.k - q'.k'| <= ||q|| ||k - k'|| + ||q - q'|| ||k'||
// (Cauchy-Schwarz, with the measured norms of what rounding to bfloat16 took away), relu stretches
// nothing, and every rounding of both sums is allowed for. Exact scores come from the tile kernel of
// float32 itself, on gathered keys, so the selection is bit for bit that of the kernel without a
// screen. A query with more undecided keys than its buffer holds is scored like that against all keys,
// later and side by side with others like it.
#pragma once
#include "attention/cpu/score_tile_impl.h"
#include "attention/cpu/top_k_impl.h"

namespace dsa::cpu {

/// @tparam Coarse_  scores bfloat16 inputs
template <class Isa, class Coarse_>
struct Screen {
  using Exact = TileScorer<Isa>;
  using Coarse = Coarse_;
  using Top = TopK<Isa>;
  using Search = typename Top::Search;
  using Reg = typename Isa::Reg;
  static constexpr int64_t kWidth = Isa::kWidth;
  static constexpr int64_t kKeyBlock = Exact::kKeyBlock;
  static_assert(Coarse::kKeyBlock == kKeyBlock);

  /// Norms of a row, and of what rounding it to bfloat16 takes away.
  [[gnu::always_inline]] static KeyBounds round_row(const float* row, int64_t width, Bf16* out) {
    Reg squares = Isa::zero(), errors = Isa::zero();
    for (int64_t j = 0; j < width; j += kWidth) {
      const Reg x = load_lanes<Isa>(row + j, width - j);
      store_lanes<Isa>(out + j, x, width - j);
      const Reg lost = Isa::sub(x, load_lanes<Isa>(out + j, width - j));
      squares = Isa::fma(x, x, squares);
      errors = Isa::fma(lost, lost, errors);
    }
    // Squares below 2^-126 and inputs that count as 0 in a product are lost: each less than 2^-62.
    const float unseen = static_cast<float>(width) * 0x1p-60f;
    return {__builtin_sqrtf(Isa::reduce_add(squares)) + unseen,
            __builtin_sqrtf(Isa::reduce_add(errors)) + unseen};
  }

  /// `x`, or infinity for what is no bound.
  static float bound(float x) { return x < __builtin_inff() ? x : __builtin_inff(); }

  static int64_t pack_scratch(int64_t width) { return kKeyBlock * (width + 1) / 2; }

  static KeyBounds pack_keys(const IndexerSequence& seq, Range blocks, float* scratch,
                             float* packed) {
    KeyBounds bounds;
    auto* rows = reinterpret_cast<Bf16*>(scratch);
    for (int64_t block = blocks.first; block < blocks.last; ++block) {
      const int64_t first = block * kKeyBlock, n = Exact::least(kKeyBlock, seq.keys - first);
      for (int64_t s = 0; s < n; ++s) {
        const auto row =
            round_row(seq.k + (first + s) * seq.width, seq.width, rows + s * seq.width);
        bounds.norm = bounds.norm < bound(row.norm) ? bound(row.norm) : bounds.norm;
        bounds.error = bounds.error < bound(row.error) ? bound(row.error) : bounds.error;
      }
      typename Coarse::Sequence coarse{};
      coarse.k = rows, coarse.keys = n, coarse.width = seq.width;
      Coarse::pack_keys(coarse, {0, 1}, packed + first * Coarse::packed_width(seq.width));
    }
    return bounds;
  }

  /// The scratch of one block of queries.
  struct Memory {
    int64_t kept;     ///< scores a buffer must keep
    float* tile;      ///< [kQueryBlock][kTileStride]
    float* buffers;   ///< of TopK
    float* gathered;  ///< [width][kKeyBlock]
    float* exact;     ///< scores of the undecided keys of a query
    int32_t* places;  ///< of the undecided in the buffer
    int32_t* ids;     ///< and their keys
    float* q;         ///< [kQueryBlock][heads][width]: rounded, or those of undecided queries
    float* weight;    ///< [kQueryBlock][heads]: of undecided queries
  };

  static int64_t room(int64_t kept) { return Top::capacity(kept) + kKeyBlock + kWidth; }

  static int64_t select_scratch(const IndexerSequence& seq, int64_t top_k) {
    const int64_t kept = Exact::least(top_k, seq.keys);
    return kQueryBlock * (kTileStride + seq.heads * (seq.width + 1)) +
           Top::scratch(kept, kQueryBlock) + kKeyBlock * seq.width + 3 * room(kept);
  }

  static Memory memory(const IndexerSequence& seq, int64_t top_k, float* scratch) {
    Memory m;
    m.kept = Exact::least(top_k, seq.keys);
    m.tile = scratch;
    m.gathered = m.tile + kQueryBlock * kTileStride;
    m.q = m.gathered + kKeyBlock * seq.width;
    m.weight = m.q + kQueryBlock * seq.heads * seq.width;
    m.buffers = m.weight + kQueryBlock * seq.heads;
    m.exact = m.buffers + Top::scratch(m.kept, kQueryBlock);
    m.places = reinterpret_cast<int32_t*>(m.exact + room(m.kept));
    m.ids = m.places + room(m.kept);
    return m;
  }

  /// Rounds the queries of one row; how far its coarse scores may be from the exact ones. Not a
  /// finite number if a sum could overflow or be NaN.
  static float round_queries(const ScreenInputs& in, int64_t query, Bf16* out) {
    const IndexerSequence& seq = in.exact;
    float norms = 0, errors = 0, weights = 0;  // sums over heads of |w|, times ||q|| and ||q - q'||
    for (int64_t i = 0; i < seq.heads; ++i) {
      const int64_t row = query * seq.heads + i;
      const KeyBounds q = round_row(seq.q + row * seq.width, seq.width, out + i * seq.width);
      const float weight = __builtin_fabsf(seq.weight[row]);
      weights += weight;
      norms += weight * q.norm;
      errors += weight * q.error;
    }
    const float largest = norms * in.bounds.norm;  // no score is larger
    if (!(largest < 1e30f) || !(weights < 1e30f)) return __builtin_inff();
    const auto terms = static_cast<float>(seq.width + seq.heads + 16);
    return 1.01f * (norms * in.bounds.error + errors * (in.bounds.norm + in.bounds.error)) +
           terms * (0x1p-22f * largest + 0x1p-120f * (1 + weights));
  }

  /// kWidth rows from column j on, turned; stores the first `columns` columns.
  [[gnu::always_inline]] static void gather_columns(const float* const (&keys)[kWidth], int64_t j,
                                                    int64_t columns, float* packed) {
    Reg rows[kWidth];
#pragma GCC unroll 16
    for (int64_t r = 0; r < kWidth; ++r) rows[r] = load_lanes<Isa>(keys[r] + j, columns);
    Isa::transpose(rows);
#pragma GCC unroll 16
    for (int64_t c = 0; c < kWidth; ++c)
      if (c < columns) Isa::store(packed + (j + c) * kKeyBlock, rows[c]);
  }

  /// One key block of the rows of these keys, packed for the exact kernel.
  static void gather(const IndexerSequence& seq, const int32_t* ids, int64_t n, float* packed) {
    for (int64_t first = 0; first < n; first += kWidth) {
      const float* keys[kWidth];
      for (int64_t r = 0; r < kWidth; ++r)
        keys[r] = seq.k + ids[Exact::least(first + r, n - 1)] * seq.width;
      int64_t j = 0;
      for (; j + kWidth <= seq.width; j += kWidth) gather_columns(keys, j, kWidth, packed + first);
      if (j < seq.width) gather_columns(keys, j, seq.width - j, packed + first);
    }
  }

  /// Coarse scores in (low, high] are the undecided.
  struct Window {
    float low, high;
  };

  static float below(float x) { return Search::from_order_key(Search::key_below(x)); }

  /// Lists the undecided of a buffer and scores them exactly; returns how many.
  static int64_t score_undecided(const IndexerSequence& seq, int64_t query,
                                 const TopKBuffer& buffer, Window window, const Memory& m) {
    const Reg low = Isa::set1(window.low), high = Isa::set1(window.high);
    int64_t n = 0;
    for (int64_t s = 0; s < buffer.filled; s += kWidth) {
      const Reg x = Isa::load(buffer.scores + s);
      const auto above = Isa::both(Isa::first(buffer.filled - s), Isa::gt(x, low));
      const auto inside = Isa::from_bits(Isa::bits(above) & ~Isa::bits(Isa::gt(x, high)));
      Isa::compress_store(m.places + n, inside, Top::ids_from(s));
      Isa::compress_store(m.ids + n, inside, Isa::iload(buffer.ids + s));
      n += Isa::popcount(inside);
    }
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < seq.width; j += kWidth)
        __builtin_prefetch(seq.k + m.ids[i] * seq.width + j);
    for (int64_t first = 0; first < n; first += kKeyBlock) {
      gather(seq, m.ids + first, Exact::least(kKeyBlock, n - first), m.gathered);
      Exact::score_block(seq, query, m.gathered, m.exact + first);
    }
    return n;
  }

  /// The cut at the `wanted`-th best of n scores itself, 1 <= wanted <= n.
  static typename Top::Cut cut_at(const float* scores, int64_t n, int64_t wanted, float* spare) {
    float pivot = -__builtin_inff();
    if (n > wanted) {
      typename Search::Bracket bracket;
      Search::find_bracket(scores, n, bracket);
      Search::narrow({scores, n, wanted, 0, spare}, bracket);
      pivot = Search::from_order_key(bracket.high);
      if (bracket.above_high < wanted) return {pivot, wanted - bracket.above_high, wanted};
    }
    // The pivot lies somewhere between the `wanted`-th and the next.
    const Reg pivots = Isa::set1(pivot);
    typename Search::Extremes above;
    for (int64_t s = 0; s < n; s += kWidth) {
      const Reg x = Isa::load(scores + s);
      above.add(Isa::both(Isa::first(n - s), Isa::gt(x, pivots)), x);
    }
    pivot = Isa::reduce_min(above.smallest);
    return {pivot, wanted - Search::count_above(scores, n, pivot), wanted};
  }

  /// Writes the ids of the K best by exact score; kUndecided if less than K coarse scores lie above the
  /// guess of a threshold. With the K-th best exact score at `pivot`, only
  /// coarse scores within `error` of it had to be looked at: the window grows until that holds.
  static int32_t finish(const ScreenInputs& in, int64_t query, float error, TopKBuffer& buffer,
                        const Memory& m, int32_t* ids, int64_t width) {
    const bool is_guessed = buffer.guess > -__builtin_inff();
    if (buffer.filled < buffer.top_k && is_guessed) return kUndecided;
    if (buffer.filled <= buffer.top_k && !is_guessed) return Top::finish(buffer, ids, width);
    const float coarse = cut_at(buffer.scores, buffer.filled, buffer.top_k, buffer.spare).pivot;
    if (coarse < buffer.guess) return kUndecided;
    // A little more than the error: the exact K-th best is seldom the coarse one.
    Window window{below(coarse - 1.125f * error), coarse + 1.125f * error};
    typename Top::Cut cut;
    int64_t n = 0;
    while (true) {
      timed(in.time, [&] { n = score_undecided(in.exact, query, buffer, window, m); });
      const int64_t sure = Search::count_above(buffer.scores, buffer.filled, window.high);
      cut = cut_at(m.exact, n, buffer.top_k - sure, buffer.spare);
      const float low = cut.pivot - error, high = cut.pivot + error;
      if (window.low < low && window.high >= high) break;
      if (!(window.low < low)) window.low = below(low);
      if (!(window.high >= high)) window.high = high;
    }
    const Reg high = Isa::set1(window.high);
    const Reg inside = Isa::set1(__builtin_inff()), outside = Isa::set1(-__builtin_inff());
    for (int64_t s = 0; s < buffer.filled; s += kWidth)
      Isa::store(buffer.scores + s,
                 Isa::blend(Isa::gt(Isa::load(buffer.scores + s), high), inside, outside));
    for (int64_t i = 0; i < n; ++i) buffer.scores[m.places[i]] = m.exact[i];
    return Top::write_kept(buffer, cut, ids, width);
  }

  /// Offers the scores of all keys to the buffers of the sequence's queries; row r sees visible(r).
  template <class Scorer, class Visible>
  static void feed_all(const typename Scorer::Sequence& seq, const Visible& visible, float* tile,
                       TopKBuffer* buffers, bool may_guess, ScoringTime* time) {
    for (int64_t chunk = 0; chunk < seq.keys; chunk += Scorer::kChunk) {
      timed(time, [&] { Scorer::score_tile(&seq, {0, seq.queries}, chunk, tile); });
      for (int64_t r = 0; r < seq.queries; ++r) {
        const int64_t n = Exact::least(Scorer::kChunk, visible(r) - chunk);
        if (n <= 0 || buffers[r].is_overfull) continue;
        const float* scores = tile + r * kTileStride;
        if (may_guess && chunk == 0) Top::start_with_guess(buffers[r], scores, n, visible(r));
        Top::feed(buffers[r], scores, n, chunk);
      }
    }
  }

  /// Selects for n queries, ascending, by exact scores of all keys.
  static void select_exact(const ScreenInputs& in, const int64_t* queries, int64_t n,
                           const SelectionOutput& out, float* scratch) {
    const IndexerSequence& seq = in.exact;
    const Memory m = memory(seq, out.top_k, scratch);
    const int64_t row = seq.heads * seq.width;
    TopKBuffer buffers[kQueryBlock];
    for (int64_t r = 0; r < n; ++r) {
      __builtin_memcpy(m.q + r * row, seq.q + queries[r] * row, static_cast<size_t>(row) * 4);
      __builtin_memcpy(m.weight + r * seq.heads, seq.weight + queries[r] * seq.heads,
                       static_cast<size_t>(seq.heads) * 4);
      buffers[r] = Top::buffer(m.buffers, m.kept, r, n);
    }
    const auto visible = [&](int64_t r) { return Exact::visible(seq, queries[r]); };
    // As the last n queries of these keys they see no fewer than in their own places.
    const IndexerSequence alone{m.q, seq.k,          seq.packed, m.weight,
                                n,   visible(n - 1), seq.heads,  seq.width};
    feed_all<Exact>(alone, visible, m.tile, buffers, false, in.time);
    for (int64_t r = 0; r < n; ++r) {
      const int64_t t = queries[r];
      out.count[t] = Top::finish(buffers[r], out.ids + t * out.top_k, out.top_k);
    }
  }

  static int64_t select(const ScreenInputs& in, Range queries, const SelectionOutput& out,
                        float* scratch) {
    const IndexerSequence& seq = in.exact;
    const int64_t rows = queries.last - queries.first;
    const Memory m = memory(seq, out.top_k, scratch);
    float error[kQueryBlock];
    TopKBuffer buffers[kQueryBlock];
    auto* q = reinterpret_cast<Bf16*>(m.q);
    for (int64_t r = 0; r < rows; ++r) {
      error[r] = round_queries(in, queries.first + r, q + r * seq.heads * seq.width);
      buffers[r] = Top::buffer(m.buffers, m.kept, r, rows);
      buffers[r].margin = 2 * error[r];
      buffers[r].is_overfull = !(error[r] < 1e30f);
    }
    // The block as a sequence of its own, the last queries of the keys it sees.
    const typename Coarse::Sequence block{q,         nullptr,
                                          in.coarse, seq.weight + queries.first * seq.heads,
                                          rows,      Exact::visible(seq, queries.last - 1),
                                          seq.heads, seq.width};
    feed_all<Coarse>(
        block, [&](int64_t r) { return Coarse::visible(block, r); }, m.tile, buffers, true,
        in.time);
    int64_t n = 0;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t t = queries.first + r;
      out.count[t] = kUndecided;
      if (!buffers[r].is_overfull)
        out.count[t] = finish(in, t, error[r], buffers[r], m, out.ids + t * out.top_k, out.top_k);
      n += out.count[t] == kUndecided;
    }
    return n;
  }

  static constexpr ScreenKernels kernels() {
    return {kKeyBlock, Coarse::packed_width, pack_keys,     pack_scratch,
            select,    select_exact,         select_scratch};
  }
};

}  // namespace dsa::cpu
