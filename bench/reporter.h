// Google Benchmark's display reporter: it ends rows and passes on to a format asked for by
// --benchmark_format. Its own numbers are not used: rows record theirs as they happen.
#pragma once
#include "bench/session.h"

namespace dsa::bench {

MachineContext machine_context();  ///< what Google Benchmark knows of the machine

class Reporter : public benchmark::BenchmarkReporter {
 public:
  /// @param also  shows results in Google Benchmark's way as well; may be null
  Reporter(const std::vector<Row*>& rows, Session& session,
           std::unique_ptr<benchmark::BenchmarkReporter> also);
  bool ReportContext(const Context& context) override;
  void ReportRuns(const std::vector<Run>& runs) override;
  void Finalize() override;

 private:
  std::map<std::string, Row*> rows_;
  Session& session_;
  std::unique_ptr<benchmark::BenchmarkReporter> also_;
};

}  // namespace dsa::bench
