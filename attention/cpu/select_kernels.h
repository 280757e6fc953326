// Raw kernels of the lightning indexer and of top-k selection. One sequence at a time;
// callers split queries or keys into blocks and run blocks in any order on any thread: every
// output belongs to one block, so no result depends on the split.
#pragma once
#include "attention/cpu/bf16.h"
#include "attention/cpu/kernels.h"
#include "attention/cpu/top_k_buffer.h"

namespace dsa::cpu {

/// Queries of one block: they share a tile of scores, and each has a top-k buffer.
inline constexpr int64_t kQueryBlock = 32;
/// Floats from one query's scores to the next in a tile: not a power of two, so that the rows of a
/// tile do not all compete for the same cache sets.
inline constexpr int64_t kTileStride = 1104;

/// One sequence's indexer inputs. Query t sees the keys before visible(t) = t + 1 + keys - queries.
template <class Element>
struct IndexerInputs {
  const Element* q;     ///< [queries][heads][width]
  const Element* k;     ///< [keys][width]
  const float* packed;  ///< of pack_keys; only dense kernels read it
  const float* weight;  ///< [queries][heads]
  int64_t queries, keys, heads, width;
  const float* key_scale = nullptr;  ///< [keys rounded up to blocks], of int8 keys
};
using IndexerSequence = IndexerInputs<float>;

/// A selection of one sequence.
struct SelectedKeys {
  const int32_t* ids;    ///< [queries][top_k], valid ones first
  const int32_t* count;  ///< [queries]
  int64_t top_k;
};

/// The transposed selection: entries begin[s]..begin[s+1] belong to key s, ascending in query.
struct KeyLists {
  const int64_t* begin;  ///< [keys + 1]
  const int32_t* query;
  const float* gradient;  ///< of the pair's score
};

/// Keys of a row of scores, and how many of them the query sees.
struct RowKeys {
  int64_t keys, visible;
};

/// A range of queries or keys.
struct Range {
  int64_t first, last;
};

/// How much of a thread's time went into scores, the rest of a fused kernel being its top-k. Kept only
/// while someone asks (a profile of training): two readings of a clock a tile.
struct ScoringTime {
  int64_t (*now)();   ///< nanoseconds
  int64_t spent = 0;  ///< in `timed` work
};

/// Calls work(); where `time` is kept, adds what it took.
template <class Work>
inline void timed(ScoringTime* time, const Work& work) {
  if (time == nullptr) return work();
  const int64_t before = time->now();
  work();
  time->spent += time->now() - before;
}

/// tile[r * kTileStride + c] = score of query queries.first + r and key chunk + c, for the keys of a
/// chunk that the last query sees. `inputs` is an IndexerInputs.
using TileFunction = void (*)(const void* inputs, Range queries, int64_t chunk, float* tile);

/// Scores of one sequence, tile by tile.
struct ScoreTiles {
  const void* inputs;
  TileFunction score;
  int64_t chunk;  ///< keys of a tile
  int64_t queries, keys;
  ScoringTime* time = nullptr;
};

/// Dense scores of one element type.
template <class Element>
struct IndexerKernels {
  int64_t key_block;  ///< keys packed together; the packed copy rounds up to whole blocks
  int64_t chunk;      ///< keys of a tile, whole blocks

  int64_t (*packed_width)(int64_t width);  ///< floats a key takes in the packed copy
  /// Packs key blocks [first, last), zeros after the last key.
  void (*pack_keys)(const IndexerInputs<Element>&, Range blocks, float* packed);
  TileFunction score_tile;
};

/// The indexer in int8: every row of q and k has a power of two as its scale. Those of q go into the
/// weights, those of k into IndexerInputs::key_scale.
struct Int8Kernels {
  IndexerKernels<int8_t> indexer;

  /// n rows of `width` float32 or bfloat16 to int8; scale[row] is NaN where one is not finite.
  void (*quantize_float)(const void* rows, int64_t n, int64_t width, int8_t* out, float* scale);
  void (*quantize_bfloat16)(const void* rows, int64_t n, int64_t width, int8_t* out, float* scale);
};

/// Upper bounds over some keys: of ||k||, and of ||k - bf16(k)||.
struct KeyBounds {
  float norm = 0, error = 0;
};

/// One sequence of float32 inputs, its keys packed in bfloat16 besides.
struct ScreenInputs {
  IndexerSequence exact;
  const float* coarse;  ///< of ScreenKernels::pack_keys
  KeyBounds bounds;     ///< over all keys
  ScoringTime* time = nullptr;
};

/// The count of a query that the screen could not decide; no NaN gives it.
inline constexpr int32_t kUndecided = INT32_MIN;

/// Where a selection goes.
struct SelectionOutput {
  int32_t* ids;    ///< [queries][top_k]
  int32_t* count;  ///< [queries]
  int64_t top_k;
};

/// The selection of float32 inputs by scores of their bfloat16 copies; what those cannot decide is
/// scored in float32 (screen_impl.h).
struct ScreenKernels {
  int64_t key_block;                       ///< as in IndexerKernels
  int64_t (*packed_width)(int64_t width);  ///< as in IndexerKernels

