#include "attention/indexer.h"

#include "attention/nvtx.h"
#include "attention/weights.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>

#include <cmath>

namespace dsa {
namespace {
constexpr double kNormEpsilon = 1e-6;

/// Sylvester's: H(2n) = [[H, H], [H, -H]], times n^-1/2.
at::Tensor hadamard_matrix(int64_t width) {
  at::Tensor h = at::ones({1, 1}, at::kDouble);
  while (h.size(0) < width) h = at::cat({at::cat({h, h}, 1), at::cat({h, -h}, 1)}, 0);
  return h / std::sqrt(static_cast<double>(width));
}

}  // namespace

Indexer::Indexer(const AttentionConfig& config, uint64_t seed, Style style, int64_t query_latent)
    : heads_(config.index_heads),
      width_(config.index_width),
      style_(style),
      relu_(config.index_relu),
      from_latent_(config.index_query_from == "latent"),
      rope_(rope_layout(config.index_rope_layout),
            style == Style::kSound ? config.index_rope_width : 0, config.rope_base) {
  require(
      !from_latent_ || query_latent > 0,
      "index-query-from is latent, but this variant has no query latent; take hidden, or an mla "
      "variant with query-latent-width above 0");
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  const int64_t asked = from_latent_ ? query_latent : config.d_model;
  q_ = register_parameter("q", linear_weight(heads_ * width_, asked, generator));
  k_ = register_parameter("k", linear_weight(width_, config.d_model, generator));
  weight_ = register_parameter("weight", linear_weight(heads_, config.d_model, generator));
  if (style_ == Style::kAsPublished) return;
  norm_scale_ = register_parameter("norm_scale", at::ones({width_}));
  norm_bias_ = register_parameter("norm_bias", at::zeros({width_}));
  if (config.index_hadamard) hadamard_ = hadamard_matrix(width_);
}

IndexerInputs Indexer::forward(const at::Tensor& hidden, const at::Tensor& positions,
                               const at::Tensor& query_latent) {
  const nvtx::Range range("indexer_projections", nvtx::Category::kIndexer, hidden.size(1));
  const at::Tensor input = hidden.detach();
  const int64_t batch = input.size(0), length = input.size(1);
  const at::Tensor asking = from_latent_ ? query_latent.detach() : input;
  at::Tensor q = project(asking, q_).view({batch, length, heads_, width_});
  at::Tensor k = project(input, k_);
  if (style_ == Style::kSound) {
    k = at::layer_norm(k, {width_}, norm_scale_, norm_bias_, kNormEpsilon);
    q = rope_(q, positions);
    k = rope_(k.unsqueeze(2), positions).squeeze(2);
  }
  if (hadamard_.defined()) {
    const at::Tensor rotation = hadamard_.to(q.scalar_type());
    q = at::matmul(q, rotation);
    k = at::matmul(k, rotation);
  }
  const double scale = 1.0 / std::sqrt(static_cast<double>(heads_ * width_));
  const at::Tensor weight = project(input, weight_) * scale;
  if (relu_ || style_ == Style::kAsPublished) return {q, k, weight};
  // x = relu(x) - relu(-x): every kernel and loss serves the score without ReLU too.
  return {at::cat({q, -q}, 2), k, at::cat({weight, -weight}, 2)};
}

}  // namespace dsa
