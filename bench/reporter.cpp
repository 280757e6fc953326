#include "bench/reporter.h"

namespace dsa::bench {

MachineContext machine_context() {
  const auto& cpu = benchmark::CPUInfo::Get();
  MachineContext context;
  context.date = utc_now();
  context.host = benchmark::SystemInfo::Get().name;
  context.executable = "dsa-bench";
  context.cpus = cpu.num_cpus;
  context.mhz = cpu.cycles_per_second / 1e6;
  if (cpu.scaling != benchmark::CPUInfo::UNKNOWN) {
    context.scaling = cpu.scaling == benchmark::CPUInfo::ENABLED;
  }
  for (const auto& cache : cpu.caches) {
    context.caches.push_back({cache.type, cache.level, cache.size, cache.num_sharing});
  }
  context.load = cpu.load_avg;
#ifdef NDEBUG
  context.build_type = "release";
#else
  context.build_type = "debug";
#endif
  return context;
}

Reporter::Reporter(const std::vector<Row*>& rows, Session& session,
                   std::unique_ptr<benchmark::BenchmarkReporter> also)
    : session_(session), also_(std::move(also)) {
  for (Row* row : rows) rows_[row->id] = row;
}

bool Reporter::ReportContext(const Context& context) {
  return !also_ || also_->ReportContext(context);
}

void Reporter::ReportRuns(const std::vector<Run>& runs) {
  if (also_) also_->ReportRuns(runs);
  // Aggregates of the same row come in a call of their own.
  if (runs.empty() || runs.front().run_type != Run::RT_Iteration) return;
  const auto row = rows_.find(runs.front().run_name.function_name);
  if (row != rows_.end()) row->second->finish(session_);
}

void Reporter::Finalize() {
  if (also_) also_->Finalize();
}

}  // namespace dsa::bench
