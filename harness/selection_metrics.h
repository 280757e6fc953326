// The numbers of a selection's quality as metrics: one row each, which metrics.jsonl, the record and
// through it the report loop over.
#pragma once
#include "attention/selection_quality.h"
#include "harness/record/record.h"

namespace dsa {

struct SelectionMetric {
  record::Quantity quantity;
  double SelectionQuality::*value;
};

/// Names as in docs/records.md.
inline const std::vector<SelectionMetric>& selection_metrics() {
  using Better = record::Quantity::Better;
  static const std::vector<SelectionMetric> rows = {
      {{"selection_recall", "1", Better::kHigher}, &SelectionQuality::recall},
      {{"selection_mass", "1", Better::kHigher}, &SelectionQuality::mass},
      {{"selection_kl", "nats", Better::kLower}, &SelectionQuality::kl},
      {{"selection_recent", "1", Better::kNeither}, &SelectionQuality::recent},
      {{"selection_entropy", "nats", Better::kNeither}, &SelectionQuality::entropy}};
  return rows;
}

}  // namespace dsa
