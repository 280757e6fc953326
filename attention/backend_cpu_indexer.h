// Private: what the indexers of the `cpu` backend share. Splits tensors into blocks of queries and gives
// every thread its scratch.
#pragma once
#include "attention/cpu/denormals.h"
#include "attention/cpu/dispatch.h"
#include "attention/cpu/parallel.h"
#include "attention/cpu/scratch.h"
#include "attention/cpu/select_kernels.h"
#include "attention/door.h"
#include "attention/nvtx.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <type_traits>

namespace dsa::cpu {

inline int64_t blocks_of(int64_t items, int64_t block) {
  return (items + block - 1) / block;
}

/// The tensors of an indexer call, one sequence at a time. `Element` is float, Bf16 or int8_t.
template <class Element>
struct IndexerBatch {
  const Element* q;
  const Element* k;
  const float* weight;
  const float* key_scale = nullptr;  ///< [batch][scales]
  int64_t scales = 0;                ///< keys rounded up to blocks
  float* packed = nullptr;
  int64_t packed_floats = 0;  ///< of one sequence
  int64_t batch, queries, keys, heads, width;

  /// @param head_weight  float32
  IndexerBatch(const at::Tensor& query, const at::Tensor& key, const at::Tensor& head_weight)
      : IndexerBatch(query, key, static_cast<const Element*>(query.const_data_ptr()),
                     static_cast<const Element*>(key.const_data_ptr()),
                     head_weight.const_data_ptr<float>()) {}

  /// The sizes of two tensors, and where their elements are.
  IndexerBatch(const at::Tensor& query, const at::Tensor& key, const Element* queries_at,
               const Element* keys_at, const float* weights_at)
      : q(queries_at),
        k(keys_at),
        weight(weights_at),
        batch(query.size(0)),
        queries(query.size(1)),
        keys(key.size(1)),
        heads(query.size(2)),
        width(query.size(3)) {}

  IndexerInputs<Element> sequence(int64_t b) const {
    return {q + b * queries * heads * width,
            k + b * keys * width,
            packed + b * packed_floats,
            weight + b * queries * heads,
            queries,
            keys,
            heads,
            width,
            key_scale + b * scales};
  }
};

/// Copies the keys of every sequence into the layout of the dense kernels.
template <class Element>
void pack(IndexerBatch<Element>& batch, const IndexerKernels<Element>& kernels) {
  const int64_t key_blocks = blocks_of(batch.keys, kernels.key_block);
  batch.packed_floats = key_blocks * kernels.key_block * kernels.packed_width(batch.width);
  batch.packed = scratch<float>(Slot::kSelectCall, batch.batch * batch.packed_floats);
  for_each_block(batch.batch * key_blocks, [&](int64_t block) {
    const int64_t b = block / key_blocks, first = block % key_blocks;
    kernels.pack_keys(batch.sequence(b), {first, first + 1},
                      batch.packed + b * batch.packed_floats);
  });
}

/// Calls work(b, range) for every block of `size` items of every sequence. The last blocks come
/// first: under causality they see the most keys.
template <class Work>
void for_each_range(int64_t batch, int64_t items, int64_t size, const Work& work) {
  const int64_t blocks = blocks_of(items, size);
  for_each_block(batch * blocks, [&](int64_t block) {
    const int64_t first = (blocks - 1 - block / batch) * size;
    work(block % batch, Range{first, std::min(first + size, items)});
  });
}

inline at::Tensor as_float(const at::Tensor& x) {
  return x.scalar_type() == at::kFloat ? x : x.to(at::kFloat);
}

inline float* score_tile() {
  return scratch<float>(Slot::kSelectTask, kQueryBlock * kTileStride);
}

/// @throws Error naming the first (b, t, s) whose score is NaN; a kernel reports it as a count ~s.
inline void throw_if_nan(const at::Tensor& count) {
  const auto* counts = count.const_data_ptr<int32_t>();
  const int64_t queries = count.size(1);
  for (int64_t row = 0; row < count.numel(); ++row) {
    if (counts[row] < 0) throw_nan_score(row / queries, row % queries, ~counts[row]);
  }
}

inline ops::Selection empty_selection(int64_t batch, int64_t queries, int64_t top_k) {
  return {at::empty({batch, queries, top_k}, at::kInt), at::empty({batch, queries}, at::kInt)};
}

inline SelectionOutput output(ops::Selection& selection, int64_t b) {
  const int64_t queries = selection.indices.size(1), top_k = selection.indices.size(2);
  return {selection.indices.mutable_data_ptr<int32_t>() + b * queries * top_k,
          selection.count.mutable_data_ptr<int32_t>() + b * queries, top_k};
}

/// Tells scoring and top-k of a fused kernel apart for a StageClock; without one it costs nothing. The wall
/// clock from the first block to its end is split as the threads' time in blocks was.
class FusedStages {
 public:
  FusedStages() = default;
  ~FusedStages() {
    const auto all = static_cast<double>(all_.load());
    if (all <= 0) return;
    const double wall = 1e-9 * static_cast<double>(now() - began_);
    nvtx::StageClock::reassign(nvtx::Category::kTopK,
                               wall * (1 - static_cast<double>(scoring_.load()) / all));
  }
  FusedStages(const FusedStages&) = delete;
  FusedStages& operator=(const FusedStages&) = delete;

