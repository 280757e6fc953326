#include "harness/stages.h"

#include "harness/optimizer.h"

#include <cmath>

namespace dsa {
namespace {

double chosen(double own, double otherwise) {
  return own > 0 ? own : otherwise;
}

void check_recipe(const TrainConfig& c) {
  const std::string& recipe = c.recipe;
  require(recipe == "as-given" || recipe == "scratch" || recipe == "warmup-sparse" ||
              recipe == "continue",
          "train.recipe is '", recipe, "'; it may be as-given, scratch, warmup-sparse or continue");
  const bool dense = c.dense_steps > 0, warm = c.indexer_steps > 0, given = !c.start_from.empty();
  if (recipe == "scratch") {
    require(!dense && !warm && !given, "train.recipe is scratch, sparse from random weights, but ",
            given ? "train.start-from names a checkpoint"
                  : (dense ? "train.dense-steps is " : "train.indexer-steps is "),
            given ? std::string() : std::to_string(dense ? c.dense_steps : c.indexer_steps),
            "; leave that out");
  }
  if (recipe == "warmup-sparse") {
    require(!dense && !given,
            "train.recipe is warmup-sparse, which starts from random weights with stage 1, but ",
            given ? "train.start-from names a checkpoint" : "train.dense-steps is not 0",
            "; leave that out or take the recipe continue");
  }
  if (recipe == "continue") {
    require(dense != given, "train.recipe is continue, from a dense model: give ",
            dense ? "only one of train.dense-steps and train.start-from"
                  : "train.dense-steps, or a checkpoint of one as train.start-from");
  }
  if (recipe == "warmup-sparse" || recipe == "continue") {
    require(warm, "train.recipe is ", recipe,
            ", but train.indexer-steps is 0; stage 1 needs steps");
    require(c.dense_steps + c.indexer_steps < c.steps, "train.recipe is ", recipe,
            ", but train.dense-steps and train.indexer-steps leave no sparse step of train.steps, "
            "which is ",
            c.steps);
  }
}

}  // namespace

void require_not_negative(const char* field, double value) {
  require(std::isfinite(value) && value >= 0, field, " is ", value, "; it must be 0 or more");
}

void check_stages(const TrainConfig& c) {
  require_not_negative("train.dense-steps", static_cast<double>(c.dense_steps));
  require_not_negative("train.indexer-steps", static_cast<double>(c.indexer_steps));
  require(c.dense_steps + c.indexer_steps <= c.steps, "train.dense-steps is ", c.dense_steps,
          " and train.indexer-steps ", c.indexer_steps,
          "; together they must not exceed train.steps, which is ", c.steps);
  require_not_negative("train.stage1-learning-rate", c.stage1_learning_rate);
  require_not_negative("train.stage2-learning-rate", c.stage2_learning_rate);
  require_not_negative("train.stage2-indexer-learning-rate", c.stage2_indexer_learning_rate);
  require_not_negative("train.stage1-loss-factor", c.stage1_loss_factor);
  require_not_negative("train.stage2-loss-factor", c.stage2_loss_factor);
  const bool of_stage1 = c.stage1_learning_rate > 0 || c.stage1_loss_factor != 1;
  require(!of_stage1 || c.indexer_steps > 0,
          "train.stage1-learning-rate or train.stage1-loss-factor is set, but train.indexer-steps "
          "is 0: there is no stage 1");
  const bool of_stage2 =
      c.stage2_learning_rate > 0 || c.stage2_indexer_learning_rate > 0 || c.stage2_loss_factor != 1;
  require(!of_stage2 || c.dense_steps + c.indexer_steps < c.steps,
          "train.stage2-learning-rate, -indexer-learning-rate or -loss-factor is set, but "
          "train.dense-steps and train.indexer-steps leave no step of train.steps for stage 2");
  check_recipe(c);
}

TrainingStage stage_of(const TrainConfig& config, int64_t steps_done) {
  if (steps_done < config.dense_steps) return TrainingStage::kDense;
  if (steps_done < config.dense_steps + config.indexer_steps) return TrainingStage::kIndexer;
  return TrainingStage::kSparse;
}

LearningRates learning_rates(const TrainConfig& c, int64_t step, bool staged) {
  const double factor = schedule_factor(c, step);
  const TrainingStage stage = staged ? stage_of(c, step) : TrainingStage::kDense;
  double model = c.learning_rate, indexer = c.indexer_learning_rate;
  if (stage == TrainingStage::kIndexer) indexer = chosen(c.stage1_learning_rate, indexer);
  if (stage == TrainingStage::kSparse) {
    model = chosen(c.stage2_learning_rate, model);
    indexer = chosen(c.stage2_indexer_learning_rate, indexer);
  }
  return {factor * model, factor * indexer};
}

double indexer_loss_factor(const TrainConfig& config, int64_t step) {
  return stage_of(config, step) == TrainingStage::kIndexer ? config.stage1_loss_factor
                                                           : config.stage2_loss_factor;
}

}  // namespace dsa
