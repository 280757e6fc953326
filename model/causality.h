// The causality audit's core: does a position's prediction, or the gradient of its loss, depend on
// tokens that come after it?
#pragma once
#include "model/transformer.h"

namespace dsa {

/// Eval mode while it lives.
class EvalMode {
 public:
  explicit EvalMode(torch::nn::Module& module) : module_(module), was_(module.is_training()) {
    module_.eval();
  }
  ~EvalMode() { module_.train(was_); }
  EvalMode(const EvalMode&) = delete;
  EvalMode& operator=(const EvalMode&) = delete;

 private:
  torch::nn::Module& module_;
  bool was_;
};

/// What counts as a change of a logit: a part of the largest one. Experts see other group sizes when
/// tokens change, so rounding differs in float32; a real leak is far larger.
inline constexpr double kRoundingOfLogits = 5e-6;

/// Do the logits at position t change when tokens after t change? For each position t in [0, T-1)
/// replaces all later tokens (`only_next`: the next one alone) and counts the positions whose own
/// logits change by more than `tolerance` times the largest logit. Eval mode. A sound model gives 0,
/// and with compute_all_experts and float64 also for a tolerance of exactly 0.
/// @param tokens  int64 [T] or [1, T]
int64_t positions_that_see_the_future(Transformer& model, const at::Tensor& tokens, bool only_next,
                                      double tolerance = kRoundingOfLogits);

/// Positions t in [0, T-1) whose own language-model loss (target: the next token) has a gradient that
/// is not exactly 0 with respect to the input vector of a later token. Eval mode.
/// @param tokens  int64 [T] or [1, T]
int64_t positions_with_gradients_to_the_future(Transformer& model, const at::Tensor& tokens);

}  // namespace dsa
