// One process of the gate: pinned, watched, its output kept.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace dsa::bench {

struct ProcessOptions {
  std::vector<int> cores;          ///< empty: as this process
  double seconds = 600;            ///< after which it is killed
  std::filesystem::path out, err;  ///< receive its output
};

struct Ended {
  int code = -1;         ///< of exit(), or -1
  int signal = 0;        ///< that ended it
  bool hung = false;     ///< killed by us after options.seconds
  bool stopped = false;  ///< killed by us, or never begun, because a stop was asked for
  int turns = 0;         ///< it has had
  std::string words;     ///< the last lines of its stderr, in one

  bool crashed() const { return signal != 0 || hung || code > 5; }
  std::string shown() const;  ///< "ended by signal 11 (Segmentation fault): ..."
};

/// Runs argv[0] and waits. @throws Error if it cannot be started.
Ended run_process(const std::vector<std::string>& argv, const ProcessOptions& options);

struct Command {
  std::vector<std::string> argv;  ///< gets "--turns=SOCKET" at its end
  ProcessOptions options;         ///< `seconds` are of its own turns, all together
};

/// Runs all of them at once, but one at a time: each goes on until it awaits its next turn
/// (harness/turns.h) or ends. Every one left has one turn, then again, each time in another random
/// order, for a fixed one would give some always more time asleep, or always the same neighbour.
/// @throws Error if one cannot be started.
std::vector<Ended> run_in_turns(const std::vector<Command>& commands, uint64_t seed);

/// "0,2-4" as {0, 2, 3, 4}. "" stands for as many usable CPUs as `threads`, each of another core, the
/// highest numbers (interrupts prefer the lowest); empty if there are fewer cores than threads, or
/// `threads` is 0. @throws Error for what is no list or not usable.
std::vector<int> cores_of(const std::string& text, int64_t threads);

}  // namespace dsa::bench
