// Changes of level in simulated histories: what is found, what is invented, and what breaks nothing.
// With -s they print how many of their series: docs/history.md has the rates of more.
#include "reports/changes.h"

#include <catch2/catch_test_macros.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <vector>

using namespace dsa::report;

namespace {

constexpr int kSeries = 200;
constexpr size_t kPoints = 60;
constexpr double kNoise = 0.015;

/// Its own generator, so that every library draws the same series.
class Draw {
 public:
  explicit Draw(uint64_t seed) : state_(seed * 7919 + 1) {}
  double uniform() {
    state_ ^= state_ << 13, state_ ^= state_ >> 7, state_ ^= state_ << 17;
    return (static_cast<double>(state_ >> 11) + 0.5) / 9007199254740992.0;
  }
  double normal() {
    return std::sqrt(-2 * std::log(uniform())) * std::cos(2 * std::numbers::pi * uniform());
  }
  size_t below(size_t n) { return static_cast<size_t>(uniform() * static_cast<double>(n)); }

 private:
  uint64_t state_;
};

/// Noise of deviation kNoise whose neighbours have this correlation.
std::vector<double> noise(Draw& draw, double correlation, size_t points = kPoints) {
  std::vector<double> out;
  double value = draw.normal();
  for (size_t i = 0; i < points; ++i) {
    out.push_back(kNoise * value);
    value = correlation * value + std::sqrt(1 - correlation * correlation) * draw.normal();
  }
  return out;
}

struct Rates {
  int found = 0, exact = 0, more = 0, spikes_told = 0, spikes_seen = 0, alarms = 0, covered = 0;
};

bool near(size_t a, size_t b) {
  return a <= b + 2 && b <= a + 2;
}

/// A step of `size` at a random place with at least five points on both sides, and two spikes of +30 %.
Rates stepped(double size, double correlation) {
  Rates rates;
  for (int seed = 1; seed <= kSeries; ++seed) {
    Draw draw(static_cast<uint64_t>(seed));
    for (int i = 0; i < 20; ++i) draw.uniform();
    std::vector<double> values = noise(draw, correlation);
    const size_t step = 5 + draw.below(kPoints - 9);
    for (size_t i = step; i < kPoints; ++i) values[i] += size;
    const size_t first = draw.below(kPoints);
    const size_t second = (first + 1 + draw.below(kPoints - 1)) % kPoints;
    for (size_t spike : {first, second}) values[spike] += std::log(1.3);
    const Changes found = find_changes(values);
    bool hit = false;
    for (const Change& change : found.changes) {
      const bool is_step = near(change.after, step) && change.shift * size > 0;
      if (is_step && !hit) rates.exact += change.after == step;
      if (is_step && !hit) rates.covered += change.low <= size && size <= change.high;
      hit = hit || is_step;
      rates.more += !is_step;
      for (size_t spike : {first, second})
        rates.spikes_told += !is_step && near(change.after, spike);
    }
    rates.found += hit;
    rates.spikes_seen += found.set_aside[first] + found.set_aside[second];
  }
  return rates;
}

int alarms_without_a_step(double correlation, size_t points = kPoints) {
  int out = 0;
  for (int seed = 1; seed <= kSeries; ++seed) {
    Draw draw(static_cast<uint64_t>(1000 + seed));
    for (int i = 0; i < 20; ++i) draw.uniform();
    out += !find_changes(noise(draw, correlation, points)).changes.empty();
  }
  return out;
}

const double kNaN = std::numeric_limits<double>::quiet_NaN();

}  // namespace

TEST_CASE("a step of 6 % is found among noise and spikes, and spikes are not told",
          "[report][changes]") {
  const Rates rates = stepped(std::log(1.06), 0);
  CAPTURE(rates.found, rates.exact, rates.more, rates.spikes_told, rates.spikes_seen,
          rates.covered);
  CHECK(rates.found >= kSeries * 95 / 100);
  CHECK(rates.more <= kSeries * 5 / 100);
  CHECK(rates.spikes_told == 0);
  CHECK(rates.spikes_seen >= 2 * kSeries * 95 / 100);
  CHECK(rates.covered >= kSeries * 85 / 100);
}

TEST_CASE("an improvement is found as surely as a regression", "[report][changes]") {
  const Rates rates = stepped(-std::log(1.06), 0);
  CAPTURE(rates.found, rates.more, rates.spikes_told);
  CHECK(rates.found >= kSeries * 95 / 100);
  CHECK(rates.spikes_told == 0);
}

