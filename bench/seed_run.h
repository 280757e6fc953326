// Training one seed of a row: its curve goes to disk, a live line says how far it is, and what an
// interrupted run left behind counts as well.
#pragma once
#include "bench/metrics_log.h"
#include "harness/progress.h"
#include "harness/run_config.h"
#include "harness/training_run.h"

namespace dsa::bench {

/// All that the settings say; the checkpoint is the caller's.
TrainingJob job_of(const std::string& variant, int64_t length, uint64_t seed,
                   const RunConfig& config);

/// @param before  seeds of the row that are done, of `seeds` in all: for the live line
/// @param on_finish  may be empty; see TrainingHooks
/// @return not finished if a stop was asked for
TrainingResult train_seed(const TrainingJob& job, const Corpus& corpus, MetricsLog& log,
                          Progress& progress, size_t before, int64_t seeds,
                          const std::function<void(Transformer&)>& on_finish = {});

}  // namespace dsa::bench
