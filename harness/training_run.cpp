#include "harness/training_run.h"

#include "harness/corpus_facts.h"
#include "harness/denormals.h"
#include "harness/memory.h"
#include "harness/slowdown.h"
#include "harness/stage_trace.h"
#include "harness/turns.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace dsa {
namespace {

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

/// Seconds of the last stage's steps without warm-up: the first 10, but never more than half.
std::vector<double> without_warmup(const TrainConfig& config,
                                   const std::vector<StepResult>& steps) {
  std::vector<double> seconds;
  if (steps.empty()) return seconds;
  const TrainingStage last = stage_of(config, steps.back().step - 1);
  for (const StepResult& step : steps) {
    if (stage_of(config, step.step - 1) == last) seconds.push_back(step.seconds);
  }
  const size_t skipped = std::min<size_t>(10, seconds.size() / 2);
  seconds.erase(seconds.begin(), seconds.begin() + static_cast<std::ptrdiff_t>(skipped));
  return seconds;
}

/// The run of one job, from its first batch to its last evaluation.
class Run {
 public:
  Run(const TrainingJob& job, const Corpus& corpus, const TrainingHooks& hooks)
      : job_(job),
        corpus_(corpus),
        hooks_(hooks),
        batches_(training_batches(job.task, corpus, job.length, job.train.batch, job.seed)),
        tiles_(test_tiles(job.task, corpus, job.length, job.train.batch)) {
    if (job_.model.vocab_size == 0) job_.model.vocab_size = corpus.vocab_size;
  }

  TrainingResult whole() {
    // A pass of its own, before the run: peak_bytes makes allocation slow and would spoil timings.
    result_.peak_bytes = peak_bytes([&] {
                           TrainConfig train = job_.train;
                           train.dense_steps = std::min<int64_t>(train.dense_steps, 1);
                           train.indexer_steps = std::min<int64_t>(train.indexer_steps, 1);
                           const auto trainer = new_trainer(train);
                           const int64_t steps = 2 + train.dense_steps + train.indexer_steps;
                           for (int64_t i = 0; i < steps; ++i) trainer->step();
                         }).value_or(0);
    trainer_ = new_trainer(job_.train);
    if (!job_.checkpoint.empty() && std::filesystem::exists(job_.checkpoint)) {
      trainer_->load(job_.checkpoint);
    } else if (!job_.train.start_from.empty()) {
      trainer_->start_from(job_.train.start_from);
    }
    describe();
    train();
    summarise();
    if (result_.finished) trace_stages();
    return std::move(result_);
  }

 private:
  std::unique_ptr<Trainer> new_trainer(const TrainConfig& train) const {
    return std::make_unique<Trainer>(job_.variant, job_.attention, job_.model, train, *batches_,
                                     job_.seed);
  }

  void describe() {
    Transformer& model = trainer_->model();
    result_.parameters = model.parameter_count();
    for (const auto& weight : model.indexer_parameters()) {
      result_.indexer_parameters += weight.numel();
    }
    result_.active_parameters = model.active_parameter_count();
    result_.flops_per_token = model.flops_per_token(job_.length);
    result_.top_k = resolved_top_k(job_.attention, job_.length);
    result_.validation_overlap = validation_overlap(corpus_, job_.length);
  }

  bool stop() const { return hooks_.stop_requested && hooks_.stop_requested(); }

  void train() {
    while (trainer_->steps_done() < job_.train.steps) {
      if (stop()) return save();
      await_turn(job_.turns);
      result_.steps.push_back(slowed_step());
      const int64_t done = trainer_->steps_done();
      if (hooks_.on_step) hooks_.on_step(result_.steps.back());
      if (done == job_.train.steps) break;
      if (due(job_.train.evaluate_every, done)) evaluate_now();
      if (due(job_.train.checkpoint_every, done)) save();
    }
    save();
    evaluate_now();
    judge_untrained();
    if (hooks_.on_finish) hooks_.on_finish(trainer_->model());
    result_.finished = true;
  }

  StepResult slowed_step() {
    if (job_.slowdown <= 1) return trainer_->step();
    const auto start = std::chrono::steady_clock::now();
    StepResult step = slowed(job_.slowdown, [&] { return trainer_->step(); });
    step.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return step;
  }

  static bool due(int64_t every, int64_t step) { return every > 0 && step % every == 0; }

  void save() {
    if (!job_.checkpoint.empty()) trainer_->save(job_.checkpoint);
  }

