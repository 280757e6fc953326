// One gate from its first process to its verdict.
#pragma once
#include "bench/gate_checks.h"
#include "bench/gate_round.h"
#include "harness/config_cli.h"
#include "harness/progress.h"

namespace dsa::bench {

class GateSession {
 public:
  /// Continues the gate in config.resume, or begins one below config.out.
  GateSession(const RunConfig& config, const std::string& command);

  record::GateVerdict run();  ///< everything; files are written as it goes on
  /// What ended run() with an exception, for verdict.json.
  void fail(const std::string& sentence, int exit_code);
  const std::filesystem::path& folder() const { return folder_; }

 private:
  void resume();   ///< refuses what would be mixed with the rounds there are
  void prepare();  ///< lists rows, runs both binaries once with every check
  RunFacts checked(Binary& binary, const std::vector<std::string>& rows);
  void judge_untimed();  ///< missing, new, failed, same-build, crashed rows, and all checks
  void choose_timed();
  void play();  ///< rounds until all is answered or the budget is spent
  void start_race();
  void take(const PlayedRound& round);
  void conclude();
  void judge(record::GateRow& row, size_t timed) const;
  std::string advice() const;
  void clean_up();
  void write();

  RunConfig config_;
  Binary base_, head_;
  std::filesystem::path folder_;
  ArmRunner runner_;
  bool same_build_ = false;
  Progress progress_;
  record::GateVerdict verdict_;
  std::vector<RowPair> pairs_;
  RunFacts base_facts_, head_facts_;
  std::map<std::string, std::string> settings_there_;  ///< as the checks recorded them, by arm
  std::vector<size_t> timed_;                          ///< places in verdict_.rows
  std::optional<gate::Plan> plan_;
  std::unique_ptr<GateLog> log_;
  std::optional<Race> race_;
  double round_seconds_ = 0;  ///< of the last round
  bool may_write_ = true;     ///< false until what is resumed is known to belong to this gate
};

/// Has a number without a clock got worse?
bool has_worse(const record::GateRow& row);
/// The line of a row in the terminal's table.
std::string shown(const record::GateRow& row);
/// "1 regression, 2 inconclusive, 9 same", and the exit code of it (measuring.md, section 4).
std::pair<std::string, int> summary_of(const record::GateVerdict& verdict,
                                       const std::string& inconclusive);

}  // namespace dsa::bench
