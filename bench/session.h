// What all benchmarks of one command share, and the interface of one row. A row is registered with
// Google Benchmark under its id; Google Benchmark decides how often and how long it runs.
#pragma once
#include "attention/ceilings.h"
#include "bench/kernel_inputs.h"
#include "harness/config_cli.h"
#include "harness/progress.h"
#include "harness/recorder.h"

#include <benchmark/benchmark.h>

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace dsa::bench {

/// Why the times of a run are none to compare, "profiled" or "slowed", or empty.
inline std::string label_of(const RunConfig& config) {
  if (config.profile) return "profiled";
  return config.inject_slowdown > 1 ? "slowed" : "";
}

struct Session {
  RunConfig config;  ///< what is run: shrunk by --dry-run
  Progress progress{true};
  std::unique_ptr<Recorder> recorder;
  std::shared_ptr<const Corpus> corpus;  ///< only if a training row was selected
  InputCache inputs;
  std::optional<Ceilings> ceilings;        ///< nothing if not asked for
  std::optional<Ceilings> ceilings_again;  ///< once a row has seemed to be above them
  /// Kernel rows without their length -> work and seconds of the last length measured.
  std::map<std::string, std::pair<double, double>> speeds;
  bool gate_failed = false, seed_failed = false;
  int failed_audits = 0;

  std::string label() const { return label_of(config); }
};

/// One row. run() is called once for every repetition (and calibration probe); finish() once after
/// the last.
class Row {
 public:
  virtual ~Row() = default;
  virtual void run(benchmark::State& state, Session& session) = 0;
  virtual void finish(Session& session) = 0;

  /// A training row proper: it reads the session's corpus, and audits judge it.
  bool trains() const { return labels.at("level") == "training"; }

  std::string id;
  std::map<std::string, std::string> labels;  ///< of every metric of the row; the axes of --select
  std::string declined;                       ///< why it cannot run, or empty
  int64_t seeds = 0;  ///< training: runs of the row, each timed by itself; 0 = a kernel row
};

using Rows = std::vector<std::unique_ptr<Row>>;

/// All rows of the configuration, in the order they run.
Rows kernel_rows(const RunConfig& config);
Rows training_rows(const RunConfig& config);
Rows anatomy_rows(const RunConfig& config);  ///< harness/anatomy.h

/// @throws Error for what a training row among `rows` would refuse at its first step.
void check_training(const std::vector<Row*>& rows, const RunConfig& config, const Corpus& corpus);

/// Variants a run trains: those asked for, or all.
std::vector<std::string> selected_variants(const RunConfig& config);

/// Ctrl-C: the first asks to stop after the current repetition or step, the second kills.
void catch_interrupts();
bool stop_requested();

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// First line of what went wrong, without torch's backtrace.
std::string sentence_of(const std::exception& error);

}  // namespace dsa::bench
