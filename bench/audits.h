// Runs the audits around the training rows of a run and keeps their results in its record.
#pragma once
#include "bench/session.h"
#include "harness/audits.h"

namespace dsa::bench {

class AuditBook {
 public:
  /// @param variants  that the run trains, and the baseline it compares them with
  AuditBook(Session& session, const std::vector<std::string>& variants);

  /// Measures time and memory over L, the curves of audit 5, unless the record has them.
  void measure_curves();
  /// Judges what needs no training.
  void before();
  /// Adds what the record shows by now. @return failed audits
  int after();

 private:
  struct Judged {
    AuditSubject subject;
    std::vector<AuditFinding> findings;  ///< a row of audits() each
  };
  void measure_curve(const std::string& variant);
  void show(const AuditRow& audit, const std::string& variant);
  AuditEvidence evidence(const AuditSubject& subject) const;
  void put(const Judged& judged, size_t row, const AuditFinding& finding);

  Session& session_;
  std::vector<Judged> all_;
  double bigrams_ = AuditEvidence::kUnknown;
};

}  // namespace dsa::bench
