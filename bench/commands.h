// What the executable can do; main.cpp chooses.
#pragma once
#include "harness/config_cli.h"

namespace dsa::bench {

/// docs/bench.md explains them; those this version cannot give are left to later commands.
enum Exit {
  kFine = 0,
  kUserCanFix = 1,
  kInconclusive = 2,
  kBug = 3,
  kGateFailed = 4,
  kNothingSelected = 5,
  kGoalMissed = 6,
  kRegression = 6,
  kInterrupted = 130
};

/// Measures and trains what is selected. @param command  argv, shell-quoted
int run(const CommandLine& line, const std::string& command);

/// Measures what the goals of --goals need, both sides of each by turns, and says which are reached.
int goals(const CommandLine& line, const std::string& command);

/// Training steps of one variant, length and seed, as standard input asks; docs/training.md.
int steps(const CommandLine& line);

/// Trains the baseline and the variants asked for (candidates, if none) briefly at the shortest length,
/// and judges them by every audit.
int audit(const CommandLine& line, const std::string& command);

/// Compares two builds, round by round: docs/gate.md.
int gate(const CommandLine& line, const std::string& command);

/// Prints benchmarks, variants and backends, one line each.
int list(const CommandLine& line);

}  // namespace dsa::bench
