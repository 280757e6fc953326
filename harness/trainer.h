// The training loop and nothing else: batches come in through Batches, numbers go out of step().
#pragma once
#include "attention/selection_quality.h"
#include "harness/data.h"
#include "model/transformer.h"

#include <filesystem>
#include <memory>

namespace dsa {

struct TrainConfig {
  int64_t steps = 200;
  int64_t dense_steps = 0;
  int64_t indexer_steps = 0;
  std::string recipe = "as-given";
  std::string start_from;
  double stage1_learning_rate = 0;
  double stage1_loss_factor = 1;
  double stage2_learning_rate = 0;
  double stage2_indexer_learning_rate = 0;
  double stage2_loss_factor = 1;
  int64_t batch = 8;
  std::string precision = "f32";
  int64_t warmup_steps = 20;
  std::string optimizer = "adamw";
  std::string schedule = "cosine";
  double learning_rate = 1e-3;
  double indexer_learning_rate = 1e-3;
  double min_learning_rate_fraction = 0.1;
  double weight_decay = 0.1;
  double grad_clip = 1.0;
  int64_t evaluate_every = 100;
  int64_t quality_windows = 4;
  int64_t checkpoint_every = 0;
  double equivalence_margin = 0.02;
  bool flush_denormals = true;
};

template <class C, class V>
  requires is_a<C, TrainConfig>
void visit_fields(C& c, V&& v) {
  auto& [steps, dense_steps, indexer_steps, recipe, start_from, stage1_learning_rate,
         stage1_loss_factor, stage2_learning_rate, stage2_indexer_learning_rate, stage2_loss_factor,
         batch, precision, warmup_steps, optimizer, schedule, learning_rate, indexer_learning_rate,
         min_learning_rate_fraction, weight_decay, grad_clip, evaluate_every, quality_windows,
         checkpoint_every, equivalence_margin, flush_denormals] = c;
  v("steps", steps, "optimiser steps of a run");
  v("dense-steps", dense_steps, "first steps of dsa: dense attention, the indexer idle");
  v("indexer-steps", indexer_steps,
    "next steps of dsa: dense attention, only the indexer trains, over all visible keys");
  v("recipe", recipe,
    "as-given, or one that the stages are checked against: scratch (sparse at once), warmup-sparse "
    "(indexer steps, then sparse), continue (dense steps or start-from, then as warmup-sparse)");
  v("start-from", start_from,
    "checkpoint of the dense baseline's run, whose weights every variant starts from; empty = random");
  v("stage1-learning-rate", stage1_learning_rate,
    "peak of the indexer in indexer steps; 0 = indexer-learning-rate");
  v("stage1-loss-factor", stage1_loss_factor,
    "times attention.indexer-loss-weight in indexer steps");
  v("stage2-learning-rate", stage2_learning_rate,
    "peak of the model in sparse steps; 0 = learning-rate");
  v("stage2-indexer-learning-rate", stage2_indexer_learning_rate,
    "peak of the indexer in sparse steps; 0 = indexer-learning-rate");
  v("stage2-loss-factor", stage2_loss_factor,
    "times attention.indexer-loss-weight in sparse steps");
  v("batch", batch, "sequences per step");
  v("precision", precision,
    "f32, or bf16: products of a step in bfloat16; weights, sums and evaluation stay float32");
  v("warmup-steps", warmup_steps, "steps of linear learning-rate warm-up");
  v("optimizer", optimizer, "adamw, or adam (the seed's)");
  v("schedule", schedule, "cosine, or constant");
  v("learning-rate", learning_rate, "peak learning rate of the model");
  v("indexer-learning-rate", indexer_learning_rate, "peak learning rate of the lightning indexer");
  v("min-learning-rate-fraction", min_learning_rate_fraction,
    "where cosine ends, as a fraction of the peak");
  v("weight-decay", weight_decay, "AdamW weight decay of matrices");
  v("grad-clip", grad_clip, "global L2 norm of the gradient; 0 = off");
  v("evaluate-every", evaluate_every,
    "steps between evaluations over all of validation; 0 = only at the end");
  v("quality-windows", quality_windows,
    "validation windows whose selections each evaluation judges against the oracle's; 0 = off");
  v("checkpoint-every", checkpoint_every, "steps between checkpoints; 0 = only at the end");
  v("equivalence-margin", equivalence_margin,
    "nats/token; the report calls losses equivalent that differ by less. Fixed with the run: the "
    "report has no such option");
  v("flush-denormals", flush_denormals,
    "treat denormal floats as zero (they slow a CPU step up to 20 times)");
}

/// @throws Error naming the field, its value and what it may be.
void check(const TrainConfig& config);

/// Stage of the step after `steps_done` ones.
TrainingStage stage_of(const TrainConfig& config, int64_t steps_done);

struct StepResult {
  int64_t step = 0;         ///< 1 after the first update
  double loss = 0;          ///< nats per scored token
  double indexer_loss = 0;  ///< nats per query; NaN without an indexer that trains in this step
  double router_loss = 0;   ///< NaN without experts
  double grad_norm = 0;     ///< of the model, before clipping; 0 where it is frozen
  double learning_rate = 0;
  double seconds = 0;  ///< wall clock of the whole step, batch included
};

struct Evaluation {
  int64_t step = 0;
  double loss = 0;                       ///< nats per token over all of validation
  double accuracy = 0;                   ///< share of tokens whose arg max is right
  double bits_per_byte = 0;              ///< 0 = unknown
  int64_t tokens = 0;                    ///< scored
  std::vector<double> loss_by_position;  ///< mean loss of 8 equal buckets; NaN = nothing scored
  std::vector<double> exact_by_group;    ///< share of a task's examples with every answer right
  /// By layer; empty for variants that select nothing, and where no query sees more than K keys.
  std::vector<SelectionQuality> selection;
};

class Trainer {
 public:
  Trainer(const std::string& variant, const AttentionConfig& attention, const ModelConfig& model,
          const TrainConfig& train, const Batches& batches, uint64_t seed);
  ~Trainer();
  /// One optimiser step. @throws Error before the update if loss or gradient norm is not finite.
  StepResult step();
  int64_t steps_done() const;
  Transformer& model();
  /// safetensors: weights, optimizer state, RNG, step; written to a temporary file and renamed.
  void save(const std::filesystem::path& file);
  /// Continues bit-exactly from save(). @throws Error naming the first difference in shape or name.
  void load(const std::filesystem::path& file);
  /// Takes the weights of a checkpoint of the baseline, all but an indexer's, and nothing else: no
  /// moments, no random state, step 0. @throws Error naming the first difference in shape or name.
  void start_from(const std::filesystem::path& file);

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

/// By layer: the selections of that many whole windows, judged. Empty where there is nothing to judge.
std::vector<SelectionQuality> judged_selections(Transformer& model, const std::vector<Batch>& tiles,
                                                int64_t windows);

/// @param quality_windows  whole windows, evenly spread, whose selections are judged; 0 = none
Evaluation evaluate(Transformer& model, const std::vector<Batch>& tiles, double bytes_per_token,
                    int64_t quality_windows = 0);

}  // namespace dsa
