// An attention variant is one row of a table. Training benchmarks, audits and `dsa-bench list` loop
// over `variants()`; reports read name, summary, role and colour back from the record.
#pragma once
#include "attention/cost.h"
#include "attention/fields.h"
#include "attention/ops.h"

#include <torch/nn/module.h>

#include <memory>
#include <string>
#include <vector>

namespace dsa {

struct AttentionConfig {
  int64_t d_model = 128;
  int64_t n_heads = 4;
  int64_t n_kv_heads = 4;
  int64_t head_width = 32;  ///< D = V
  double rope_base = 10000.0;
  std::string rope_layout = "half_split";  ///< of the attention heads: half_split | interleaved
  int64_t query_latent_width = 64;         ///< of the mla variants, as the next three; 0 = none
  int64_t kv_latent_width = 64;
  int64_t nope_width =
      32;  ///< part of a query or key that is not rotated; its value has head_width
  int64_t rope_width = 16;       ///< part that is, shared by all heads' keys
  int64_t top_k = 0;             ///< 0: use top_k_fraction
  double top_k_fraction = 0.25;  ///< of the sequence length, when top_k is 0
  int64_t index_heads = 4;
  int64_t index_width = 32;
  int64_t index_rope_width = 16;                 ///< leading part of index_width that is rotated
  std::string index_rope_layout = "half_split";  ///< half_split | interleaved
  bool index_hadamard = false;
  bool index_relu = true;
  std::string index_query_from = "hidden";  ///< hidden | latent
  double dropout = 0.0;  ///< of attention probabilities; only torch backends have it
  double indexer_loss_weight = 1.0;
  std::string backend = "auto";
  std::string sparse_backend = "auto";
};

template <class C, class V>
  requires is_a<C, AttentionConfig>
void visit_fields(C& c, V&& v) {
  auto& [d_model, n_heads, n_kv_heads, head_width, rope_base, rope_layout, query_latent_width,
         kv_latent_width, nope_width, rope_width, top_k, top_k_fraction, index_heads, index_width,
         index_rope_width, index_rope_layout, index_hadamard, index_relu, index_query_from, dropout,
         indexer_loss_weight, backend, sparse_backend] = c;
  v("d-model", d_model, "width of the residual stream");
  v("n-heads", n_heads, "query heads");
  v("n-kv-heads", n_kv_heads,
    "key/value heads; divides n-heads (the mla variants have one latent instead)");
  v("head-width", head_width, "query, key and value width of a head; mla: value width");
  v("rope-base", rope_base, "base of the rotary frequencies");
  v("rope-layout", rope_layout, "pairs of the attention heads: half_split or interleaved");
  v("query-latent-width", query_latent_width,
    "mla: width of the latent that queries are projected up from; 0 = from the hidden state");
  v("kv-latent-width", kv_latent_width,
    "mla: width of the latent that keys and values are projected up from");
  v("nope-width", nope_width, "mla: width of a query's or key's part without RoPE");
  v("rope-width", rope_width, "mla: width of the part with RoPE, whose key all heads share");
  v("top-k", top_k, "keys read per query; 0 = top-k-fraction of the length");
  v("top-k-fraction", top_k_fraction,
    "keys read per query as a fraction of the length, if top-k is 0");
  v("index-heads", index_heads, "lightning-indexer heads");
  v("index-width", index_width, "lightning-indexer key width");
  v("index-rope-width", index_rope_width, "leading part of index-width that is rotated");
  v("index-rope-layout", index_rope_layout,
    "pairs of the indexer: half_split or interleaved (DeepSeek-V3.2: half_split, its heads "
    "interleaved)");
  v("index-hadamard", index_hadamard,
    "rotate the indexer's queries and keys by a Hadamard matrix, which spreads outliers and keeps "
    "every score; index-width must be a power of 2");
  v("index-relu", index_relu, "ReLU of every head's product in the index score; false = none");
  v("index-query-from", index_query_from,
    "what the indexer's queries are projected from: hidden (state) or latent (mla's query latent)");
  v("dropout", dropout,
    "probability of dropping an attention probability (dense and dsa_as_published only)");
  v("indexer-loss-weight", indexer_loss_weight,
    "factor of the indexer's KL loss; 0 trains no indexer");
  v("backend", backend, "attention backend of training runs: auto or one of `dsa-bench list`");
  v("sparse-backend", sparse_backend,
    "the same for sparse attention alone, e.g. torch-mask; auto = as backend says");
}

/// Keys a query may read at sequence length `length`: top_k, or the fraction of it (at least 1).
int64_t resolved_top_k(const AttentionConfig& config, int64_t length);

/// @throws Error naming the field, its value and what it may be.
void check(const AttentionConfig& config);

struct AttentionOutput {
  at::Tensor hidden;  ///< [B, T, d_model]
  /// Scalar, nats per query, before indexer_loss_weight; undefined for variants that train no
  /// indexer and while gradients are off.
  at::Tensor indexer_loss;
  ops::Selection selection;  ///< undefined tensors unless `keep_selection` was set (audits)
};

/// What a layer with a selection chose from, and what it chose.
struct AttentionCapture {
  at::Tensor q, k;          ///< of the attention heads, rotated: [B, T, H, D], [B, T, G, D]
  ops::IndexTensors index;  ///< undefined without an indexer
  ops::Selection selection;
  double scale = 0;  ///< of q . k
};

/// What a step trains in layers with an indexer [DeepSeek-V3.2 section 2.1]; other layers do the same
/// in every stage.
enum class TrainingStage {
  kDense,    ///< dense attention, the indexer idle
  kIndexer,  ///< stage 1: dense attention, indexer_loss over all visible keys
  kSparse    ///< stage 2: attention reads the selection, indexer_loss over it
};

class AttentionLayer : public torch::nn::Module {
 public:
  /// @param hidden     [B, T, d_model], normalised
  /// @param positions  int64 [T], absolute
  virtual AttentionOutput forward(const at::Tensor& hidden, const at::Tensor& positions) = 0;
  virtual bool has_stages() const { return false; }
  TrainingStage stage = TrainingStage::kSparse;
  bool keep_selection = false;
  AttentionCapture* capture = nullptr;  ///< filled by forward where set, if the variant selects
};

struct AttentionVariant {
  std::string name;     ///< "dense", "dsa", "dsa_as_published": stable, stored in records
  std::string summary;  ///< one line, shown by `dsa-bench list` and under every chart
  std::string role;     ///< baseline | candidate | control | bound | flawed
  int colour_slot = 0;  ///< fixed colour, shape and dash in every chart; 0 = dense
  std::shared_ptr<AttentionLayer> (*make)(const AttentionConfig&) = nullptr;
  /// Attention core of one layer, forward only (indexer included), for MFU and the FLOP ratio.
  Cost (*cost)(const AttentionConfig&, int64_t batch, int64_t length) = nullptr;
  /// The same with the backward pass and, where there is one, the indexer's loss.
  Cost (*training_cost)(const AttentionConfig&, int64_t batch, int64_t length) = nullptr;
  /// Its dense sibling: same projections, so the one to compare it with and to start from. Its own
  /// name if it is one.
  std::string baseline = "dense";
};

const std::vector<AttentionVariant>& variants();
const AttentionVariant& variant(const std::string& name);  ///< @throws Error listing known names

}  // namespace dsa
