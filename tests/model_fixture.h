// Small models and token sequences the model tests share.
#pragma once
#include "model/transformer.h"

#include <ATen/Functions.h>

#include <string>

namespace dsa::testing {

inline AttentionConfig small_attention() {
  AttentionConfig config;
  config.d_model = 32;
  config.n_heads = config.n_kv_heads = 2;
  config.head_width = 16;
  config.query_latent_width = 24;
  config.kv_latent_width = 20;
  config.nope_width = 12;
  config.rope_width = 8;
  config.top_k = 6;
  config.index_heads = 2;
  config.index_width = 16;
  config.index_rope_width = 8;
  return config;
}

inline ModelConfig small_model() {
  ModelConfig config;
  config.n_layers = 2;
  config.vocab_size = 50;
  config.n_experts = 4;
  config.n_active = 2;
  config.expert_width = 48;
  config.embedding_std = 0.5;  // large enough for the first losses to have gradients worth testing
  return config;
}

/// The seed's own configuration (algorithm.md section 6), K = L / 2.
inline AttentionConfig seed_attention() {
  AttentionConfig config;
  config.d_model = 256;
  config.n_heads = config.n_kv_heads = 8;
  config.head_width = 32;
  config.rope_layout = "interleaved";
  config.top_k_fraction = 0.5;
  config.index_heads = 4;
  config.index_width = 64;
  config.index_rope_width = 32;
  return config;
}

inline ModelConfig seed_model() {
  ModelConfig config;
  config.n_layers = 4;
  config.vocab_size = 49152;
  config.expert_width = 512;
  config.router_noise = 0.1;
  config.dropout = 0.1;
  config.embedding_std = 1.0;
  return config;
}

inline void seed_torch(uint64_t seed) {
  at::Generator generator = at::globalContext().defaultGenerator(at::Device(at::kCPU));
  generator.set_current_seed(seed);
}

inline std::shared_ptr<Transformer> make_model(const std::string& variant,
                                               const AttentionConfig& attention = small_attention(),
                                               const ModelConfig& model = small_model(),
                                               uint64_t seed = 7) {
  seed_torch(seed);
  return std::make_shared<Transformer>(variant, attention, model);
}

inline at::Tensor random_tokens(int64_t batch, int64_t length, int64_t vocab, uint64_t seed = 3) {
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::randint(vocab, {batch, length}, generator, at::TensorOptions(at::kLong));
}

/// Tokens shifted left by one, the last one not scored.
inline at::Tensor targets_of(const at::Tensor& tokens) {
  return at::cat(
      {tokens.narrow(1, 1, tokens.size(1) - 1), at::full_like(tokens.narrow(1, 0, 1), -100)}, 1);
}

/// int64 first .. first + length - 1.
inline at::Tensor position_ids(int64_t length, int64_t first = 0) {
  return at::arange(first, first + length, at::TensorOptions(at::kLong));
}

/// The name of a parameter of an indexer.
inline bool is_indexer(const std::string& parameter) {
  return parameter.find("indexer.") != std::string::npos;
}

inline double largest(const at::Tensor& x) {
  return x.abs().max().item<double>();
}

/// Largest difference, relative to the largest value of the expected one.
inline double relative_error(const at::Tensor& actual, const at::Tensor& expected) {
  return largest(actual.to(at::kDouble) - expected.to(at::kDouble)) /
         std::max(1e-300, largest(expected));
}

}  // namespace dsa::testing
