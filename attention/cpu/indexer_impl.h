// What is done with tiles of scores, for any ISA: written out, or offered to the top-k buffers of
// their queries while they are still in L2 (the fused indexer).
#pragma once
#include "attention/cpu/top_k_impl.h"

namespace dsa::cpu {

template <class Isa>
struct Indexer {
  using Reg = typename Isa::Reg;
  using Mask = typename Isa::Mask;
  static constexpr int64_t kWidth = Isa::kWidth;

  static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
  static int64_t visible(const ScoreTiles& tiles, int64_t query) {
    return query + 1 + tiles.keys - tiles.queries;
  }

  static void scores(const ScoreTiles& tiles, Range queries, float* tile, float* out) {
    const Reg minus_infinity = Isa::set1(-__builtin_inff());
    for (int64_t chunk = 0; chunk < tiles.keys; chunk += tiles.chunk) {
      tiles.score(tiles.inputs, queries, chunk, tile);
      const int64_t n = least(tiles.chunk, tiles.keys - chunk);
      for (int64_t t = queries.first; t < queries.last; ++t) {
        const float* from = tile + (t - queries.first) * kTileStride;
        float* to = out + t * tiles.keys + chunk;
        for (int64_t s = 0; s < n; s += kWidth) {
          const int64_t seen = visible(tiles, t) - chunk - s;
          const Mask is_visible = Isa::first(seen > 0 ? seen : 0);
          const Reg x = Isa::blend(is_visible, Isa::load(from + s), minus_infinity);
          Isa::store(to + s, x, Isa::first(n - s));
        }
      }
    }
  }

  using Top = TopK<Isa>;

  static void score(const ScoreTiles& tiles, Range queries, int64_t chunk, float* tile) {
    timed(tiles.time, [&] { tiles.score(tiles.inputs, queries, chunk, tile); });
  }

  /// Scores a query again and selects without a guess.
  static void select_again(const ScoreTiles& tiles, int64_t query, float* tile,
                           TopKBuffer& buffer) {
    Top::start(buffer);
    const int64_t end = visible(tiles, query);
    for (int64_t chunk = 0; chunk < end; chunk += tiles.chunk) {
      score(tiles, {query, query + 1}, chunk, tile);
      Top::feed(buffer, tile, least(tiles.chunk, end - chunk), chunk);
    }
  }

  static int64_t select(const ScoreTiles& tiles, Range queries, const SelectionOutput& out,
                        bool may_guess, float* tile, float* scratch) {
    TopKBuffer buffers[kQueryBlock];
    const int64_t rows = queries.last - queries.first;
    const int64_t kept = least(out.top_k, tiles.keys);
    for (int64_t r = 0; r < rows; ++r) buffers[r] = Top::buffer(scratch, kept, r, rows);
    const int64_t end = visible(tiles, queries.last - 1);
    for (int64_t chunk = 0; chunk < end; chunk += tiles.chunk) {
      score(tiles, queries, chunk, tile);
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t n = least(tiles.chunk, visible(tiles, queries.first + r) - chunk);
        if (n <= 0) continue;
        const float* scores = tile + r * kTileStride;
        if (may_guess && chunk == 0)
          Top::start_with_guess(buffers[r], scores, n, visible(tiles, queries.first + r));
        Top::feed(buffers[r], scores, n, chunk);
      }
    }
    int64_t missed = 0;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t t = queries.first + r;
      if (Top::is_missed(buffers[r])) {
        select_again(tiles, t, tile, buffers[r]);
        ++missed;
      }
      out.count[t] = Top::finish(buffers[r], out.ids + t * out.top_k, out.top_k);
    }
    return missed;
  }

  static void start_buffers(float* scratch, int64_t kept, int64_t n, TopKBuffer* buffers) {
    for (int64_t r = 0; r < n; ++r) buffers[r] = Top::buffer(scratch, kept, r, n);
  }

  static void offer_tile(const ScoreTiles& tiles, Range queries, const float* tile, Range keys,
                         TopKBuffer* buffers) {
    for (int64_t t = queries.first; t < queries.last; ++t) {
      const int64_t r = t - queries.first;
      const int64_t n = least(keys.last, visible(tiles, t)) - keys.first;
      if (n > 0) Top::feed(buffers[r], tile + r * kTileStride, n, keys.first);
    }
  }

  static int32_t select_row(const float* scores, RowKeys row, int64_t top_k, float* scratch,
                            int32_t* ids) {
    TopKBuffer buffer = TopK<Isa>::buffer(scratch, least(top_k, row.keys), 0, 1);
    TopK<Isa>::feed_row(buffer, scores, row.visible);
    return TopK<Isa>::finish(buffer, ids, top_k);
  }
};

}  // namespace dsa::cpu
