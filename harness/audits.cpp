// The table of audits, and what all of them share.
#include "harness/audits.h"

#include "harness/audit_setting.h"
#include "model/head.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>

namespace dsa {

const std::vector<AuditRow>& audits() {
  static const std::vector<AuditRow> rows = {
      {1, "causality", "no prediction depends on later tokens, no loss reaches them", false,
       causality_before, nullptr},
      {2, "data_leakage", "validation was not seen in training", true, leakage_before, nullptr},
      {3, "baseline_sanity",
       "models start at ln V, and the baseline learns more than bigrams tell or guessing reaches",
       false, baseline_before, baseline_after},
      {4, "indexer_learns",
       "the indexer gets gradients and selects better than untrained or random", false,
       indexer_before, indexer_after},
      {5, "truly_sparse", "time and memory of attention grow as its selected pairs do", false,
       nullptr, sparse_after},
      {6, "parity", "with K = L it equals the baseline, forward and backward", false, parity_before,
       nullptr},
      {7, "determinism", "20 runs of one seed give the same bits", false, determinism_before,
       nullptr},
      {8, "same_budget", "parameters, tokens, FLOPs and seeds are those of the baseline", false,
       nullptr, budget_after},
  };
  return rows;
}

AuditFinding joined(const AuditFinding& before, const AuditFinding& after) {
  if (before.verdict == Verdict::kOpen) return before;
  AuditFinding both = before.verdict == Verdict::kFailed ? before : after;
  both.sentence = before.sentence + "; " + after.sentence;
  return both;
}

record::Audit audit_record(const AuditRow& row, const std::string& variant,
                           const AuditFinding& finding) {
  static const char* const words[] = {"passed", "failed", "open"};
  return {row.name,
          {{"level", "audit"},
           {"variant", variant},
           {"number", std::to_string(row.number)},
           {"claim", row.claim},
           {"status", words[static_cast<int>(finding.verdict)]}},
          finding.verdict == Verdict::kPassed,
          finding.observed,
          finding.required,
          finding.unit,
          finding.sentence};
}

bool selects(const AttentionVariant& variant) {
  return variant.role != "baseline";
}

AuditFinding open(const std::string& why) {
  return {Verdict::kOpen, AuditEvidence::kUnknown, AuditEvidence::kUnknown, "", why};
}

std::string sentence(const char* format, ...) {
  char text[512];
  va_list values;
  va_start(values, format);
  std::vsnprintf(text, sizeof text, format, values);
  va_end(values);
  return text;
}

ShortSetting::ShortSetting(const AuditSubject& asked)
    : subject(asked),
      length(std::min(kAuditLength, std::ranges::min(asked.lengths))),
      attention(asked.attention),
      model(asked.model),
      train(asked.train) {
  const int64_t whole = std::ranges::min(asked.lengths);
  if (dsa::task(asked.task.name).fill != nullptr) length = whole;
  const int64_t top_k = resolved_top_k(attention, whole);
  attention.top_k = std::max<int64_t>(1, std::min(top_k, whole) * length / whole);
  train.start_from.clear();
}

Batch ShortSetting::text(int64_t rows) const {
  for (const Batch& tile : test_tiles(subject.task, *subject.corpus, length, rows)) {
    if (tile.tokens.size(0) == rows && !tile.padded) return tile;
  }
  throw Error("the audits need " + std::to_string(rows) + " validation windows of " +
              std::to_string(length) +
              " tokens; bring more data, or give --audit.with-training=false");
}

std::unique_ptr<Trainer> ShortSetting::trainer(const std::string& variant, int64_t batch) const {
  batches_.push_back(training_batches(subject.task, *subject.corpus, length, batch, subject.seed));
  return std::make_unique<Trainer>(variant, attention, model, train, *batches_.back(),
                                   subject.seed);
}

void ShortSetting::make_quiet() {
  attention.dropout = model.dropout = model.router_noise = 0;
}

}  // namespace dsa