  /// Packs key blocks; returns bounds over their keys. `scratch` holds pack_scratch(width).
  KeyBounds (*pack_keys)(const IndexerSequence&, Range blocks, float* scratch, float* packed);
  int64_t (*pack_scratch)(int64_t width);

  /// SelectKernels::indexer_select with the same result, but for queries that would have to be scored
  /// in float32 against all keys: their count is kUndecided. Returns how many these are.
  /// `scratch` holds select_scratch(inputs, top_k), here and below.
  int64_t (*select)(const ScreenInputs&, Range queries, const SelectionOutput&, float* scratch);

  /// Scores n <= kQueryBlock queries, ascending, in float32 against all keys.
  void (*select_exact)(const ScreenInputs&, const int64_t* queries, int64_t n,
                       const SelectionOutput&, float* scratch);
  int64_t (*select_scratch)(const IndexerSequence&, int64_t top_k);
};

struct SelectKernels {
  IndexerKernels<float> indexer;

  // Floats of scratch that the kernels below ask for.
  /// For `rows` queries that keep `kept` = min(top_k, keys) scores each.
  int64_t (*select_scratch)(int64_t kept, int64_t rows);
  int64_t (*query_gradient_scratch)(int64_t heads);
  int64_t (*key_gradient_scratch)(int64_t heads);
  int64_t (*selected_gradient_scratch)(int64_t heads, int64_t top_k);

  /// scores[t][s] for the queries (at most kQueryBlock), -inf where s is not visible.
  /// `tile` holds kQueryBlock * kTileStride floats.
  void (*indexer_scores)(const ScoreTiles&, Range queries, float* tile, float* scores);

  /// The best keys of the queries (at most kQueryBlock). A count of ~s means that the score of key s,
  /// the first such, is NaN. `may_guess` a threshold from the first scores: returns how many queries
  /// had to be scored again because their guess was too high; the result is the same.
  /// `tile` as above; `buffers` holds select_scratch(kept, kQueryBlock).
  int64_t (*indexer_select)(const ScoreTiles&, Range queries, const SelectionOutput&,
                            bool may_guess, float* tile, float* buffers);

  /// The best of a row of given scores; returns the count, or ~s as above.
  /// `buffer` holds select_scratch(kept, 1).
  int32_t (*select_row)(const float* scores, RowKeys, int64_t top_k, float* buffer, int32_t* ids);

  // The steps of indexer_select, for queries whose keys are split among threads.
  /// Makes n buffers that keep `kept` scores each. `scratch` holds select_scratch(kept, n).
  void (*start_buffers)(float* scratch, int64_t kept, int64_t n, TopKBuffer* buffers);
  /// Offers a tile with the scores of `keys` to the buffers of its queries, as far as each sees; calls
  /// ascend in keys. Of `tiles` only the sizes are read.
  void (*offer_tile)(const ScoreTiles&, Range queries, const float* tile, Range keys,
                     TopKBuffer* buffers);
  /// The `kept` best of a query whose keys went to `count` buffers, range after range: as select_row.
  /// `scratch` holds merge_scratch(what a buffer keeps, count).
  int32_t (*merge_buffers)(const TopKBuffer* const* parts, int64_t count, int64_t kept,
                           float* scratch, int32_t* ids, int64_t top_k);
  int64_t (*merge_scratch)(int64_t kept, int64_t count);

  /// dq and dweight of the queries; `dscores` [queries][keys].
  /// `scratch` holds query_gradient_scratch(heads).
  void (*scores_backward_queries)(const IndexerSequence&, const float* dscores, Range queries,
                                  float* scratch, float* dq, float* dweight);

  /// dk of the keys [first, last): one key block.
  /// `scratch` holds key_gradient_scratch(heads).
  void (*scores_backward_keys)(const IndexerSequence&, const float* dscores, Range keys,
                               float* scratch, float* dk);

  /// scores [queries][top_k] of the selected pairs, -inf after the count.
  void (*selected_scores)(const IndexerSequence&, const SelectedKeys&, Range queries,
                          float* scores);

  /// dq and dweight; `dscores` [queries][top_k]. `scratch` holds selected_gradient_scratch.
  void (*selected_backward_queries)(const IndexerSequence&, const SelectedKeys&,
                                    const float* dscores, Range queries, float* scratch, float* dq,
                                    float* dweight);

  /// dk of the keys.
  void (*selected_backward_keys)(const IndexerSequence&, const KeyLists&, Range keys, float* dk);
};

extern const SelectKernels kSelectPortable;
extern const SelectKernels kSelectAvx2;
extern const SelectKernels kSelectAvx512;
extern const IndexerKernels<Bf16> kIndexerAvx512Bf16;
extern const IndexerKernels<Bf16> kIndexerAmx;
extern const ScreenKernels kScreenAvx512Bf16;
extern const ScreenKernels kScreenAmx;
extern const Int8Kernels kInt8Amx;

}  // namespace dsa::cpu
