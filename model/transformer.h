// A decoder-only transformer whose only experimental variable is its attention variant:
// RMSNorm, RoPE, attention, MoE (or dense) MLP, embedding tied to the head.
#pragma once
#include "attention/variant.h"

#include <c10/util/intrusive_ptr.h>

namespace dsa {

struct TiedGradient;  // model/head.h

struct ModelConfig {
  int64_t n_layers = 2;
  int64_t vocab_size = 0;  ///< 0: the data's; larger than the data's is fine
  int64_t n_experts = 4;   ///< 0: one dense MLP
  int64_t n_active = 2;
  int64_t expert_width = 256;
  double router_noise = 0.0;
  double load_balance_weight = 0.01;
  double dropout = 0.0;  ///< of residual branches and expert hidden layers
  double embedding_std = 0.02;
  int64_t head_chunk = 0;  ///< tokens per chunk of the linear cross-entropy; 0 = chosen by size
};

template <class C, class V>
  requires is_a<C, ModelConfig>
void visit_fields(C& c, V&& v) {
  auto& [n_layers, vocab_size, n_experts, n_active, expert_width, router_noise, load_balance_weight,
         dropout, embedding_std, head_chunk] = c;
  v("n-layers", n_layers, "transformer layers");
  v("vocab-size", vocab_size, "ids of embedding and head; 0 = as many as the data has");
  v("n-experts", n_experts, "experts of the MoE; 0 = one dense MLP");
  v("n-active", n_active, "experts each token visits");
  v("expert-width", expert_width, "hidden width of an expert (linear, SiLU, linear)");
  v("router-noise", router_noise, "standard deviation of the noise on router logits in training");
  v("load-balance-weight", load_balance_weight, "factor of the router's load-balance loss");
  v("dropout", dropout, "dropout probability of residual branches and expert hidden layers");
  v("embedding-std", embedding_std,
    "standard deviation of the tied embedding at the start (the seed: 1)");
  v("head-chunk", head_chunk, "tokens per chunk of the linear cross-entropy; 0 = chosen by size");
}

/// @throws Error naming the field, its value and what it may be.
void check(const ModelConfig& config);

struct ModelOutput {
  at::Tensor loss;          ///< scalar, nats per scored token (targets != -100)
  at::Tensor token_losses;  ///< float32 [B, T], nats, no gradient; 0 where not scored
  at::Tensor correct;       ///< bool [B, T], arg max equals target, no gradient
  at::Tensor indexer_loss;  ///< scalar, mean over layers; undefined without an indexer that trains,
                            ///< and while gradients are off
  at::Tensor
      router_loss;  ///< scalar load-balance loss, mean over layers; undefined without experts
};

class Transformer : public torch::nn::Module {
 public:
  Transformer(const std::string& variant, const AttentionConfig& attention,
              const ModelConfig& model);
  /// @param tokens   int64 [B, T], each in [0, vocab_size)
  /// @param targets  int64 [B, T], tokens shifted left by one; -100 = not scored
  ModelOutput forward(const at::Tensor& tokens, const at::Tensor& targets);
  /// What a step minimises: loss + indexer_loss_weight * indexer_factor * indexer_loss +
  /// load_balance_weight * router_loss, of those that are defined.
  at::Tensor training_loss(const ModelOutput& output, double indexer_factor = 1) const;
  at::Tensor logits(const at::Tensor& tokens);  ///< [B, T, vocab_size], for audits and small tests
  /// The two halves of logits(): tokens as vectors [B, T, d_model], and from them what the head reads,
  /// [..., d_model]; logits are its products with the rows of embedding().
  at::Tensor embed(const at::Tensor& tokens) const;
  at::Tensor hidden_of(const at::Tensor& embedded);
  const at::Tensor& embedding() const;  ///< [vocab_size, d_model]
  void compute_all_experts(bool on);    ///< see Moe::all_experts
  std::vector<std::shared_ptr<AttentionLayer>> attention_layers();
  /// Of every layer that has stages; kIndexer freezes all parameters but the indexers'. False, and
  /// nothing done, if no layer has any.
  bool set_stage(TrainingStage stage);
  /// Type of the branches' and the head's products while is_training(): float32, or bfloat16 with
  /// weights, residual stream, router, norms' statistics, softmax and losses in float32. Evaluation is
  /// float32 always.
  void train_in(at::ScalarType type);
  std::vector<at::Tensor> indexer_parameters();  ///< trained by the KL loss alone
  int64_t vocab_size() const;
  int64_t parameter_count();
  int64_t active_parameter_count();  ///< experts a token does not visit are left out
  /// Training FLOPs of one token at sequence length `length` (forward + backward), for MFU.
  double flops_per_token(int64_t length) const;

 private:
  struct Parts;
  struct Trunk {
    at::Tensor hidden, indexer_loss, router_loss;  ///< hidden: what the head reads
  };
  at::Tensor embed(const at::Tensor& tokens, const c10::intrusive_ptr<TiedGradient>& tied) const;
  Trunk trunk(at::Tensor hidden);
  std::shared_ptr<Parts> parts_;
};

}  // namespace dsa
