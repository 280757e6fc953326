// Tiles of indexer scores by AMX, from bfloat16 or int8. Bound: the products of tiles, 16 cycles each; what turns 16 x 16 inner
// products into scores (one maximum and one multiply-add a register) runs beside those of the next block.
#pragma once
#include "attention/cpu/score_lines_amx.h"

namespace dsa::cpu {

template <class Element>
struct AmxScorer : AmxLines<Element> {
  using Base = AmxLines<Element>;
  using Base::finish;
  using Base::kChunk;
  using Base::kColumns;
  using Base::kKeyBlock;
  using Base::kPairKeys;
  using Base::kTileFloats;
  using Base::least;
  using Base::line_tile;
  using Base::pack_keys;
  using Base::packed_width;
  using Base::steps;
  using Base::sum_heads;
  using Base::visible;
  using typename Base::Lines;
  using typename Base::Pending;
  using typename Base::Sequence;
  using typename Base::Terms;

  /// A block of queries against 32 keys at a time, with room for products on their way.
  struct Block {
    const Sequence& seq;
    Range queries;
    float* tile;
    int64_t first_key;  ///< of the tile
    int64_t per_tile;   ///< queries of a tile of lines
    alignas(64) float ring[4][2 * kTileFloats];
    alignas(64) Element spare[2][kTileRows * kColumns];

    int64_t rows() const { return queries.last - queries.first; }
  };

  /// Walks the tiles of lines of a block: those of a query before the next query's.
  struct Place {
    int64_t row, head;

    void advance(const Block& b) {
      head += kTileRows;
      if (head < b.seq.heads) return;
      head = 0;
      row += b.per_tile;
    }
  };

  /// Of the key in that column of the score tile, if keys have scales.
  static const float* key_scale_at(const Block& b, int64_t column) {
    return Terms::kScaled ? b.seq.key_scale + b.first_key + column : nullptr;
  }

  /// `column` is the first key's in the score tile.
  static Lines lines_at(const Block& b, const Place& at, int64_t column) {
    const Sequence& seq = b.seq;
    const int64_t line = (b.queries.first + at.row) * seq.heads + at.head;
    return {seq.q + line * seq.width,
            seq.weight + line,
            key_scale_at(b, column),
            b.tile + at.row * kTileStride + column,
            least(kTileRows, seq.heads - at.head),
            least(b.per_tile, b.rows() - at.row),
            at.head > 0};
  }

  /// Whole tiles of lines against 32 keys that stay in tiles: at most two steps of columns.
  template <int64_t kHeads, int64_t kSteps>
  static void score_narrow(Block& b, const float* keys, int64_t first_row, int64_t column) {
    static_assert(kSteps == 1 || kSteps == 2);
    constexpr int64_t kQueries = kTileRows / kHeads, kStride = kSteps * 64;
    const float* next = keys + kSteps * kTileFloats;
    _tile_loadd(4, keys, 64);
    _tile_loadd(6, next, 64);
    if constexpr (kSteps == 2) {
      _tile_loadd(5, keys + kTileFloats, 64);
      _tile_loadd(7, next + kTileFloats, 64);
    }
    const int64_t tiles = (b.rows() - first_row) / kQueries;
    const int64_t line = (b.queries.first + first_row) * kHeads;
    const Element* q = b.seq.q + line * kSteps * kColumns;
    const float* weight = b.seq.weight + line;
    float* scores = b.tile + first_row * kTileStride + column;
    const float* key_scale = key_scale_at(b, column);
    // Half of a tile's queries, so that each half finds products to run beside.
    const auto finish_half_of = [&](int64_t n, int64_t half) {
      constexpr int64_t kHalf = (kQueries + 1) / 2;
      const float* c = b.ring[n % 4];
      for (int64_t t = half * kHalf; t < (half == 0 ? kHalf : kQueries); ++t)
        Base::template sum_heads<kHeads>(
            c + t * kHeads * kTileRows, weight + n * kTileRows + t * kHeads,
            {scores + (n * kQueries + t) * kTileStride, key_scale, false});
    };
    for (int64_t n = 0; n < tiles; ++n, q += kTileRows * kSteps * kColumns) {
      float* c = b.ring[n % 4];
      _tile_zero(0);
      _tile_zero(1);
      _tile_loadd(2, q, kStride);
      Terms::template multiply<0, 2, 4>();
      Terms::template multiply<1, 2, 6>();
      // The products of the tile before the last one have arrived.
      if (n >= 2) finish_half_of(n - 2, 0);
      if constexpr (kSteps == 2) {
        _tile_loadd(3, q + kColumns, kStride);
        Terms::template multiply<0, 3, 5>();
        Terms::template multiply<1, 3, 7>();
      }
      if (n >= 2) finish_half_of(n - 2, 1);
      _tile_stored(0, c, 64);
      _tile_stored(1, c + kTileFloats, 64);
    }
    for (int64_t n = tiles < 2 ? 0 : tiles - 2; n < tiles; ++n) {
      finish_half_of(n, 0);
      finish_half_of(n, 1);
    }
  }

