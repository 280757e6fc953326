// One training run = one variant at one length with one seed: train, evaluate all of validation,
// checkpoint, measure. Knows nothing of files of a run or of Google Benchmark; numbers leave through
// the callbacks as they happen and in the result at the end.
#pragma once
#include "harness/task.h"
#include "harness/trainer.h"

#include <functional>
#include <map>

namespace dsa {

struct TrainingJob {
  std::string variant;
  int64_t length = 0;
  uint64_t seed = 1;
  AttentionConfig attention;
  ModelConfig model;
  TrainConfig train;
  TaskConfig task;
  double slowdown = 1;               ///< harness/slowdown.h
  int turns = -1;                    ///< harness/turns.h, one a step
  std::filesystem::path checkpoint;  ///< empty: none written; existing: continued from
};

struct TrainingHooks {
  std::function<void(const StepResult&)> on_step;
  std::function<void(const Evaluation&)> on_evaluation;
  std::function<void(Transformer&)> on_finish;  ///< after the last step and evaluation
  std::function<bool()> stop_requested;  ///< Ctrl-C: finish the step, write the checkpoint, return
};

struct TrainingResult {
  bool finished = false;  ///< false: stop was requested
  /// Of the evaluations of this call (a continued run has no earlier ones), see count_best; NaN without any.
  double best_validation_loss = 0, best_accuracy = 0;
  double final_validation_loss = 0, final_accuracy = 0;
  std::vector<double> step_seconds;  ///< after warm-up (at least 10 steps where there are 20)
  double median_step_seconds = 0;
  double tokens_per_second = 0;  ///< batch * length / median step
  double peak_bytes = 0;         ///< resident, above the state before the run; 0 = unknown
  int64_t parameters = 0, active_parameters = 0;
  double flops_per_token = 0;
  int64_t top_k = 0;                            ///< resolved
  double validation_overlap = 0;                ///< see harness/data.h; 0 = sound
  std::map<std::string, double> stage_seconds;  ///< one traced step: "indexer", "attention", ...
  /// By layer: what the indexers would select as they were drawn, on the trained model. Empty without.
  std::vector<SelectionQuality> untrained_selection;
  int64_t indexer_parameters = 0;
  std::vector<StepResult> steps;
  std::vector<Evaluation> evaluations;
};

/// Improves the best loss and accuracy by evaluations after steps of the last stage. In earlier ones a
/// variant with stages reads every key, which would hide what selecting costs; the others take
/// their best of the same steps, so that all choose among as many.
void count_best(TrainingResult& result, const TrainConfig& config,
                const std::vector<Evaluation>& evaluations);

/// @throws Error for what the job would refuse at its first step. Trains nothing.
void check(const TrainingJob& job, const Corpus& corpus);

TrainingResult run_training(const TrainingJob& job, const Corpus& corpus,
                            const TrainingHooks& hooks);

}  // namespace dsa
