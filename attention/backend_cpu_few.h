// The fused indexer for few queries, as in decoding: one block of queries would keep one thread busy,
// so the keys are split instead, and a chunk of them is packed where it is scored.
#pragma once
#include "attention/backend_cpu_indexer.h"

#include <vector>

namespace dsa::cpu {

/// Scores of queries [0, batch.queries) <= kQueryBlock of each sequence; `batch` is not packed.
template <class Element>
class FewQueries {
 public:
  FewQueries(const IndexerBatch<Element>& batch, const IndexerKernels<Element>& scorer,
             const SelectKernels& kernels, ops::Selection& selection)
      : batch_(batch),
        scorer_(scorer),
        kernels_(kernels),
        selection_(selection),
        kept_(std::min(selection.indices.size(2), batch.keys)),
        chunks_(blocks_of(batch.keys, scorer.chunk)) {
    // Results do not depend on the number of parts: the best of all are among the best of each.
    const int64_t threads = at::get_num_threads();
    parts_ = std::clamp<int64_t>(blocks_of(threads, batch.batch), 1, chunks_);
    part_kept_ = std::min(kept_, blocks_of(chunks_, parts_) * scorer.chunk);
    buffers_.resize(static_cast<size_t>(batch.batch * parts_ * batch.queries));
  }

  void operator()() {
    const int64_t floats = kernels_.select_scratch(part_kept_, batch_.queries);
    auto* memory = scratch<float>(Slot::kSelectCall, batch_.batch * parts_ * floats);
    for_each_block(batch_.batch * parts_, [&](int64_t task) {
      stages_.block([&](ScoringTime* time) { part(task, memory + task * floats, time); });
    });
    for_each_block(batch_.batch * batch_.queries,
                   [&](int64_t row) { stages_.block([&](ScoringTime*) { merge(row); }); });
  }

 private:
  TopKBuffer* buffers_of(int64_t task) {
    return buffers_.data() + static_cast<size_t>(task * batch_.queries);
  }

  void part(int64_t task, float* memory, ScoringTime* time) {
    const KeepDenormals exact;
    const int64_t b = task / parts_, p = task % parts_;
    kernels_.start_buffers(memory, part_kept_, batch_.queries, buffers_of(task));
    const Range queries{0, batch_.queries};
    const ScoreTiles sizes{nullptr, nullptr, scorer_.chunk, batch_.queries, batch_.keys, nullptr};
    for (int64_t c = p * chunks_ / parts_; c < (p + 1) * chunks_ / parts_; ++c) {
      const Range keys{c * scorer_.chunk, std::min((c + 1) * scorer_.chunk, batch_.keys)};
      float* tile = score_tile();
      timed(time, [&] { score(b, queries, keys, tile); });
      kernels_.offer_tile(sizes, queries, tile, keys, buffers_of(task));
    }
  }

  /// A chunk as a sequence of its own: what a query sees of it moves with its first key.
  void score(int64_t b, Range queries, Range keys, float* tile) {
    IndexerInputs<Element> chunk = batch_.sequence(b);
    chunk.k += keys.first * batch_.width;
    chunk.keys -= keys.first;
    const int64_t floats = scorer_.chunk * scorer_.packed_width(batch_.width);
    auto* packed = scratch<float>(Slot::kSelectChunk, floats);
    scorer_.pack_keys(chunk, {0, blocks_of(keys.last - keys.first, scorer_.key_block)}, packed);
    chunk.packed = packed;
    scorer_.score_tile(&chunk, queries, 0, tile);
  }

  void merge(int64_t row) {
    const KeepDenormals exact;
    const int64_t b = row / batch_.queries, t = row % batch_.queries;
    std::vector<const TopKBuffer*> parts;
    for (int64_t p = 0; p < parts_; ++p) parts.push_back(buffers_of(b * parts_ + p) + t);
    auto* memory = scratch<float>(Slot::kSelectBuffer, kernels_.merge_scratch(part_kept_, parts_));
    const SelectionOutput out = output(selection_, b);
    out.count[t] = kernels_.merge_buffers(parts.data(), parts_, kept_, memory,
                                          out.ids + t * out.top_k, out.top_k);
  }

  const IndexerBatch<Element>& batch_;
  const IndexerKernels<Element>& scorer_;
  const SelectKernels& kernels_;
  ops::Selection& selection_;
  int64_t kept_, chunks_, parts_;
  int64_t part_kept_;                ///< all keys of a part, where those are fewer than kept_
  std::vector<TopKBuffer> buffers_;  ///< [batch][parts][queries]
  FusedStages stages_;
};

}  // namespace dsa::cpu