TEST_CASE("smaller and noisier steps are found as often as promised", "[report][changes]") {
  const Rates small = stepped(std::log(1.03), 0), correlated = stepped(std::log(1.06), 0.5);
  CAPTURE(small.found, small.more, correlated.found, correlated.more, correlated.spikes_told);
  CHECK(small.found >= kSeries * 60 / 100);
  CHECK(correlated.found >= kSeries * 60 / 100);
  CHECK(correlated.spikes_told == 0);
}

TEST_CASE("without a step there is hardly ever a change", "[report][changes]") {
  for (size_t points : {size_t{12}, kPoints, size_t{200}}) {
    const int alone = alarms_without_a_step(0, points);
    const int correlated = alarms_without_a_step(0.5, points);
    CAPTURE(points, alone, correlated);
    CHECK(alone <= kSeries * 5 / 100);
    CHECK(correlated <= kSeries * 10 / 100);
  }
}

TEST_CASE("several changes are found, and a pulse is two", "[report][changes]") {
  Draw draw(5);
  std::vector<double> values = noise(draw, 0, 90);
  for (size_t i = 30; i < 45; ++i) values[i] += 0.08;
  for (size_t i = 70; i < 90; ++i) values[i] -= 0.10;
  const Changes found = find_changes(values);
  REQUIRE(found.changes.size() == 3);
  CHECK(near(found.changes[0].after, 30));
  CHECK(near(found.changes[1].after, 45));
  CHECK(near(found.changes[2].after, 70));
  CHECK(found.changes[1].shift < 0);
}

TEST_CASE("a change below 2 % is not told, however sure", "[report][changes]") {
  std::vector<double> values;
  for (int i = 0; i < 60; ++i) values.push_back((i < 30 ? 0 : 0.015) + 0.0005 * (i % 3));
  CHECK(find_changes(values).changes.empty());
  for (size_t i = 30; i < 60; ++i) values[i] += 0.01;
  CHECK(find_changes(values).changes.size() == 1);
}

TEST_CASE("constant, short and empty series have no change", "[report][changes]") {
  CHECK(find_changes({}).changes.empty());
  CHECK(find_changes({0.1}).changes.empty());
  CHECK(find_changes({0.1, 0.5}).changes.empty());
  CHECK(find_changes({0.1, 0.5}).set_aside == std::vector<bool>{false, false});
  CHECK(find_changes(std::vector<double>(60, 0.25)).changes.empty());
  CHECK(find_changes(std::vector<double>(60, kNaN)).changes.empty());
  CHECK(find_changes({kNaN}).set_aside == std::vector<bool>{true});
}

TEST_CASE("a step without any noise is one change at its place", "[report][changes]") {
  std::vector<double> values(20, 0);
  for (size_t i = 9; i < 20; ++i) values[i] = 0.05;
  const Changes found = find_changes(values);
  REQUIRE(found.changes.size() == 1);
  CHECK(found.changes[0].before == 8);
  CHECK(found.changes[0].after == 9);
  CHECK(found.changes[0].shift == 0.05);
}

TEST_CASE("what was not measured leaves a gap that a change may lie in", "[report][changes]") {
  std::vector<double> values;
  Draw draw(9);
  for (double one : noise(draw, 0, 40)) values.push_back(one + (values.size() < 20 ? 0 : 0.1));
  values[19] = values[20] = kNaN, values[3] = std::numeric_limits<double>::infinity();
  const Changes found = find_changes(values);
  REQUIRE(found.changes.size() == 1);
  CHECK(found.changes[0].before == 18);
  CHECK(found.changes[0].after == 21);
  CHECK((found.set_aside[3] && found.set_aside[19] && found.set_aside[20]));
}

TEST_CASE("one spike is set aside, a new level is not", "[report][changes]") {
  std::vector<double> values = {0, 0.01, -0.01, 0.005, 0.3, 0, 0.01, -0.005, 0, 0.01};
  std::vector<bool> expected(10, false);
  expected[4] = true;
  CHECK(spikes(values) == expected);
  for (size_t i = 5; i < 10; ++i) values[i] += 0.3;
  CHECK(spikes(values) == std::vector<bool>(10, false));
}

TEST_CASE("the same series gives the same changes", "[report][changes]") {
  Draw draw(3);
  std::vector<double> values = noise(draw, 0);
  for (size_t i = 40; i < kPoints; ++i) values[i] += 0.06;
  const Changes first = find_changes(values), second = find_changes(values);
  REQUIRE(first.changes.size() == 1);
  REQUIRE(second.changes.size() == 1);
  CHECK(first.changes[0].low == second.changes[0].low);
  CHECK(first.changes[0].after == second.changes[0].after);
}
