// The lightning indexer's projections: what turns hidden states into the q, k and weight that
// ops::indexer_select, ops::selected_scores and ops::indexer_scores take.
#pragma once
#include "attention/rope.h"
#include "attention/variant.h"

namespace dsa {

struct IndexerInputs {
  at::Tensor q;       ///< [B, T, I, J]; twice as many heads without ReLU
  at::Tensor k;       ///< [B, T, J], one key per token
  at::Tensor weight;  ///< [B, T, I], already times I^-1/2 J^-1/2
};

class Indexer : public torch::nn::Module {
 public:
  enum class Style {
    kSound,       ///< k through LayerNorm with bias, RoPE on the leading part of J, and the options
    kAsPublished  ///< the seed's: neither, so it knows no order
  };
  /// @param seed  of its own generator: the weights of the rest of the model do not depend on
  ///              whether there is an indexer
  /// @param query_latent  width of the layer's query latent; 0 = it has none
  /// @throws Error if index-query-from asks for a latent that there is not
  Indexer(const AttentionConfig& config, uint64_t seed, Style style, int64_t query_latent = 0);

  /// The inputs are detached: no loss of the indexer reaches the model through them.
  /// @param hidden        [B, T, d_model]
  /// @param positions     int64 [T]
  /// @param query_latent  [B, T, its width], read if index-query-from says so; or undefined
  IndexerInputs forward(const at::Tensor& hidden, const at::Tensor& positions,
                        const at::Tensor& query_latent = {});

 private:
  int64_t heads_, width_;
  Style style_;
  bool relu_, from_latent_;
  Rope rope_;
  at::Tensor hadamard_;        ///< [J, J], symmetric and orthonormal; undefined without
  at::Tensor q_, k_, weight_;  ///< [I*J, d_model or query latent], [J, d_model], [I, d_model]
  at::Tensor norm_scale_, norm_bias_;  ///< [J]; undefined as published
};

}  // namespace dsa
