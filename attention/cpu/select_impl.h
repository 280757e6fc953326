// The struct of indexer and selection kernels for one ISA; select_<isa>.cpp makes it once.
#pragma once
#include "attention/cpu/indexer_gradient_impl.h"
#include "attention/cpu/indexer_impl.h"
#include "attention/cpu/selected_impl.h"

namespace dsa::cpu {

template <class Isa>
constexpr SelectKernels select_kernels_of() {
  return {
      .indexer = TileScorer<Isa>::kernels(),
      .select_scratch = TopK<Isa>::scratch,
      .query_gradient_scratch = IndexerGradient<Isa>::query_scratch,
      .key_gradient_scratch = IndexerGradient<Isa>::key_scratch,
      .selected_gradient_scratch = Selected<Isa>::gradient_scratch,
      .indexer_scores = Indexer<Isa>::scores,
      .indexer_select = Indexer<Isa>::select,
      .select_row = Indexer<Isa>::select_row,
      .start_buffers = Indexer<Isa>::start_buffers,
      .offer_tile = Indexer<Isa>::offer_tile,
      .merge_buffers = TopK<Isa>::merge,
      .merge_scratch = TopK<Isa>::merge_scratch,
      .scores_backward_queries = IndexerGradient<Isa>::queries,
      .scores_backward_keys = IndexerGradient<Isa>::keys,
      .selected_scores = Selected<Isa>::scores,
      .selected_backward_queries = Selected<Isa>::backward_queries,
      .selected_backward_keys = Selected<Isa>::backward_keys,
  };
}

}  // namespace dsa::cpu
