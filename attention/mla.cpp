// Multi-head latent attention [DeepSeek-V2 section 2.1], dense and with DSA. A token leaves one latent
// that keys and values of all heads are projected up from, and one rotated key beside it.
// MHA mode makes those keys and values. MQA mode [DeepSeek-V3.2 appendix A] moves the up-projections to
// the other side: a query asks the latent itself, which is key and value of all heads at once, so that
// one selection is gathered once. Same result; a pair costs H (N + R + V) in one, H (2C + R) in the other.
#include "attention/indexed.h"
#include "attention/layers.h"
#include "attention/nvtx.h"
#include "attention/weights.h"

#include <ATen/Functions.h>

#include <cmath>
#include <optional>

namespace dsa {
namespace {

constexpr double kLatentEpsilon = 1e-6;

/// Projections of both modes; letters beside those of ops.h: N = nope-width and R = rope-width of a query
/// or key, V = head-width, C = kv-latent-width.
class LatentAttention : public AttentionLayer {
 public:
  explicit LatentAttention(const AttentionConfig& config)
      : config_(config),
        rope_(rope_layout(config.rope_layout), config.rope_width, config.rope_base) {
    const int64_t model = config.d_model, heads = config.n_heads, latent = config.kv_latent_width;
    const int64_t key = config.nope_width + config.rope_width, query = config.query_latent_width;
    if (query > 0) {
      q_down_ = register_parameter("q_down", linear_weight(query, model));
      q_norm_ = register_parameter("q_norm", at::ones({query}));
    }
    q_ = register_parameter("q", linear_weight(heads * key, query > 0 ? query : model));
    kv_down_ = register_parameter("kv_down", linear_weight(latent + config.rope_width, model));
    kv_norm_ = register_parameter("kv_norm", at::ones({latent}));
    k_ = register_parameter("k", linear_weight(heads * config.nope_width, latent));
    v_ = register_parameter("v", linear_weight(heads * config.head_width, latent));
    out_ = register_parameter("out", linear_weight(model, heads * config.head_width));
    own_seed_ = drawn_seed();
  }

  AttentionOutput forward(const at::Tensor& hidden, const at::Tensor& positions) final {
    const nvtx::Range range("attention_layer", nvtx::Category::kAttention, hidden.size(1));
    std::optional<UseBackend> pinned;
    if (config_.backend != "auto") pinned.emplace(config_.backend);
    AttentionOutput output = attend(projected(hidden, positions), hidden, positions);
    output.hidden = project(output.hidden.flatten(2), out_);
    return output;
  }

 protected:
  struct Projected {
    at::Tensor query_latent;    ///< [B, T, query-latent-width], normalised; undefined without
    at::Tensor q_nope, q_rope;  ///< [B, T, H, N], [B, T, H, R], the second rotated
    at::Tensor latent, k_rope;  ///< [B, T, C], normalised; [B, T, 1, R], rotated
  };
  /// Returns `hidden` as [B, T, H, V], before the output projection.
  virtual AttentionOutput attend(const Projected& x, const at::Tensor& hidden,
                                 const at::Tensor& positions) = 0;

  /// MHA mode: keys [B, T, H, N + R] and values [B, T, H, V] of every head.
  Heads expanded(const Projected& x) const {
    const int64_t heads = config_.n_heads;
    const at::Tensor k_nope = project(x.latent, k_).unflatten(-1, {heads, -1});
    return {at::cat({x.q_nope, x.q_rope}, -1),
            at::cat({k_nope, x.k_rope.expand({-1, -1, heads, -1})}, -1),
            project(x.latent, v_).unflatten(-1, {heads, -1}), scale()};
  }

  /// MQA mode: queries [B, T, H, C + R], one key [B, T, 1, C + R] whose first C columns are the value.
  Heads absorbed(const Projected& x) const {
    const at::Tensor up = k_.unflatten(0, {config_.n_heads, -1});
    const at::Tensor asked =
        at::einsum("bthn,hnc->bthc", {x.q_nope, up.to(x.q_nope.scalar_type())});
    const at::Tensor key = at::cat({x.latent.unsqueeze(2), x.k_rope}, -1);
    return {at::cat({asked, x.q_rope}, -1), key, key.narrow(-1, 0, config_.kv_latent_width),
            scale()};
  }

