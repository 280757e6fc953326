// The gate's statistics against published tables, and its plan step by step.
#include "harness/gate/plan.h"
#include "harness/gate/statistics.h"
#include "harness/record/sign_test.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

#include <cmath>
#include <limits>

using namespace dsa::gate;
using Catch::Matchers::WithinRel;

namespace {

constexpr double kNothing = std::numeric_limits<double>::quiet_NaN();

/// Every row takes a second, but those of an arm times its factor.
Times times_of(const Plan& plan, const Round& round, std::array<double, 4> factor) {
  Times times = plan.no_times();
  for (const Visit& visit : round.visits) {
    for (const Arm arm : visit.arms) {
      times[static_cast<size_t>(arm)][visit.row] = factor[static_cast<size_t>(arm)];
    }
  }
  return times;
}

/// Runs the plan to its end. Returns the rounds.
int finish(Plan& plan, std::array<double, 4> factor) {
  while (const auto round = plan.next()) plan.add(times_of(plan, *round, factor));
  return plan.rounds();
}

}  // namespace

TEST_CASE("ranks of the sign test are those of published tables", "[gate]") {
  // Conover, Practical Nonparametric Statistics, and the binomial tables it is made from.
  using dsa::record::sign_test_rank;
  struct Line {
    int n, at95, at99;
  };
  for (const Line& line :
       {Line{5, 0, 0}, Line{6, 1, 0}, Line{8, 1, 1}, Line{10, 2, 1}, Line{12, 3, 2}, Line{15, 4, 3},
        Line{20, 6, 4}, Line{25, 8, 6}, Line{30, 10, 8}, Line{40, 14, 12}, Line{50, 18, 16}}) {
    CAPTURE(line.n);
    CHECK(sign_test_rank(line.n, 0.05) == line.at95);
    CHECK(sign_test_rank(line.n, 0.01) == line.at99);
  }
  CHECK(dsa::record::sign_test_samples(0.05) == 6);
  CHECK(dsa::record::sign_test_samples(0.01) == 8);
  CHECK(dsa::record::sign_test_samples(0.01 / 20) == 12);
  CHECK(least_rounds(15, 0.01 / 20) == 15);
  CHECK(least_rounds(15, 0.01 / 1000) == 18);
}

TEST_CASE("a verdict needs both the interval and the effect", "[gate]") {
  const auto verdict = [](std::vector<double> x) {
    return judged(std::move(x), 0.01, 0.03).verdict;
  };
  const std::vector<double> slower(15, 0.05), faster(15, -0.05), equal(15, 0.001);
  CHECK(verdict(slower) == "regression");
  CHECK(verdict(faster) == "improvement");
  CHECK(verdict(equal) == "same");
  CHECK(verdict(std::vector<double>(15, 0.02)) == "same");  // above 0, but too small to matter
  CHECK(verdict(std::vector<double>(7, 0.05)) == "inconclusive");  // 7 rounds have no 99 % interval
  std::vector<double> mixed = slower;
  for (size_t i = 0; i < 3; ++i) mixed[i] = -0.01;  // the third smallest is below 0
  CHECK(verdict(mixed) == "inconclusive");
  CHECK(verdict({}) == "inconclusive");
  CHECK(judged({kNothing, 0.05}, 0.01, 0.03).rounds == 1);
  CHECK_THAT(judged(slower, 0.01, 0.03).ratio, WithinRel(std::exp(0.05), 1e-12));
}

TEST_CASE("an equal head is the same after the first look", "[gate]") {
  Plan plan({{"a", 0.03}, {"b", 0.02}}, {}, 1);
  CHECK(plan.rounds_to_look() == 15);
  CHECK(finish(plan, {1, 1, 1, 1.1}) == 15);
  CHECK(plan.judged_row(0).verdict == "same");
  CHECK(plan.armed(0));
  CHECK(plan.armed(1));
  CHECK(plan.rounds_to_look() == 0);
}

TEST_CASE("a slower head is confirmed by rounds of its own", "[gate]") {
  Plan plan({{"a", 0.03}}, {}, 1);
  CHECK(finish(plan, {1, 1.2, 1, 1.1}) == 30);
  const auto row = plan.judged_row(0);
  CHECK(row.verdict == "regression");
  CHECK(row.pairing.rounds == 15);
  CHECK(row.confirmation.rounds == 15);
  CHECK_THAT(row.confirmation.ratio, WithinRel(1.2, 1e-12));
}

