// Differences between Google Benchmark 1.7, 1.8 and 1.9, in one place.
#pragma once
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

namespace dsa::bench {

/// Sets Google Benchmark's flags; returns those it does not know.
inline std::vector<std::string> set_google_flags(std::vector<std::string> flags) {
  // It keeps this pointer and prints it as "executable" when the run ends.
  static char program[] = "dsa-bench";
  std::vector<char*> argv = {program};
  for (auto& flag : flags) argv.push_back(flag.data());
  argv.push_back(nullptr);
  int argc = static_cast<int>(flags.size()) + 1;
  benchmark::Initialize(&argc, argv.data());
  return {argv.begin() + 1, argv.begin() + argc};
}

/// Turns the empty loop first: its statistics abort the process when a repetition that failed has
/// another iteration count than its siblings.
template <class State>
void fail(State& state, const std::string& reason) {
  if (state.iterations() == 0) {
    for (auto _ : state) benchmark::ClobberMemory();
  }
  state.SkipWithError(reason.c_str());
}

/// 1.8 knows "skipped" beside "failed"; 1.7 has errors only.
template <class State>
void skip(State& state, const std::string& reason) {
  if constexpr (requires { state.SkipWithMessage(reason); }) {
    if (state.iterations() == 0) {
      for (auto _ : state) benchmark::ClobberMemory();
    }
    state.SkipWithMessage(reason);
  } else {
    fail(state, reason);
  }
}

/// Of a row whose repetitions can end each in its own way. Google Benchmark takes what it computes from
/// the first repetition, and 1.7 crashes where that one has no time but later ones do: after one without,
/// none counts there. What we record of them does not change.
class Repetitions {
 public:
  template <class State>
  void skip(State& state, const std::string& reason) {
    lost_ = true;
    bench::skip(state, reason);
  }
  template <class State>
  void fail(State& state, const std::string& reason) {
    lost_ = true;
    bench::fail(state, reason);
  }
  template <class State>
  void timed(State& state) const {
    if (lost_) bench::skip(state, "an earlier repetition has no time");
  }

 private:
  bool lost_ = false;
};

template <class State>
constexpr bool min_time_has_unit(const State*) {
  return requires(State& state) { state.SkipWithMessage(std::string()); };
}

/// 1.7 takes a bare number of seconds, later versions want the unit.
inline std::string min_time_flag(double seconds) {
  constexpr bool unit = min_time_has_unit(static_cast<benchmark::State*>(nullptr));
  return "--benchmark_min_time=" + std::to_string(seconds) + (unit ? "s" : "");
}

}  // namespace dsa::bench
