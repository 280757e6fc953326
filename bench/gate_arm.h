// A binary under comparison: what it says of itself, which rows it has, and the numbers of one of its
// runs. All of it through its command line and the files of a run, so any commit's binary will do.
#pragma once
#include "bench/gate_process.h"
#include "harness/record/gate.h"
#include "harness/run_config.h"

#include <map>
#include <optional>

namespace dsa::bench {

/// What one run says of one row.
struct RowFacts {
  std::string level;
  std::map<std::string, std::pair<record::Quantity, double>> numbers;  ///< medians, by quantity
  std::vector<double>
      slices;  ///< seconds of a call by repetition, or of every step, in their order
  std::optional<double> seconds;  ///< the fastest repetition, or the median step
  int64_t iterations = 0;         ///< calls of a repetition
  std::string status, reason;     ///< of failures.json
};
using RunFacts = std::map<std::string, RowFacts>;

struct Binary {
  record::GateArm arm;
  double slowdown = 1;
  bool is_code = true;  ///< not a script, which may start anything: its hash says little
};

/// Path, hash of its machine code (of the whole file, if it has none). @throws Error if there is no such file.
Binary binary_of(const std::string& name, const std::string& path);

/// Flags for every setting that is not the default, without the gate's own.
std::vector<std::string> settings_of(const RunConfig& config);

class ArmRunner {
 public:
  ArmRunner(const RunConfig& config, std::filesystem::path folder);

  /// Names of the rows that the configuration selects. @throws Error if it refuses the configuration.
  std::vector<std::string> rows(const Binary& binary) const;

  struct Result {
    Ended ended;
    RunFacts facts;
    std::string settings, git;  ///< as its record has them: JSON, commit; empty without a record
  };
  /// Runs the rows once, with `more` flags, in `place` below the gate's folder (emptied before).
  /// @param limits  how many --gate.time-limit it may take
  Result measure(const Binary& binary, const std::vector<std::string>& rows,
                 const std::vector<std::string>& more, const std::string& place,
                 double limits = 1) const;
  struct Entry {
    const Binary* binary;
    std::string row;
  };
  /// Runs one row of each binary in turns, with `more` flags, in `place` below the gate's folder.
  /// @param seed  of the order of turns
  std::vector<Result> measure_in_turns(const std::vector<Entry>& entries,
                                       const std::vector<std::string>& more,
                                       const std::string& place, uint64_t seed) const;
  /// What an earlier measure() left in `place`.
  Result left_in(const std::string& place) const;

  std::string cores() const;  ///< that processes are pinned to: "2,3", or "all"

 private:
  ProcessOptions options(const std::filesystem::path& where) const;
  Command command(const Binary& binary, const std::vector<std::string>& rows,
                  const std::vector<std::string>& more, const std::filesystem::path& where) const;
  Result result_of(const Ended& ended, const std::string& place) const;
  std::vector<std::string> settings_;
  std::vector<std::string> selection_;
  std::filesystem::path folder_;
  std::vector<int> cores_;
  double seconds_;
};

}  // namespace dsa::bench
