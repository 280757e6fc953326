// Kernel rows and the life of one (docs/bench.md): inputs, gate, warm-up, timed repetitions, gate
// again, peak memory, record. Google Benchmark finds the iteration count and calls run().
#include "attention/nvtx.h"
#include "bench/google.h"
#include "bench/kernel_record.h"
#include "bench/run_record.h"
#include "harness/machine.h"
#include "harness/memory.h"
#include "harness/slowdown.h"
#include "harness/turns.h"

#include <ATen/Parallel.h>

#include <chrono>
#include <cmath>
#include <ctime>
#include <optional>
#include <unistd.h>

namespace dsa::bench {
namespace {

using Clock = std::chrono::steady_clock;

class KernelRow : public Row {
 public:
  KernelRow(const KernelCase& kernel, const KernelConfig& config);
  void run(benchmark::State& state, Session& session) override;
  void finish(Session& session) override;

 private:
  void prepare(Session& session);
  void warm_up();
  void time(benchmark::State& state, Session& session);
  void keep(const Repetition& repetition, Session& session);
  void flush_pending(Session& session);
  void gate(const char* when, const InputSet& set, Session& session);
  void fail(Session& session, const std::string& status, const std::string& reason);
  void record(Session& session);
  std::string too_slow(const Session& session) const;
  std::string crowding(Session& session) const;
  Checked checked() const;
  const InputSet& next_set() { return inputs_->sets[turn_++ % inputs_->sets.size()]; }