  void evaluate_now() {
    const FlushDenormals flush(job_.train.flush_denormals);
    Evaluation evaluation =
        evaluate(trainer_->model(), tiles_, corpus_.bytes_per_token, job_.train.quality_windows);
    evaluation.step = trainer_->steps_done();
    result_.evaluations.push_back(evaluation);
    if (hooks_.on_evaluation) hooks_.on_evaluation(evaluation);
  }

  /// The trained model with its indexers as they were drawn, for as long as it takes to judge them.
  void judge_untrained() {
    const auto trained = trainer_->model().indexer_parameters();
    if (trained.empty() || job_.train.quality_windows == 0) return;
    const at::NoGradGuard no_grad;
    const auto fresh = new_trainer(job_.train);
    const auto drawn = fresh->model().indexer_parameters();
    std::vector<at::Tensor> kept;
    for (size_t i = 0; i < trained.size(); ++i) {
      kept.push_back(trained[i].clone());
      trained[i].copy_(drawn[i]);
    }
    result_.untrained_selection =
        judged_selections(trainer_->model(), tiles_, job_.train.quality_windows);
    for (size_t i = 0; i < trained.size(); ++i) trained[i].copy_(kept[i]);
  }

  void summarise() {
    result_.step_seconds = without_warmup(job_.train, result_.steps);
    result_.median_step_seconds = median(result_.step_seconds);
    if (result_.median_step_seconds > 0) {
      result_.tokens_per_second =
          static_cast<double>(job_.train.batch * job_.length) / result_.median_step_seconds;
    }
    const double unknown = std::numeric_limits<double>::quiet_NaN();
    result_.best_validation_loss = result_.best_accuracy = unknown;
    result_.final_validation_loss = result_.final_accuracy = unknown;
    if (result_.evaluations.empty()) return;
    count_best(result_, job_.train, result_.evaluations);
    result_.final_validation_loss = result_.evaluations.back().loss;
    result_.final_accuracy = result_.evaluations.back().accuracy;
  }

  /// Three steps past the end of the run, whose numbers are already taken; the median one is kept.
  void trace_stages() {
    std::vector<StageTrace> traces;
    for (int i = 0; i < 3; ++i) traces.push_back(traced_step(*trainer_));
    std::sort(traces.begin(), traces.end(),
              [](const StageTrace& a, const StageTrace& b) { return a.seconds < b.seconds; });
    result_.stage_seconds = traces[1].stages;
  }

  TrainingJob job_;
  const Corpus& corpus_;
  const TrainingHooks& hooks_;
  std::unique_ptr<Batches> batches_;
  std::vector<Batch> tiles_;
  std::unique_ptr<Trainer> trainer_;
  TrainingResult result_;
};

}  // namespace

void count_best(TrainingResult& result, const TrainConfig& config,
                const std::vector<Evaluation>& evaluations) {
  const TrainingStage last = stage_of(config, config.steps - 1);
  for (const Evaluation& evaluation : evaluations) {
    if (stage_of(config, std::max<int64_t>(0, evaluation.step - 1)) != last) continue;
    // fmin and fmax pass over NaN, which min and max do not.
    result.best_validation_loss = std::fmin(result.best_validation_loss, evaluation.loss);
    result.best_accuracy = std::fmax(result.best_accuracy, evaluation.accuracy);
  }
}

void check(const TrainingJob& job, const Corpus& corpus) {
  check(job.train);
  const std::string& start = job.train.start_from;
  require(start.empty() || std::filesystem::exists(start), "train.start-from is '", start,
          "'; there is no such file");
  const int64_t asked = job.model.vocab_size;
  require(asked == 0 || asked >= corpus.vocab_size, "model.vocab-size is ", asked, ", but ",
          corpus.source, " has ", corpus.vocab_size, " ids; give at least that many, or 0");
  // Two tokens ask the variant and every backend it calls whether they can.
  const auto layer = variant(job.variant).make(job.attention);
  const at::ScalarType type = job.train.precision == "bf16" ? at::kBFloat16 : at::kFloat;
  layer->forward(at::zeros({1, 2, job.attention.d_model}, type), at::arange(2));
}

TrainingResult run_training(const TrainingJob& job, const Corpus& corpus,
                            const TrainingHooks& hooks) {
  check(job, corpus);
  return Run(job, corpus, hooks).whole();
}

}  // namespace dsa
