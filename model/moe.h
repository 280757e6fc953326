// Mixture of experts: each token visits its n_active best experts. Dropless, and no sum depends on
// the order in which threads finish.
#pragma once
#include "model/experts.h"
#include "model/transformer.h"

namespace dsa {

struct MlpOutput {
  at::Tensor hidden;       ///< [B, T, d_model]
  at::Tensor router_loss;  ///< scalar, 1 when both routing and probabilities are uniform; undefined
                           ///< for the dense MLP
};

/// Linear, SiLU, linear, without biases: the seed's expert.
class Mlp : public torch::nn::Module {
 public:
  Mlp(int64_t d_model, int64_t width, double dropout);
  at::Tensor forward(const at::Tensor& hidden);  ///< [..., d_model] in and out
  ExpertWeights weights() const { return {in_, out_}; }

 private:
  double dropout_;
  at::Tensor in_, out_;
};

class Moe : public torch::nn::Module {
 public:
  Moe(int64_t d_model, const ModelConfig& config);
  MlpOutput forward(const at::Tensor& hidden);  ///< [B, T, d_model]
  /// Every expert on every token, the unwanted ones times 0: how a token is computed then depends on
  /// no other token's routing, to the last bit. For audits; n_experts / n_active times the work.
  bool all_experts = false;

 private:
  at::Tensor mixed_from_all(const at::Tensor& tokens, const at::Tensor& chosen,
                            const at::Tensor& shares);
  at::Tensor mixed_from_sorted(const at::Tensor& tokens, const at::Tensor& chosen,
                               const at::Tensor& shares);

  int64_t n_active_;
  double router_noise_, dropout_;
  at::Tensor router_;  ///< [n_experts, d_model]
  std::vector<std::shared_ptr<Mlp>> experts_;
};

/// Switch Transformer's balance loss: n_experts * sum_e share_e * probability_e, where share_e is the
/// part of all (token, slot) pairs that expert e serves and probability_e its mean softmax.
/// Differentiable in the logits through the probabilities.
/// @param logits  [N, E]
/// @param chosen  int64 [N, A]
at::Tensor load_balance_loss(const at::Tensor& logits, const at::Tensor& chosen);

}  // namespace dsa