  KernelCase kernel_;
  std::shared_ptr<const Inputs> inputs_;
  uint64_t inputs_hash_ = 0;
  size_t turn_ = 0;
  Verdict verdict_;
  std::string note_;  ///< of the last timed call
  std::string failure_;
  bool skipped_ = false, interrupted_ = false;
  double timed_seconds_ = 0;
  std::optional<double> other_seconds_ = 0;  ///< CPU time of other processes meanwhile
  std::optional<Repetition> pending_;        ///< may turn out to be a calibration probe
  std::vector<Repetition> repetitions_;
};

KernelRow::KernelRow(const KernelCase& kernel, const KernelConfig& config) : kernel_(kernel) {
  id = id_of(kernel);
  labels = labels_of(kernel);
  declined = reason_to_decline(kernel);
  if (declined.empty()) declined = too_large(kernel, config);
  if (declined.empty() && kernel.scores == "captured") declined = captured_declines(kernel, config);
}

/// Arithmetic, or traffic where there is none: what a row's time grows with.
double work_of(const KernelCase& kernel) {
  const Cost work = kernel.work();
  return work.flops > 0 ? work.flops : work.bytes_read + work.bytes_written;
}

std::string without_length(const KernelCase& kernel) {
  std::string key = kernel.family();
  for (const auto& [axis, value] : axes(kernel)) {
    if (axis != "L") key += "/" + value;
  }
  return key;
}

std::string KernelRow::too_slow(const Session& session) const {
  const auto shorter = session.speeds.find(without_length(kernel_));
  if (shorter == session.speeds.end()) return "";
  const auto& [work, seconds] = shorter->second;
  const double expected = seconds * work_of(kernel_) / work;
  if (expected <= session.config.kernels.call_budget) return "";
  char text[160];
  std::snprintf(
      text, sizeof text,
      "a call would take about %.1f s by its shorter length, more than --kernels.call-budget %g",
      expected, session.config.kernels.call_budget);
  return text;
}

void KernelRow::fail(Session& session, const std::string& status, const std::string& reason) {
  failure_ = reason;
  session.gate_failed = session.gate_failed || status == "failed" || status == "invalid";
  pending_.reset();
  if (!repetitions_.empty()) session.recorder->retract(id);
  repetitions_.clear();
  session.recorder->put(record::Failure{id, status, reason, labels});
  session.progress.print("  " + status + "  " + id + ": " + reason);
}

void KernelRow::run(benchmark::State& state, Session& session) {
  if (stop_requested()) {
    interrupted_ = true;
    return skip(state, "interrupted");
  }
  if (!failure_.empty()) return bench::fail(state, failure_);
  if (skipped_) return skip(state, "skipped");
  if (session.recorder->metric(id, "time") != nullptr && repetitions_.empty() && !pending_) {
    skipped_ = true;
    return skip(state, "done before");
  }
  if (!inputs_) {
    session.progress.begin(id);
    session.recorder->forget_failures(id);
    if (declined.empty()) declined = too_slow(session);
    if (!declined.empty()) {
      fail(session, "skipped", declined);
      return skip(state, declined);
    }
  }
  try {
    if (!inputs_) prepare(session);
    if (!failure_.empty()) return bench::fail(state, failure_);
    const bool spent = timed_seconds_ > session.config.kernels.row_budget;
    if (spent && (pending_ || !repetitions_.empty())) {
      return skip(state, "--kernels.row-budget spent");
    }
    time(state, session);
  } catch (const std::exception& error) {
    fail(session, "failed", sentence_of(error));
    bench::fail(state, failure_);
  }
}

void KernelRow::prepare(Session& session) {
  const nvtx::Range range("setup", nvtx::Category::kSetup, kernel_.problem.keys);
  inputs_ = session.inputs.get(kernel_, session.config.kernels);
  inputs_hash_ = inputs_->hash();
  gate("before timing", inputs_->sets.front(), session);
  if (failure_.empty() && !session.config.dry_run) warm_up();
}

void KernelRow::gate(const char* when, const InputSet& set, Session& session) {
  if (!session.config.kernels.checked) return;
  const nvtx::Range range("correctness", nvtx::Category::kCorrectness, kernel_.problem.keys);
  const Verdict verdict = check(kernel_, set, session.config.kernels.checked_queries);
  worsen(verdict_, verdict);
  if (!verdict.failure.empty()) fail(session, "failed", verdict.failure + " (" + when + ")");
}

/// Until two windows agree within 5 %, for at most a second; a call that long is its own warm-up.
void KernelRow::warm_up() {
  const nvtx::Range range("warmup", nvtx::Category::kWarmup, kernel_.problem.keys);
  const auto start = Clock::now();
  double previous = 0;
  while (seconds_since(start) < 1) {
    const auto window = Clock::now();
    int calls = 0;
    while (calls < 3 || seconds_since(window) < 0.01) {
      call(kernel_, next_set());
      ++calls;
      if (seconds_since(start) > 1) return;
    }
    const double seconds = seconds_since(window) / calls;
    if (previous > 0 && std::abs(seconds - previous) < 0.05 * previous) return;
    previous = seconds;
  }
}

void KernelRow::time(benchmark::State& state, Session& session) {
  await_turn(static_cast<int>(session.config.turns));
  const nvtx::Range range("timed", nvtx::Category::kTimed, kernel_.problem.keys);
  const auto others = cpu_seconds_of_others();
  const std::clock_t cpu = std::clock();
  const auto start = Clock::now();
  const double factor = session.config.inject_slowdown;
  for (auto _ : state) slowed(factor, [&] { call(kernel_, next_set()); });
  const double seconds = seconds_since(start);
  note_ = note_of(kernel_);
  const double cpu_seconds = static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC;
  timed_seconds_ += seconds;
  const auto others_after = cpu_seconds_of_others();
  other_seconds_ = others && others_after && other_seconds_
                       ? std::optional(*other_seconds_ + *others_after - *others)
                       : std::nullopt;
  const auto iterations = static_cast<int64_t>(state.iterations());
  const auto calls = static_cast<double>(iterations);
  keep({iterations, seconds / calls, cpu_seconds / calls}, session);
  session.progress.tick(std::min(1.0, static_cast<double>(repetitions_.size()) /
                                          static_cast<double>(session.config.kernels.repetitions)),
                        "");
}

/// Google Benchmark raises the iteration count until a call is long enough; only the last counts.
/// Which one that was is known when the next begins, so a repetition is written one later.
void KernelRow::keep(const Repetition& repetition, Session& session) {
  const bool probe = pending_ && pending_->iterations < repetition.iterations;
  if (!probe) flush_pending(session);
  pending_ = repetition;
}

Checked KernelRow::checked() const {
  const auto sets = static_cast<double>(inputs_->sets.size());
  return {kernel_, bytes_of_set(kernel_) * sets, verdict_, inputs_->facts, note_};
}

void KernelRow::flush_pending(Session& session) {
  if (!pending_) return;
  const auto place = static_cast<int64_t>(repetitions_.size());
  session.recorder->add(sample_of(session, checked(), place, *pending_));
  repetitions_.push_back(*pending_);
  pending_.reset();
}

void KernelRow::finish(Session& session) {
  if (skipped_ || !failure_.empty() || !inputs_) {
    session.progress.end();
    inputs_.reset();
    return;
  }
  try {
    flush_pending(session);
    if (interrupted_) fail(session, "interrupted", "stopped before all repetitions were done");
    // A set that does not depend on how many calls were timed: the record's error must not either.
    const InputSet& last = inputs_->sets.back();
    if (failure_.empty() && !session.config.dry_run) gate("after timing", last, session);
    if (failure_.empty() && inputs_->hash() != inputs_hash_) {
      fail(session, "failed", "the kernel wrote into its inputs");
    }
    if (failure_.empty() && !repetitions_.empty()) record(session);
  } catch (const std::exception& error) {
    fail(session, "failed", sentence_of(error));
  }
  inputs_.reset();
  session.progress.end();
  session.recorder->write();
}

/// Says, and records, that others had the CPUs that the row's threads needed.
std::string KernelRow::crowding(Session& session) const {
  // Shorter than ten ticks of the system's clock says nothing.
  if (!other_seconds_ || timed_seconds_ < 0.1) return "";
  // All of the machine, as in /proc/stat, not only those this process may use.
  const double cpus = static_cast<double>(sysconf(_SC_NPROCESSORS_ONLN));
  const Crowd c = crowd(*other_seconds_, timed_seconds_, at::get_num_threads(), cpus);
  const record::Quantity quantity{"other_cpus", "CPUs", record::Quantity::Better::kLower};
  const bool busy = c.missing >= 0.1;
  auto all = labels;
  if (busy) all["busy"] = "true";
  session.recorder->put(record::Metric{quantity, all, {c.others}});
  if (!busy) return "";
  char text[80];
  std::snprintf(text, sizeof text, "  BUSY: others kept %.1f of %.0f CPUs", c.others, cpus);
  return text;
}

void KernelRow::record(Session& session) {
  std::vector<double> seconds;
  for (const Repetition& r : repetitions_) seconds.push_back(r.seconds);
  const double middle = median(seconds);
  if (const auto failure = physics_failure(session, kernel_.work(), middle); !failure.empty()) {
    return fail(session, "invalid", failure);
  }
  put_metrics(session, checked(), seconds);
  std::string ceiling = "-", memory = "-";
  if (const auto used = share_of(session, checked(), middle)) {
    ceiling = std::to_string(std::lround(used->percent)) + " % " + used->bound;
  }
  if (!session.config.dry_run && session.config.kernels.checked) {
    if (const auto peak = peak_bytes([&] { call(kernel_, inputs_->sets.front()); })) {
      auto all = labels;
      if (!session.label().empty()) all[session.label()] = "true";
      const record::Quantity quantity{"peak_memory", "bytes", record::Quantity::Better::kLower};
      session.recorder->put(record::Metric{quantity, all, {*peak}});
      memory = std::to_string(std::lround(*peak / (1024 * 1024))) + " MiB";
    }
  }
  char line[128];
  session.speeds[without_length(kernel_)] = {work_of(kernel_), middle};
  std::snprintf(line, sizeof line, "%11s %9.1f GFLOP/s %11s %9s  n=%zu  ",
                shown_seconds(middle).c_str(), kernel_.work().flops / middle / 1e9, ceiling.c_str(),
                memory.c_str(), repetitions_.size());
  const std::string note = note_.empty() ? "" : "  " + note_;
  session.progress.print(line + id + shown(inputs_->facts) + note + shown(verdict_) +
                         crowding(session));
}

}  // namespace

Rows kernel_rows(const RunConfig& config) {
  check_captured(config.kernels);
  Rows rows;
  for (const KernelCase& kernel : kernel_cases(config.kernels, kernel_lengths(config))) {
    rows.push_back(std::make_unique<KernelRow>(kernel, config.kernels));
  }
  return rows;
}

}  // namespace dsa::bench
