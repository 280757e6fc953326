// Learning-rate schedule, gradient clipping and Adam(W). The indexer is a group of its own from end
// to end: nothing its loss does can change an update of the model.
#pragma once
#include "harness/trainer.h"

#include <string>
#include <vector>

namespace dsa {

/// Factor of the peak learning rate at `step` (0 = the first): linear warm-up to 1, then as
/// `schedule` says; cosine reaches min_learning_rate_fraction at the last step.
double schedule_factor(const TrainConfig& config, int64_t step);

class Optimizer {
 public:
  Optimizer(Transformer& model, const TrainConfig& config);

  struct Norms {
    double model = 0, indexer = 0;
  };
  void forget_gradients();
  Norms gradient_norms() const;
  /// Scales each group to at most grad_clip. One norm over both would let a large KL gradient shrink
  /// the model's update: dense and DSA would then differ by more than their attention.
  void clip(const Norms& norms) const;
  /// One update of every parameter that has a gradient.
  void update(double model_learning_rate, double indexer_learning_rate);

  /// Moments and update counts by name, for checkpoints: writing to these tensors restores them.
  std::vector<std::pair<std::string, at::Tensor>> state() const;

 private:
  struct Parameter {
    std::string name;
    at::Tensor value, mean, square, updates;
    bool in_indexer = false;
  };
  std::vector<at::Tensor> gradients(bool in_indexer) const;
  void update_group(bool in_indexer, bool matrices, double learning_rate);

  TrainConfig config_;
  std::vector<Parameter> parameters_;
};

}  // namespace dsa
