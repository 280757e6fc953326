// One class per variant. They share projections and RoPE and differ only in `attend`.
#include "attention/layers.h"

#include "attention/dropped_attention.h"
#include "attention/indexed.h"
#include "attention/nvtx.h"
#include "attention/rope.h"
#include "attention/weights.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <limits>
#include <optional>

namespace dsa {
namespace {

using nvtx::Category;

/// Everything but the attention itself. Every variant draws the same numbers from torch's
/// generator, indexer or not, so a seed gives all of them the same shared weights.
class ProjectedAttention : public AttentionLayer {
 public:
  explicit ProjectedAttention(const AttentionConfig& config)
      : config_(config),
        rope_(rope_layout(config.rope_layout), config.head_width, config.rope_base),
        scale_(1.0 / std::sqrt(static_cast<double>(config.head_width))) {
    const int64_t width = config.head_width, model = config.d_model;
    q_ = register_parameter("q", linear_weight(config.n_heads * width, model));
    k_ = register_parameter("k", linear_weight(config.n_kv_heads * width, model));
    v_ = register_parameter("v", linear_weight(config.n_kv_heads * width, model));
    out_ = register_parameter("out", linear_weight(model, config.n_heads * width));
    own_seed_ = drawn_seed();
  }

  AttentionOutput forward(const at::Tensor& hidden, const at::Tensor& positions) final {
    const nvtx::Range range("attention_layer", Category::kAttention, hidden.size(1));
    std::optional<UseBackend> pinned;
    if (config_.backend != "auto") pinned.emplace(config_.backend);
    const Heads heads{rope_(split(hidden, q_), positions), rope_(split(hidden, k_), positions),
                      split(hidden, v_), scale_};
    AttentionOutput output = attend(heads, hidden, positions);
    output.hidden = project(output.hidden.flatten(2), out_);
    return output;
  }

 protected:
  /// Returns `hidden` as [B, T, H, D], before the output projection.
  virtual AttentionOutput attend(const Heads& heads, const at::Tensor& hidden,
                                 const at::Tensor& positions) = 0;

  /// Softmax attention with what no backend has: dropout, and the seed's additive mask.
  at::Tensor torch_attention(const Heads& heads, const std::optional<at::Tensor>& mask) const {
    const double dropout = is_training() ? config_.dropout : 0.0;
    const bool served = rows::serves(heads.q) && config_.n_heads == config_.n_kv_heads;
    if (served && !mask && dropout > 0) {
      return dropped_attention(heads.q, heads.k, heads.v, scale_, rows::dropping(dropout, true));
    }
    return at::scaled_dot_product_attention(heads.q.transpose(1, 2), heads.k.transpose(1, 2),
                                            heads.v.transpose(1, 2), mask, dropout,
                                            /*is_causal=*/!mask.has_value(), scale_,
                                            /*enable_gqa=*/config_.n_heads != config_.n_kv_heads)
        .transpose(1, 2);
  }

  AttentionConfig config_;
  Rope rope_;
  double scale_;
  uint64_t own_seed_;  ///< another in every layer, fixed by the seed of the model

 private:
  at::Tensor split(const at::Tensor& hidden, const at::Tensor& weight) const {
    return project(hidden, weight).unflatten(-1, {-1, config_.head_width});
  }

  at::Tensor q_, k_, v_, out_;
};

class DenseAttention : public ProjectedAttention {
 public:
  using ProjectedAttention::ProjectedAttention;