  /// Two tiles of lines, or one, against 32 keys.
  struct Work {
    const float* keys;
    Lines lines[2];
    int64_t count;
    float* products;  ///< of the first lines; those of the second follow
  };

  template <int64_t kHeads>
  static void score_wide(Block& b, const Work& work, Pending* pending) {
    const int64_t width = b.seq.width, n = steps(width);
    const float *keys = work.keys, *next = keys + n * kTileFloats;
    float *c = work.products, *d = c + 2 * kTileFloats;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t j = 0; j < n; ++j) {
      int64_t stride = 0;
      const Element* a = line_tile(work.lines[0], j * kColumns, width, b.spare[0], stride);
      _tile_loadd(4, a, stride);
      _tile_loadd(6, keys + j * kTileFloats, 64);
      Terms::template multiply<0, 4, 6>();
      _tile_loadd(7, next + j * kTileFloats, 64);
      Terms::template multiply<1, 4, 7>();
      if (work.count == 2) {
        a = line_tile(work.lines[1], j * kColumns, width, b.spare[1], stride);
        _tile_loadd(5, a, stride);
        Terms::template multiply<2, 5, 6>();
        Terms::template multiply<3, 5, 7>();
      }
      if (j == 0) Base::template finish<kHeads>(pending[0]);
      if (j == n / 2) Base::template finish<kHeads>(pending[1]);
    }
    _tile_stored(0, c, 64);
    _tile_stored(1, c + kTileFloats, 64);
    pending[0] = {c, work.lines[0]};
    if (work.count == 1) return;
    _tile_stored(2, d, 64);
    _tile_stored(3, d + kTileFloats, 64);
    pending[1] = {d, work.lines[1]};
  }

  /// Keys [first, last) of one block, as columns of the tile from `column` on.
  template <int64_t kHeads>
  static void score_wide_block(Block& b, Range keys, int64_t first_row, int64_t column) {
    const int64_t key_floats = packed_width(b.seq.width);
    Pending pending[2];
    int64_t slot = 0;
    for (Place at{first_row, 0}; at.row < b.rows();) {
      const Place first = at;
      at.advance(b);
      const Place second = at;
      const bool is_pair = at.row < b.rows();
      if (is_pair) at.advance(b);
      for (int64_t s = keys.first; s < keys.last; s += kPairKeys, slot ^= 2) {
        const int64_t c = column + s - keys.first;
        Work work{b.seq.packed + s * key_floats, {lines_at(b, first, c), {}}, 1, b.ring[slot]};
        if (is_pair) work.lines[1] = lines_at(b, second, c), work.count = 2;
        score_wide<kHeads>(b, work, pending);
      }
    }
    Base::template finish<kHeads>(pending[0]);
    Base::template finish<kHeads>(pending[1]);
  }

  /// 32 heads of one query whose products wait.
  struct PendingHeads {
    const float* c = nullptr;  ///< four tiles: heads 0-15 with both tiles of keys, then 16-31
    const float* weight;
    typename Base::Target to;
  };

  [[gnu::always_inline]] static void finish_half(const PendingHeads& p, int64_t half) {
    if (p.c == nullptr) return;
    Base::template sum_heads<kTileRows>(p.c + half * 2 * kTileFloats, p.weight + half * kTileRows,
                                        {p.to.scores, p.to.key_scale, p.to.add || half > 0});
  }

