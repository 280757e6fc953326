// Companions of record.json in other tools' shapes: results.json and track.json as Google Benchmark
// writes them (its own JSON has NaN and truncation faults), summary.json as the original experiment.
#pragma once
#include "harness/recorder.h"

namespace dsa {

/// Google Benchmark's shape, one row a sample; `medians_only`: one row per id, its median.
std::string google_json(const record::Run& run, const MachineContext& context,
                        const std::vector<Sample>& samples, bool medians_only);

/// {"64": {"dense": {"best_val_loss", "best_accuracy", "seconds_per_step", "seeds"}}}
std::string summary_json(const record::Run& run);

/// Would Google Benchmark overwrite a counter of this name?
bool reserved_counter(const std::string& name);

}  // namespace dsa
