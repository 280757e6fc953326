// The audits: what must hold before a number of this suite is worth reading. A row each; some judge
// the experiment before it is trained, some what came out of it, some both. docs/audits.md.
#pragma once
#include "harness/data.h"
#include "harness/record/record.h"
#include "harness/task.h"
#include "harness/trainer.h"

#include <cmath>
#include <limits>
#include <optional>

namespace dsa {

/// One variant in one setting. Its lengths are those of the run; what needs no long text is judged on
/// at most kAuditLength tokens, with top-k scaled to the same share of them. Examples of a task, which
/// cannot be cut, keep the shortest length of the run.
struct AuditSubject {
  std::string variant, baseline;
  AttentionConfig attention;
  ModelConfig model;  ///< vocab_size resolved
  TrainConfig train;
  TaskConfig task;
  const Corpus* corpus = nullptr;
  std::vector<int64_t> lengths;
  uint64_t seed = 1;
};
inline constexpr int64_t kAuditLength = 64;

/// What training and its measurements have shown of a variant and its baseline. NaN or empty = not seen.
struct AuditEvidence {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  int64_t length = 0;                       ///< of the trained rows below
  double baseline_loss = kUnknown;          ///< best validation loss, nats/token, median over seeds
  double bigram_loss = kUnknown;            ///< of the text, see corpus_facts.h
  double baseline_accuracy = kUnknown;      ///< final, median over seeds
  double recall = kUnknown, kl = kUnknown;  ///< mean over layers, after training
  double untrained_recall = kUnknown;       ///< of the indexer as drawn, on the same trained model
  double untrained_kl = kUnknown;
  double parameters = kUnknown, baseline_parameters = kUnknown;
  double indexer_parameters = kUnknown;  ///< of the variant
  double flops_per_token = kUnknown, baseline_flops_per_token = kUnknown;
  int64_t seeds = 0, baseline_seeds = 0;  ///< with a result
  int64_t steps = 0, baseline_steps = 0;  ///< finished
  /// Time and memory over L at a fixed K: audit 5.
  struct Point {
    double length = 0, seconds = 0, bytes = 0, flops = 0;
  };
  std::vector<Point> curve;
  double missing_cpus = 0;  ///< that others took from us while the curve was timed
};

struct AuditFinding {
  enum class Verdict { kPassed, kFailed, kOpen } verdict = Verdict::kOpen;
  double observed = AuditEvidence::kUnknown, required = AuditEvidence::kUnknown;
  std::string unit, sentence;  ///< the sentence names the evidence
};

struct AuditRow {
  int number;
  const char* name;                             ///< snake_case, stable, stored in records
  const char* claim;                            ///< one line
  bool of_the_data;                             ///< its first half says the same of every variant
  AuditFinding (*before)(const AuditSubject&);  ///< nullptr: nothing can be said before training
  AuditFinding (*after)(const AuditSubject&, const AuditEvidence&);  ///< nullptr: nothing to add
};
const std::vector<AuditRow>& audits();

/// Both halves of one audit: open if the first is, failed if either failed, else as the second.
AuditFinding joined(const AuditFinding& before, const AuditFinding& after);

/// As a record keeps it: labels level=audit, variant, number, status (passed | failed | open).
record::Audit audit_record(const AuditRow& row, const std::string& variant,
                           const AuditFinding& finding);

/// Does the variant read a selection of keys? Those that do not have nothing to be sparse or equal to
/// dense about.
bool selects(const AttentionVariant& variant);

}  // namespace dsa