TEST_CASE("a regression that later rounds deny is none", "[gate]") {
  Plan plan({{"a", 0.03}}, {}, 1);
  while (const auto round = plan.next()) {
    const double head = plan.rounds() < 15 ? 1.2 : 1.0;
    plan.add(times_of(plan, *round, {1, head, 1, 1.1}));
  }
  const auto row = plan.judged_row(0);
  CHECK(row.pairing.verdict == "regression");
  CHECK(row.verdict == "same");
  CHECK(row.reason.find("does not confirm") != std::string::npos);
}

TEST_CASE("a slowdown nobody sees disarms the row", "[gate]") {
  Plan plan({{"a", 0.03}}, {}, 1);
  CHECK(finish(plan, {1, 1, 1, 1}) == 15);  // the slowed base is "same": answered, and wrong
  CHECK_FALSE(plan.armed(0));
  Plan biased({{"a", 0.03}}, {}, 1);
  finish(biased, {1, 1, 1.05, 1.1});
  CHECK_FALSE(biased.armed(0));
}

TEST_CASE("without a certificate only base and head run", "[gate]") {
  Rules rules;
  rules.certificate = false;
  Plan plan({{"a", 0.03}}, rules, 1);
  const auto round = plan.next();
  REQUIRE(round);
  CHECK(round->visits.at(0).arms.size() == 2);
  finish(plan, {1, 1, 1, 1});
  CHECK(plan.armed(0));
}

TEST_CASE("rows that are decided or excluded are not timed again", "[gate]") {
  Plan plan({{"steady", 0.03}, {"noisy", 0.03}, {"crashed", 0.03}}, {}, 1);
  plan.exclude(2, Arm::kHead);
  bool up = false;
  while (const auto round = plan.next()) {
    for (const Visit& visit : round->visits) {
      CHECK(visit.row != 2);
      if (plan.rounds() >= 15) CHECK(visit.row == 1);
    }
    Times times = times_of(plan, *round, {1, 1, 1, 1.1});
    up = !up;
    times[1][1] = up ? 1.3 : 0.8;  // never conclusive
    plan.add(times);
  }
  CHECK(plan.rounds() == 60);
  CHECK(plan.judged_row(0).verdict == "same");
  CHECK(plan.judged_row(1).verdict == "inconclusive");
  CHECK(plan.judged_row(2).verdict.empty());
}

TEST_CASE("a certificate that cannot be had leaves the comparison with head", "[gate]") {
  Plan plan({{"a", 0.03}}, {}, 1);
  plan.add(times_of(plan, *plan.next(), {1, 1, 1, 1.1}));
  plan.exclude(0, Arm::kCopy);
  const auto second = plan.next();
  for (const Arm arm : second->visits.at(0).arms) CHECK(arm != Arm::kCopy);
  CHECK(finish(plan, {1, 1, 1, 1.1}) == 15);
  CHECK(plan.judged_row(0).verdict == "same");
  CHECK_FALSE(plan.armed(0));
}

TEST_CASE("orders are random and come again after a resume", "[gate]") {
  const auto orders = [](uint64_t seed) {
    Plan plan({{"a", 0.03}}, {}, seed);
    std::vector<uint64_t> all;
    for (int i = 0; i < 12; ++i) {
      const auto round = plan.next();
      all.push_back(round->visits.at(0).seed);
      plan.add(times_of(plan, *round, {1, 1, 1, 1.1}));
    }
    return all;
  };
  CHECK(orders(1) == orders(1));
  CHECK(orders(1) != orders(2));
  CHECK(orders(1).front() != orders(1).back());
}

TEST_CASE("a round that failed to time an arm does not count for it", "[gate]") {
  Plan plan({{"a", 0.03}}, {}, 1);
  for (int i = 0; i < 15; ++i) {
    Times times = times_of(plan, *plan.next(), {1, 1, 1, 1.1});
    if (i == 3) times[1][0] = kNothing;
    plan.add(times);
  }
  CHECK(plan.rounds_to_look() == 1);
  CHECK(plan.judged_row(0).pairing.rounds == 14);
}
