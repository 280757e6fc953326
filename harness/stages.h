// The stages of a training run: which recipe names them, and what each changes.
#pragma once
#include "harness/trainer.h"

namespace dsa {

/// @throws Error unless the value is a number, finite and at least 0.
void require_not_negative(const char* field, double value);

/// @throws Error for stages that contradict each other, the recipe or the number of steps.
void check_stages(const TrainConfig& config);

/// Peaks of model and indexer, times the curve that spans all stages.
struct LearningRates {
  double model, indexer;
};
/// @param step    0 = the first
/// @param staged  has the variant stages? One without trains at the same rates throughout.
LearningRates learning_rates(const TrainConfig& config, int64_t step, bool staged);

/// What multiplies attention.indexer-loss-weight at `step`.
double indexer_loss_factor(const TrainConfig& config, int64_t step);

}  // namespace dsa