  /// score_wide without a branch: 32 heads of one query, whole steps of columns.
  template <int64_t kSteps>
  [[gnu::always_inline]] static void score_heads(const Element* q, const float* keys,
                                                 const PendingHeads& p, float* c) {
    constexpr int64_t kStride = kSteps * 64;
    const Element* r = q + kTileRows * kSteps * kColumns;
    const float* next = keys + kSteps * kTileFloats;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
#pragma GCC unroll 4
    for (int64_t j = 0; j < kSteps; ++j) {
      _tile_loadd(4, q + j * kColumns, kStride);
      _tile_loadd(6, keys + j * kTileFloats, 64);
      Terms::template multiply<0, 4, 6>();
      _tile_loadd(7, next + j * kTileFloats, 64);
      Terms::template multiply<1, 4, 7>();
      _tile_loadd(5, r + j * kColumns, kStride);
      Terms::template multiply<2, 5, 6>();
      Terms::template multiply<3, 5, 7>();
      // Spread between the products: all at once they would not overlap (20 cycles a product, not 15).
      if (j == 0) finish_half(p, 0);
      if (j == kSteps / 2) finish_half(p, 1);
    }
    _tile_stored(0, c, 64);
    _tile_stored(1, c + kTileFloats, 64);
    _tile_stored(2, c + 2 * kTileFloats, 64);
    _tile_stored(3, c + 3 * kTileFloats, 64);
  }

  template <int64_t kSteps>
  static void score_heads_block(Block& b, Range keys, int64_t first_row, int64_t column) {
    const Sequence& seq = b.seq;
    constexpr int64_t kWidth = kSteps * kColumns;
    PendingHeads pending;
    int64_t slot = 0;
    for (int64_t row = first_row; row < b.rows(); ++row)
      for (int64_t head = 0; head < seq.heads; head += 2 * kTileRows) {
        const int64_t line = (b.queries.first + row) * seq.heads + head;
        for (int64_t s = keys.first; s < keys.last; s += kPairKeys, slot ^= 2) {
          score_heads<kSteps>(seq.q + line * kWidth, seq.packed + s * packed_width(kWidth), pending,
                              b.ring[slot]);
          const int64_t c = column + s - keys.first;
          pending = {b.ring[slot],
                     seq.weight + line,
                     {b.tile + row * kTileStride + c, key_scale_at(b, c), head > 0}};
        }
      }
    finish_half(pending, 0);
    finish_half(pending, 1);
  }

  template <int64_t kHeads>
  static void score_keys(Block& b, int64_t chunk, int64_t end) {
    const Sequence& seq = b.seq;
    for (int64_t block = chunk; block < end; block += kKeyBlock) {
      const Range keys{block, least(block + kKeyBlock, end)};
      const int64_t column = block - chunk;
      // The first query that sees the first key, rounded down to whole tiles.
      const int64_t sees = block - (seq.keys - seq.queries) - b.queries.first;
      int64_t row = sees <= 0 ? 0 : sees / b.per_tile * b.per_tile;
      constexpr int64_t kWide = 128;  // DeepSeek-V3.2's
      if (seq.heads % (2 * kTileRows) == 0 && seq.width == kWide) {
        score_heads_block<kWide / kColumns>(b, keys, row, column);
        continue;
      }
      if constexpr (kHeads > 0) {
        if (seq.heads == kHeads && (seq.width == kColumns || seq.width == 2 * kColumns)) {
          for (int64_t s = keys.first; s < keys.last; s += kPairKeys) {
            const float* packed = seq.packed + s * packed_width(seq.width);
            if (seq.width == kColumns)
              score_narrow<kHeads, 1>(b, packed, row, s - chunk);
            else
              score_narrow<kHeads, 2>(b, packed, row, s - chunk);
          }
          row += (b.rows() - row) / b.per_tile * b.per_tile;
        }
      }
      score_wide_block<kHeads>(b, keys, row, column);
    }
  }

  /// A TileFunction. The scores of keys that a query does not see are written or left alone.
  static void score_tile(const void* inputs, Range queries, int64_t chunk, float* tile) {
    const auto& seq = *static_cast<const Sequence*>(inputs);
    const int64_t end = least(chunk + kChunk, visible(seq, queries.last - 1));
    const Tiles tiles;
    Block b{seq, queries, tile, chunk, seq.heads < kTileRows ? kTileRows / seq.heads : 1, {}, {}};
    if (seq.heads % kTileRows == 0) return score_keys<16>(b, chunk, end);
    switch (seq.heads) {
      case 1:
        return score_keys<1>(b, chunk, end);
      case 2:
        return score_keys<2>(b, chunk, end);
      case 4:
        return score_keys<4>(b, chunk, end);
      case 8:
        return score_keys<8>(b, chunk, end);
      default:
        return score_keys<0>(b, chunk, end);
    }
  }

  static constexpr IndexerKernels<Element> kernels() {
    return {kKeyBlock, kChunk, packed_width, pack_keys, score_tile};
  }
};

}  // namespace dsa::cpu
