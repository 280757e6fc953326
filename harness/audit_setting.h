// What the audits of before training share: the subject on a short text, and models of it.
#pragma once
#include "harness/audits.h"

#include <memory>

namespace dsa {

/// The subject at kAuditLength tokens or its own shortest length, K scaled to the same share.
struct ShortSetting {
  explicit ShortSetting(const AuditSubject& subject);

  /// Rows of validation text, or of test examples. int64 [rows, length] each.
  Batch text(int64_t rows) const;
  /// A model as training starts with it; `batch` sequences a step.
  std::unique_ptr<Trainer> trainer(const std::string& variant, int64_t batch = 2) const;
  /// Neither dropout nor router noise: what two models compute can be compared.
  void make_quiet();

  const AuditSubject& subject;
  int64_t length;
  AttentionConfig attention;
  ModelConfig model;
  TrainConfig train;

 private:
  mutable std::vector<std::unique_ptr<Batches>> batches_;  ///< a trainer each
};

AuditFinding causality_before(const AuditSubject& subject);
AuditFinding leakage_before(const AuditSubject& subject);
AuditFinding baseline_before(const AuditSubject& subject);
AuditFinding baseline_after(const AuditSubject& subject, const AuditEvidence& evidence);
AuditFinding indexer_before(const AuditSubject& subject);
AuditFinding indexer_after(const AuditSubject& subject, const AuditEvidence& evidence);
AuditFinding sparse_after(const AuditSubject& subject, const AuditEvidence& evidence);
AuditFinding parity_before(const AuditSubject& subject);
AuditFinding determinism_before(const AuditSubject& subject);
AuditFinding budget_after(const AuditSubject& subject, const AuditEvidence& evidence);

using Verdict = AuditFinding::Verdict;
inline Verdict verdict(bool holds) {
  return holds ? Verdict::kPassed : Verdict::kFailed;
}
AuditFinding open(const std::string& why);

/// printf into a string; audits are sentences with numbers in them.
std::string sentence(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace dsa
