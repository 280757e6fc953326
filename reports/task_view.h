// The tasks of a record: accuracy by variant, length and K, beside what guessing would reach.
#pragma once
#include "reports/text.h"
#include "reports/training_view.h"

#include <optional>
#include <utility>

namespace dsa::report {

/// Accuracy of one variant at one length.
struct TaskLine {
  record::VariantInfo variant;
  std::vector<std::pair<double, Summary>> by_top_k;  ///< ascending
  std::optional<Summary> all_keys;                   ///< of a variant that has no K
};

struct TaskView {
  const record::Run& run;
  std::string name, summary;
  TrainingView training;                                ///< one arm a variant and K
  std::vector<std::pair<std::string, double>> guesses;  ///< in words; accuracy, largest first

  /// Medians over seeds of `quantity`; of a metric by layer, of the mean over layers.
  std::vector<TaskLine> lines(const std::string& quantity, double length) const;
  /// Every K of a line, ascending.
  std::vector<double> top_ks(double length) const;
};

std::vector<TaskView> task_views(const record::Run& run);

/// What a task's accuracies at one length say of the candidate, in one clause.
std::string task_finding(const TaskView& task, double length);
/// The clauses of every task and length.
Text task_sentence(const std::vector<TaskView>& tasks);

}  // namespace dsa::report
