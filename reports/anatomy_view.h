// The anatomy of a headline in a record: rungs by arms.
#pragma once
#include "harness/record/record.h"
#include "reports/statistics.h"

#include <string>
#include <vector>

namespace dsa::report {

struct AnatomyRung {
  std::string name, repair;
  std::vector<double> dense_loss, sparse_loss;  ///< a seed each, nats/token
  std::vector<double> dense_accuracy, sparse_accuracy;
  std::vector<double> dense_step, sparse_step;  ///< s

  bool complete() const { return !dense_loss.empty() && !sparse_loss.empty(); }
  /// dense - sparse: above 0 the sparse model is better, as the headline had it.
  Summary gap() const { return paired_difference(dense_loss, sparse_loss); }
};

/// In order; rungs without a number are left out.
std::vector<AnatomyRung> anatomy_of(const record::Run& run, double length);
std::vector<double> anatomy_lengths(const record::Run& run);

}  // namespace dsa::report
