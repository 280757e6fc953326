#include "attention/indexer.h"

#include "attention/nvtx.h"
#include "attention/weights.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>

#include <cmath>

namespace dsa {
namespace {
constexpr double kNormEpsilon = 1e-6;
}

Indexer::Indexer(const AttentionConfig& config, uint64_t seed, Style style)
    : heads_(config.index_heads),
      width_(config.index_width),
      style_(style),
      rope_(RopeLayout::kHalfSplit, style == Style::kSound ? config.index_rope_width : 0,
            config.rope_base) {
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  q_ = register_parameter("q", linear_weight(heads_ * width_, config.d_model, generator));
  k_ = register_parameter("k", linear_weight(width_, config.d_model, generator));
  weight_ = register_parameter("weight", linear_weight(heads_, config.d_model, generator));
  if (style_ == Style::kAsPublished) return;
  norm_scale_ = register_parameter("norm_scale", at::ones({width_}));
  norm_bias_ = register_parameter("norm_bias", at::zeros({width_}));
}

IndexerInputs Indexer::forward(const at::Tensor& hidden, const at::Tensor& positions) {
  const nvtx::Range range("indexer_projections", nvtx::Category::kIndexer, hidden.size(1));
  const at::Tensor input = hidden.detach();
  const int64_t batch = input.size(0), length = input.size(1);
  at::Tensor q = at::linear(input, q_).view({batch, length, heads_, width_});
  at::Tensor k = at::linear(input, k_);
  if (style_ == Style::kSound) {
    k = at::layer_norm(k, {width_}, norm_scale_, norm_bias_, kNormEpsilon);
    q = rope_(q, positions);
    k = rope_(k.unsqueeze(2), positions).squeeze(2);
  }
  const double scale = 1.0 / std::sqrt(static_cast<double>(heads_ * width_));
  return {q, k, at::linear(input, weight_) * scale};
}

}  // namespace dsa
