#include "harness/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <numbers>
#include <unordered_set>

namespace dsa {

double schedule_factor(const TrainConfig& config, int64_t step) {
  if (step < config.warmup_steps) {
    return static_cast<double>(step + 1) / static_cast<double>(config.warmup_steps);
  }
  if (config.schedule == "constant") return 1;
  const int64_t last = config.steps - 1 - config.warmup_steps;
  const double done = last <= 0 ? 1
                                : std::min(1.0, static_cast<double>(step - config.warmup_steps) /
                                                    static_cast<double>(last));
  const double low = config.min_learning_rate_fraction;
  return low + (1 - low) * 0.5 * (1 + std::cos(std::numbers::pi * done));
}

Optimizer::Optimizer(Transformer& model, const TrainConfig& config) : config_(config) {
  std::unordered_set<const void*> indexer;
  for (const auto& value : model.indexer_parameters()) indexer.insert(value.unsafeGetTensorImpl());
  for (const auto& item : model.named_parameters()) {
    const at::Tensor& value = item.value();
    parameters_.push_back({item.key(), value, at::zeros_like(value.detach()),
                           at::zeros_like(value.detach()), at::zeros({}, at::kFloat),
                           indexer.contains(value.unsafeGetTensorImpl())});
  }
}

void Optimizer::forget_gradients() {
  for (auto& parameter : parameters_) parameter.value.mutable_grad() = at::Tensor();
}

std::vector<at::Tensor> Optimizer::gradients(bool in_indexer) const {
  std::vector<at::Tensor> found;
  for (const auto& parameter : parameters_) {
    if (parameter.in_indexer == in_indexer && parameter.value.grad().defined()) {
      found.push_back(parameter.value.grad());
    }
  }
  return found;
}

Optimizer::Norms Optimizer::gradient_norms() const {
  const auto norm = [](const std::vector<at::Tensor>& gradients) {
    if (gradients.empty()) return 0.0;
    double sum = 0;
    for (const auto& one : at::_foreach_norm(gradients)) {
      const auto value = one.item<double>();
      sum += value * value;
    }
    return std::sqrt(sum);
  };
  return {norm(gradients(false)), norm(gradients(true))};
}

void Optimizer::clip(const Norms& norms) const {
  const auto scale = [&](bool in_indexer, double norm) {
    if (config_.grad_clip == 0 || norm <= config_.grad_clip) return;
    at::_foreach_mul_(gradients(in_indexer), config_.grad_clip / norm);
  };
  scale(false, norms.model);
  scale(true, norms.indexer);
}

// Only matrices decay, the tied embedding among them since it is the head's matrix; scales and
// biases have nothing to gain from being small. Parameters without a gradient are left alone.
void Optimizer::update_group(bool in_indexer, bool matrices, double learning_rate) {
  std::vector<at::Tensor> values, gradients, means, squares, updates;
  for (const auto& parameter : parameters_) {
    const bool mine =
        parameter.in_indexer == in_indexer && (parameter.value.dim() >= 2) == matrices;
    if (!mine || !parameter.value.grad().defined()) continue;
    values.push_back(parameter.value);
    gradients.push_back(parameter.value.grad());
    means.push_back(parameter.mean);
    squares.push_back(parameter.square);
    parameter.updates.add_(1);
    updates.push_back(parameter.updates);
  }
  if (values.empty()) return;
  constexpr double kEpsilon = 1e-8, kBeta1 = 0.9;
  if (config_.optimizer == "adam") {
    at::_fused_adam_(values, gradients, means, squares, {}, updates, learning_rate, kBeta1, 0.999,
                     0, kEpsilon, false, false);
  } else {
    const double decay = matrices ? config_.weight_decay : 0;
    at::_fused_adamw_(values, gradients, means, squares, {}, updates, learning_rate, kBeta1, 0.95,
                      decay, kEpsilon, false, false);
  }
}

void Optimizer::update(double model_learning_rate, double indexer_learning_rate) {
  const at::NoGradGuard no_grad;
  for (const bool matrices : {false, true}) {
    update_group(false, matrices, model_learning_rate);
    update_group(true, matrices, indexer_learning_rate);
  }
}

std::vector<std::pair<std::string, at::Tensor>> Optimizer::state() const {
  std::vector<std::pair<std::string, at::Tensor>> all;
  for (const auto& parameter : parameters_) {
    all.emplace_back("optimizer.mean." + parameter.name, parameter.mean);
    all.emplace_back("optimizer.square." + parameter.name, parameter.square);
    all.emplace_back("optimizer.updates." + parameter.name, parameter.updates);
  }
  return all;
}

}  // namespace dsa
