// The curve of one seed on disk: a JSON line a step and an evaluation, flushed as they happen. Opened
// again by --resume it keeps the lines before the step that training continues from.
#pragma once
#include "harness/recorder.h"
#include "harness/trainer.h"

#include <filesystem>
#include <vector>

namespace dsa::bench {

class MetricsLog {
 public:
  explicit MetricsLog(const std::filesystem::path& file);
  void add(const StepResult& step);
  void add(const Evaluation& evaluation);
  const std::vector<StepResult>& steps() const { return steps_; }
  const std::vector<Evaluation>& evaluations() const { return evaluations_; }
  std::vector<double> step_seconds() const;
  int64_t last_step() const { return steps_.empty() ? 0 : steps_.back().step; }

 private:
  void open(int64_t first_step, int64_t first_evaluation);
  std::filesystem::path file_;
  std::unique_ptr<JsonLines> lines_;  ///< opened by the first line: it tells where to continue
  std::vector<StepResult> steps_;
  std::vector<Evaluation> evaluations_;
};

}  // namespace dsa::bench
