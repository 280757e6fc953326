// Slower on purpose: how a gate, and whoever doubts it, sees that a slowdown is found.
#pragma once
#include <chrono>

namespace dsa {

/// Calls f() and waits, computing, until `factor` times its time is over. 1 = nothing is added.
template <class F>
decltype(auto) slowed(double factor, F&& f) {
  using Clock = std::chrono::steady_clock;
  struct Wait {
    double factor;
    Clock::time_point start = Clock::now();
    ~Wait() {
      const auto until =
          start + std::chrono::duration_cast<Clock::duration>((Clock::now() - start) * factor);
      while (Clock::now() < until) {
      }
    }
  };
  if (factor <= 1) return f();
  const Wait wait{factor};
  return f();
}

}  // namespace dsa
