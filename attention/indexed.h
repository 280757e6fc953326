// What a layer with an indexer does with its heads in each stage of training: read densely, select, read
// the selection, teach the indexer. Private to attention/.
#pragma once
#include "attention/indexer.h"

namespace dsa {

/// Queries, keys and values of a layer, positions rotated in.
struct Heads {
  at::Tensor q, k, v;  ///< [B, T, H, D], [B, T, G, D], [B, T, G, V]
  double scale;        ///< of q . k
};

AttentionCapture captured(const Heads& heads, const ops::IndexTensors& index,
                          const ops::Selection& selection);

/// ops::sparse_attention on `backend`, or on the one that is pinned for all if it is "auto"; the backward
/// pass runs there too.
ops::AttentionResult read_selected(const Heads& heads, const ops::Selection& selection,
                                   const std::string& backend);

/// Our sparse kernels have no dropout; running without it would silently change the experiment.
/// @throws Error if the configuration has some
void refuse_dropout(const AttentionConfig& config, const char* variant);

/// A layer with an indexer, for one forward pass.
struct IndexedLayer {
  AttentionLayer& layer;  ///< its stage, and what it is asked to keep
  Indexer& indexer;
  bool trained;  ///< or left as it was drawn, as the control that says whether its training matters
  int64_t top_k;
  const std::string& sparse_backend;  ///< of the configuration
  /// What the indexer sees: [B, T, d_model], int64 [T], and the query latent if the layer has one.
  at::Tensor hidden, positions, query_latent;
};

/// Before the sparse stage: dense attention, and in stage 1 the indexer's loss over all visible keys.
AttentionOutput attend_densely(const IndexedLayer& of, const Heads& heads);

/// The sparse stage: attention over what the indexer selects, and the indexer's loss over that.
AttentionOutput attend_selected(const IndexedLayer& of, const Heads& heads);

}  // namespace dsa
