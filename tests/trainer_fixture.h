// Small settings and a small periodic text, shared by the tests of training.
#pragma once
#include "harness/training_run.h"

#include <ATen/ops/empty.h>

#include <string>

namespace dsa::testing {

inline AttentionConfig tiny_attention() {
  AttentionConfig config;
  config.d_model = 32;
  config.n_heads = config.n_kv_heads = 2;
  config.head_width = 16;
  config.query_latent_width = 24;
  config.kv_latent_width = 20;
  config.nope_width = 12;
  config.rope_width = 8;
  config.top_k = 4;
  config.index_heads = 2;
  config.index_width = 16;
  config.index_rope_width = 8;
  return config;
}

inline ModelConfig tiny_model() {
  ModelConfig config;
  config.n_layers = 2;
  config.vocab_size = 40;
  config.n_experts = 2;
  config.n_active = 1;
  config.expert_width = 32;
  config.dropout = 0.1;  // so that the random stream is part of every comparison of bits
  config.router_noise = 0.1;
  return config;
}

inline TrainConfig tiny_train() {
  TrainConfig config;
  config.steps = 10;
  config.batch = 3;
  config.warmup_steps = 2;
  config.evaluate_every = 0;
  return config;
}

/// Ids that repeat with a period of 37, in 40: easy to learn, and every id occurs.
inline Corpus tiny_corpus(int64_t train = 2000, int64_t validation = 201) {
  Corpus corpus;
  corpus.all = at::empty({train + validation}, at::kLong);
  auto* ids = corpus.all.data_ptr<int64_t>();
  for (int64_t i = 0; i < train + validation; ++i) ids[i] = i % 37 * 5 % 40;
  corpus.train = corpus.all.narrow(0, 0, train);
  corpus.validation = corpus.all.narrow(0, train, validation);
  corpus.vocab_size = 40;
  corpus.bytes_per_token = 2;
  corpus.source = "tiny";
  corpus.split = "contiguous";
  corpus.validation_fraction = 0.1;
  return corpus;
}

inline std::unique_ptr<Trainer> tiny_trainer(const std::string& variant, const Batches& batches,
                                             uint64_t seed = 1) {
  return std::make_unique<Trainer>(variant, tiny_attention(), tiny_model(), tiny_train(), batches,
                                   seed);
}

}  // namespace dsa::testing