  /// What MQA mode read, [B, T, H, C], as the values of the heads, [B, T, H, V].
  at::Tensor expanded_values(const at::Tensor& read) const {
    const at::Tensor up = v_.to(read.scalar_type()).unflatten(0, {config_.n_heads, -1});
    return at::einsum("bthc,hvc->bthv", {read, up});
  }

  AttentionConfig config_;
  uint64_t own_seed_;  ///< another in every layer, fixed by the seed of the model

 private:
  /// Of the width that a head has in MHA mode, whichever mode runs.
  double scale() const {
    return 1.0 / std::sqrt(static_cast<double>(config_.nope_width + config_.rope_width));
  }

  Projected projected(const at::Tensor& hidden, const at::Tensor& positions) {
    Projected x;
    if (q_down_.defined()) x.query_latent = normalised(project(hidden, q_down_), q_norm_);
    const at::Tensor q = project(x.query_latent.defined() ? x.query_latent : hidden, q_)
                             .unflatten(-1, {config_.n_heads, -1});
    x.q_nope = q.narrow(-1, 0, config_.nope_width);
    x.q_rope = rope_(q.narrow(-1, config_.nope_width, config_.rope_width), positions);
    const at::Tensor kv = project(hidden, kv_down_);
    x.latent = normalised(kv.narrow(-1, 0, config_.kv_latent_width), kv_norm_);
    const at::Tensor shared = kv.narrow(-1, config_.kv_latent_width, config_.rope_width);
    x.k_rope = rope_(shared.unsqueeze(2), positions);
    return x;
  }

  static at::Tensor normalised(const at::Tensor& latent, const at::Tensor& scale) {
    const at::Tensor own = scale.to(latent.scalar_type());
    return at::rms_norm(latent, own.sizes(), own, kLatentEpsilon);
  }

  Rope rope_;
  at::Tensor q_down_, q_norm_, q_, kv_down_, kv_norm_, k_, v_, out_;
};

/// In MHA mode: without a selection there is nothing to gather, and its pairs cost less.
class LatentDense : public LatentAttention {
 public:
  explicit LatentDense(const AttentionConfig& config) : LatentAttention(config) {
    refuse_dropout(config, "mla_dense");
  }

 protected:
  AttentionOutput attend(const Projected& x, const at::Tensor&, const at::Tensor&) override {
    const Heads heads = expanded(x);
    return {ops::dense_attention(heads.q, heads.k, heads.v, heads.scale).out, {}, {}};
  }
};

/// DSA in MQA mode; before the sparse stage, dense in MHA mode, bit for bit as LatentDense.
class LatentSparse : public LatentAttention {
 public:
  explicit LatentSparse(const AttentionConfig& config) : LatentAttention(config) {
    refuse_dropout(config, "mla_dsa");
    const int64_t latent = config.query_latent_width;
    indexer_ = register_module(
        "indexer", std::make_shared<Indexer>(config, own_seed_, Indexer::Style::kSound, latent));
  }
  bool has_stages() const override { return true; }

 protected:
  AttentionOutput attend(const Projected& x, const at::Tensor& hidden,
                         const at::Tensor& positions) override {
    const IndexedLayer self{*this,
                            *indexer_,
                            /*trained=*/true,
                            resolved_top_k(config_, hidden.size(1)),
                            config_.sparse_backend,
                            hidden,
                            positions,
                            x.query_latent};
    if (stage != TrainingStage::kSparse) return attend_densely(self, expanded(x));
    AttentionOutput output = attend_selected(self, absorbed(x));
    output.hidden = expanded_values(output.hidden);
    return output;
  }

 private:
  std::shared_ptr<Indexer> indexer_;
};

}  // namespace

std::shared_ptr<AttentionLayer> make_mla_dense(const AttentionConfig& config) {
  return std::make_shared<LatentDense>(config);
}
std::shared_ptr<AttentionLayer> make_mla_dsa(const AttentionConfig& config) {
  return std::make_shared<LatentSparse>(config);
}

}  // namespace dsa
