#include "bench/seed_run.h"

#include "attention/nvtx.h"
#include "bench/session.h"

namespace dsa::bench {

TrainingJob job_of(const std::string& variant, int64_t length, uint64_t seed,
                   const RunConfig& config) {
  TrainingJob job;
  job.variant = variant;
  job.length = length;
  job.seed = seed;
  job.attention = config.attention;
  job.model = config.model;
  job.train = config.train;
  job.task = config.task;
  job.slowdown = config.inject_slowdown;
  job.turns = static_cast<int>(config.turns);
  return job;
}

TrainingResult train_seed(const TrainingJob& job, const Corpus& corpus, MetricsLog& log,
                          Progress& progress, size_t before, int64_t seeds,
                          const std::function<void(Transformer&)>& on_finish) {
  TrainingHooks hooks;
  hooks.on_step = [&](const StepResult& step) {
    log.add(step);
    char note[64];
    std::snprintf(note, sizeof note, "step %lld/%lld loss %.3f", static_cast<long long>(step.step),
                  static_cast<long long>(job.train.steps), step.loss);
    const double part = static_cast<double>(step.step) / static_cast<double>(job.train.steps);
    progress.tick((static_cast<double>(before) + part) / static_cast<double>(seeds), note);
  };
  hooks.on_evaluation = [&](const Evaluation& evaluation) { log.add(evaluation); };
  hooks.on_finish = on_finish;
  hooks.stop_requested = stop_requested;
  const nvtx::Range range("timed", nvtx::Category::kTimed, job.length);
  TrainingResult result = run_training(job, corpus, hooks);
  if (!result.finished) return result;
  count_best(result, job.train, log.evaluations());  // those of before a resume count as well
  if (!(result.median_step_seconds > 0)) {  // resumed after its last step: the log alone has them
    result.median_step_seconds = median(log.step_seconds());
    result.tokens_per_second =
        static_cast<double>(job.train.batch * job.length) / result.median_step_seconds;
  }
  return result;
}

}  // namespace dsa::bench