  /// work(time): a block's, on any thread; `time` goes to its kernel.
  template <class Work>
  void block(const Work& work) {
    if (!counts_) return work(nullptr);
    ScoringTime time{now};
    const int64_t before = now();
    int64_t none = 0;
    began_.compare_exchange_strong(none, before);
    work(&time);
    all_ += now() - before;
    scoring_ += time.spent;
  }

 private:
  static int64_t now() { return std::chrono::steady_clock::now().time_since_epoch().count(); }
  static_assert(std::is_same_v<std::chrono::steady_clock::period, std::nano>);

  const bool counts_ = nvtx::StageClock::is_running();
  std::atomic<int64_t> began_{0};             ///< nanoseconds, as below
  std::atomic<int64_t> all_{0}, scoring_{0};  ///< of all threads
};

/// Calls work(b, tiles, queries) for every block of queries of a packed batch.
template <class Element, class Work>
void for_each_tiled_block(const IndexerBatch<Element>& batch,
                          const IndexerKernels<Element>& kernels, const Work& work) {
  for_each_range(batch.batch, batch.queries, kQueryBlock, [&](int64_t b, Range queries) {
    const auto inputs = batch.sequence(b);
    work(b, ScoreTiles{&inputs, kernels.score_tile, kernels.chunk, batch.queries, batch.keys},
         queries);
  });
}

/// The fused indexer over blocks of queries. A block may guess a threshold; the result is the same
/// either way, so the blocks before it may say whether that pays.
class TiledSelection {
 public:
  TiledSelection(const SelectKernels& kernels, int64_t kept, ops::Selection& selection)
      : kernels_(kernels), kept_(kept), selection_(selection) {}

  void operator()(int64_t b, const ScoreTiles& tiles, Range queries) {
    stages_.block([&](ScoringTime* time) {
      ScoreTiles timed = tiles;
      timed.time = time;
      select(b, timed, queries);
    });
  }

 private:
  void select(int64_t b, const ScoreTiles& tiles, Range queries) {
    const KeepDenormals exact;
    auto* buffers =
        scratch<float>(Slot::kSelectBuffer, kernels_.select_scratch(kept_, kQueryBlock));
    const bool may_guess = missed_ <= kQueryBlock + guessed_ / 16;
    if (may_guess) guessed_ += queries.last - queries.first;
    missed_ += kernels_.indexer_select(tiles, queries, output(selection_, b), may_guess,
                                       score_tile(), buffers);
  }

  const SelectKernels& kernels_;
  int64_t kept_;
  ops::Selection& selection_;
  std::atomic<int64_t> guessed_{0}, missed_{0};
  FusedStages stages_;
};

}  // namespace dsa::cpu