 protected:
  AttentionOutput attend(const Heads& heads, const at::Tensor&, const at::Tensor&) override {
    if (is_training() && config_.dropout > 0) return {torch_attention(heads, std::nullopt), {}, {}};
    return {ops::dense_attention(heads.q, heads.k, heads.v, scale_).out, {}, {}};
  }
};

/// DeepSeek Sparse Attention: the indexer selects, attention reads the selection, and a KL loss pulls
/// the indexer towards what attention did with it. Before that stage attention is dense. Untrained, the
/// indexer stays as it was drawn: the control that says whether its training matters.
class SparseAttention : public ProjectedAttention {
 public:
  SparseAttention(const AttentionConfig& config, bool trained)
      : ProjectedAttention(config), trained_(trained) {
    refuse_dropout(config, trained ? "dsa" : "dsa_untrained");
    indexer_ = register_module(
        "indexer", std::make_shared<Indexer>(config, own_seed_, Indexer::Style::kSound));
  }
  bool has_stages() const override { return trained_; }

 protected:
  AttentionOutput attend(const Heads& heads, const at::Tensor& hidden,
                         const at::Tensor& positions) override {
    const IndexedLayer self{*this,
                            *indexer_,
                            trained_,
                            resolved_top_k(config_, hidden.size(1)),
                            config_.sparse_backend,
                            hidden,
                            positions,
                            {}};
    return stage == TrainingStage::kSparse ? attend_selected(self, heads)
                                           : attend_densely(self, heads);
  }

 private:
  bool trained_;
  std::shared_ptr<Indexer> indexer_;
};

/// Controls that read as many keys as `dsa`, chosen without an indexer and without a gradient.
class ChosenAttention : public ProjectedAttention {
 public:
  ChosenAttention(const AttentionConfig& config, const char* variant) : ProjectedAttention(config) {
    refuse_dropout(config, variant);
  }

 protected:
  AttentionOutput attend(const Heads& heads, const at::Tensor&, const at::Tensor&) final {
    const ops::Selection selection = choose(heads, resolved_top_k(config_, heads.q.size(1)));
    AttentionOutput output{read_selected(heads, selection, config_.sparse_backend).out, {}, {}};
    if (keep_selection) output.selection = selection;
    if (capture) *capture = captured(heads, {}, selection);
    return output;
  }
  virtual ops::Selection choose(const Heads& heads, int64_t top_k) const = 0;
};

class WindowAttention : public ChosenAttention {
 public:
  explicit WindowAttention(const AttentionConfig& config) : ChosenAttention(config, "window") {}

 protected:
  ops::Selection choose(const Heads& heads, int64_t top_k) const override {
    return ops::window_selection(heads.q.size(0), heads.q.size(1), heads.k.size(1), top_k);
  }
};

class RandomAttention : public ChosenAttention {
 public:
  explicit RandomAttention(const AttentionConfig& config) : ChosenAttention(config, "random") {}

 protected:
  ops::Selection choose(const Heads& heads, int64_t top_k) const override {
    return ops::random_selection(heads.q.size(0), heads.q.size(1), heads.k.size(1), top_k,
                                 own_seed_);
  }
};

class OracleAttention : public ChosenAttention {
 public:
  explicit OracleAttention(const AttentionConfig& config) : ChosenAttention(config, "oracle") {}

 protected:
  ops::Selection choose(const Heads& heads, int64_t top_k) const override {
    return ops::oracle_selection(heads.q, heads.k, top_k, scale_);
  }
};

/// The seed's experiment, kept to be reproduced and disbelieved. -1e9 only discourages future keys:
/// a row with fewer than K visible ones fills up with them, and nothing masks them afterwards.
/// torch::topk itself, because our tie rule would pick other future keys and leak less. With `causal`
/// the mask hides them after all: the first repair, and no other.
class SparseAttentionAsPublished : public ProjectedAttention {
 public:
  SparseAttentionAsPublished(const AttentionConfig& config, bool causal)
      : ProjectedAttention(config), causal_(causal) {
    indexer_ = register_module(
        "indexer", std::make_shared<Indexer>(config, own_seed_, Indexer::Style::kAsPublished));
  }

