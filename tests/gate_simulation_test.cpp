// The gate's plan on made-up times: how often noise becomes a regression, and how often a real one is
// found, on a machine that drifts.
#include "harness/gate/plan.h"
#include "harness/gate/statistics.h"

#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <cmath>
#include <random>

using namespace dsa::gate;

namespace {

/// Noise of 2 % of each measurement, 5 % linear drift over 15 rounds of four arms of every row, and an
/// AR(1) process from process to process, of coefficient 0.8 and standard deviation 2 %.
class Machine {
 public:
  Machine(uint64_t seed, size_t rows)
      : generator_(seed), step_(0.05 / 60 / static_cast<double>(rows)) {}

  void start_process() {
    state_ = 0.8 * state_ + 0.02 * std::sqrt(1 - 0.8 * 0.8) * normal_(generator_);
    drift_ += step_;
  }
  double seconds(double truth) {
    return truth * std::exp(state_ + drift_ + 0.02 * normal_(generator_));
  }

 private:
  std::mt19937_64 generator_;
  double step_;
  std::normal_distribution<double> normal_;
  double state_ = 0, drift_ = 0;
};

struct Trial {
  std::vector<dsa::record::GateRow> rows;
  int rounds = 0;
  bool armed = true;
};

Trial run_trial(uint64_t seed, size_t rows, double slower, const Rules& rules) {
  std::vector<TimedRow> timed(rows);
  for (size_t i = 0; i < rows; ++i) timed[i].id = "row" + std::to_string(i);
  Plan plan(timed, rules, seed);
  Machine machine(seed * 7919 + 1, rows);
  const std::array<double, kArmNames.size()> factor = {1, slower, 1, 1.1};
  while (const auto round = plan.next()) {
    Times times = plan.no_times();
    for (const Visit& visit : round->visits) {
      for (const Arm one : visit.arms) {
        machine.start_process();
        const auto arm = static_cast<size_t>(one);
        times[arm][visit.row] = machine.seconds(factor[arm]);
      }
    }
    plan.add(times);
  }
  Trial trial;
  trial.rounds = plan.rounds();
  for (size_t i = 0; i < rows; ++i) {
    trial.rows.push_back(plan.judged_row(i));
    trial.armed = trial.armed && plan.armed(i);
  }
  return trial;
}

constexpr int kTrials = 400;

/// Share of trials in which some row has the verdict; and the median of the rounds they took.
std::pair<double, int> share_with(const char* verdict, size_t rows, double slower,
                                  const Rules& rules) {
  int hits = 0;
  std::vector<int> rounds;
  for (uint64_t trial = 0; trial < kTrials; ++trial) {
    const Trial result = run_trial(trial + 1, rows, slower, rules);
    hits += std::any_of(result.rows.begin(), result.rows.end(),
                        [&](const auto& row) { return row.verdict == verdict; });
    rounds.push_back(result.rounds);
  }
  std::sort(rounds.begin(), rounds.end());
  return {static_cast<double>(hits) / kTrials, rounds[rounds.size() / 2]};
}

}  // namespace

TEST_CASE("noise and drift are no regression", "[gate]") {
  for (const size_t rows : {1, 20}) {
    const auto [share, rounds] = share_with("regression", rows, 1.0, {});
    CAPTURE(rows, share, rounds);
    CHECK(share <= 0.01);
  }
}

TEST_CASE("a row that is 5 % slower is found in 15 rounds a batch", "[gate]") {
  Rules rules;
  rules.most_rounds = 15;
  const auto [share, rounds] = share_with("regression", 1, 1.05, rules);
  CAPTURE(share, rounds);
  CHECK(share >= 0.90);
}

TEST_CASE("a row that is 10 % slower is found among twenty", "[gate]") {
  const auto [share, rounds] = share_with("regression", 20, 1.10, {});
  CAPTURE(share, rounds);
  CHECK(share >= 0.99);
}

TEST_CASE("the certificate holds on a machine that drifts", "[gate]") {
  int armed = 0;
  for (uint64_t trial = 0; trial < 100; ++trial) armed += run_trial(trial + 1, 20, 1, {}).armed;
  CHECK(armed >= 85);
}

TEST_CASE("unequal speed is never called the same", "[gate]") {
  const auto [share, rounds] = share_with("same", 1, 1.05, {});
  CAPTURE(share, rounds);
  CHECK(share <= 0.01);
}