 protected:
  AttentionOutput attend(const Heads& heads, const at::Tensor& hidden,
                         const at::Tensor& positions) override {
    const int64_t length = hidden.size(1);
    const int64_t top_k = std::min(resolved_top_k(config_, length), length);
    const IndexerInputs index = [&] {
      const at::NoGradGuard no_gradient;  // top-k passes none on; its parameters never see one
      return indexer_->forward(hidden, positions);
    }();
    const at::Tensor scores = discouraged_scores(index);
    at::Tensor chosen, mask;
    {
      const nvtx::Range range("topk_as_published", Category::kTopK, length);
      chosen = std::get<1>(at::topk(scores, top_k));
      mask = at::full_like(scores, -std::numeric_limits<double>::infinity())
                 .scatter_(-1, chosen, 0.0)
                 .unsqueeze(1);
      if (causal_) mask = mask + hidden_future(mask);
    }
    AttentionOutput output{torch_attention(heads, mask), {}, {}};
    if (!keep_selection && !capture) return output;
    const ops::Selection selection = selection_of(chosen);
    if (keep_selection) output.selection = selection;
    if (capture) *capture = captured(heads, {index.q, index.k, index.weight}, selection);
    return output;
  }

 private:
  static at::Tensor hidden_future(const at::Tensor& like) {
    const int64_t length = like.size(-1);
    return at::full({length, length}, -std::numeric_limits<double>::infinity(), like.options())
        .triu(1);
  }

  /// Keys a query reads, ascending, -1 behind them: future ones are left out if they are hidden.
  ops::Selection selection_of(const at::Tensor& chosen) const {
    const int64_t length = chosen.size(1), top_k = chosen.size(2);
    at::Tensor ids = std::get<0>(chosen.sort(-1)).to(at::kInt);
    at::Tensor count = at::full({chosen.size(0), length}, top_k, ids.options());
    if (causal_) {
      const at::Tensor future = ids > at::arange(length, ids.options()).unsqueeze(1);
      ids = ids.masked_fill(future, -1);  // ascending: they are the last
      count = future.logical_not().sum(-1).to(at::kInt);
    }
    return {ids, count};
  }

  static at::Tensor discouraged_scores(const IndexerInputs& index) {
    const nvtx::Range range("scores_as_published", Category::kIndexer, index.k.size(1));
    const at::Tensor products = at::relu(at::einsum("btij,bsj->btis", {index.q, index.k}));
    const at::Tensor scores = (products * index.weight.unsqueeze(-1)).sum(2);
    return scores + at::ones_like(scores[0]).triu(1) * -1e9;
  }

  bool causal_;
  std::shared_ptr<Indexer> indexer_;
};

}  // namespace

std::shared_ptr<AttentionLayer> make_dense(const AttentionConfig& config) {
  return std::make_shared<DenseAttention>(config);
}
std::shared_ptr<AttentionLayer> make_dsa(const AttentionConfig& config) {
  return std::make_shared<SparseAttention>(config, /*trained=*/true);
}
std::shared_ptr<AttentionLayer> make_dsa_untrained(const AttentionConfig& config) {
  return std::make_shared<SparseAttention>(config, /*trained=*/false);
}
std::shared_ptr<AttentionLayer> make_window(const AttentionConfig& config) {
  return std::make_shared<WindowAttention>(config);
}
std::shared_ptr<AttentionLayer> make_random(const AttentionConfig& config) {
  return std::make_shared<RandomAttention>(config);
}
std::shared_ptr<AttentionLayer> make_oracle(const AttentionConfig& config) {
  return std::make_shared<OracleAttention>(config);
}
std::shared_ptr<AttentionLayer> make_dsa_as_published(const AttentionConfig& config) {
  return std::make_shared<SparseAttentionAsPublished>(config, /*causal=*/false);
}
std::shared_ptr<AttentionLayer> make_dsa_masked(const AttentionConfig& config) {
  return std::make_shared<SparseAttentionAsPublished>(config, /*causal=*/true);
}

}  // namespace dsa
