// Intervals and crossovers on numbers worked out by hand.
#include "reports/statistics.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>

#include <cmath>
#include <limits>

using namespace dsa::report;
using Catch::Approx;

static const double kNaN = std::numeric_limits<double>::quiet_NaN();

static std::vector<double> count_to(int n) {
  std::vector<double> out;
  for (int i = n; i >= 1; --i) out.push_back(i);  // unsorted on purpose
  return out;
}

TEST_CASE("the median's sign-test interval takes the ranks of the binomial table", "[report]") {
  // Ranks of the 95 % interval for n = 6, 9, 10, 15, 20, 50: 1, 2, 2, 4, 6, 18 (Conover, table A3).
  const std::pair<int, int> table[] = {{6, 1}, {9, 2}, {10, 2}, {15, 4}, {20, 6}, {50, 18}};
  for (const auto& [n, rank] : table) {
    CAPTURE(n);
    const Summary s = summarise(count_to(n));
    CHECK(s.sign_test);
    CHECK(s.median == (n + 1) / 2.0);
    CHECK(s.low == rank);
    CHECK(s.high == n + 1 - rank);
  }
}

TEST_CASE("below six samples the interval is the range and says so", "[report]") {
  const Summary s = summarise({3, 1, 2, 5, 4});
  CHECK_FALSE(s.sign_test);
  CHECK(s.low == 1);
  CHECK(s.high == 5);
  CHECK(s.median == 3);
}

TEST_CASE("samples that are not finite are counted, never averaged", "[report]") {
  const Summary s = summarise({1, kNaN, 3, INFINITY, -INFINITY});
  CHECK(s.n == 2);
  CHECK(s.missing == 3);
  CHECK(s.median == 2);
  CHECK(summarise({kNaN}).empty());
  CHECK(std::isnan(summarise({}).median));
}

TEST_CASE("a long list of samples keeps a finite interval around its median", "[report]") {
  const Summary s = summarise(count_to(5000));
  CHECK(s.sign_test);
  CHECK(s.low > 2400);
  CHECK(s.high < 2600);
}

TEST_CASE("the median of two huge samples does not overflow", "[report]") {
  const double huge = std::numeric_limits<double>::max();
  CHECK(summarise({huge, huge}).median == huge);
}

TEST_CASE("pairing by seed cancels what the seeds share", "[report]") {
  const Summary gain = paired_ratio({20, 40, 60}, {10, 20, 30});
  CHECK(gain.low == 2);
  CHECK(gain.high == 2);
  SECTION("lists of different length fall back to the worst case") {
    const Summary loose = paired_ratio({20, 40}, {10, 20, 30});
    CHECK(loose.low == Approx(20.0 / 30));
    CHECK(loose.n == 2);
  }
  SECTION("a seed that failed drops its pair only") {
    const Summary two = paired_ratio({2, kNaN, 6}, {1, 1, 3});
    CHECK(two.n == 2);
    CHECK(two.missing == 1);
    CHECK(two.median == 2);
  }
}

TEST_CASE("a reading needs two samples and an interval on one side of the band", "[report]") {
  CHECK(read(summarise({2.0}), 1, 0.02) == Side::kOpen);
  CHECK(read(summarise({1.5, 2.0}), 1, 0.02) == Side::kAbove);
  CHECK(read(summarise({0.5, 0.9}), 1, 0.02) == Side::kBelow);
  CHECK(read(summarise({0.99, 1.01}), 1, 0.02) == Side::kInside);
  CHECK(read(summarise({0.99, 1.3}), 1, 0.02) == Side::kOpen);
}

static RatioAt at(double x, double median, double spread = 0.01) {
  return {x, summarise({median * (1 - spread), median, median * (1 + spread)})};
}

TEST_CASE("the crossover is where the log-log line meets 1", "[report]") {
  // From 1/2 at 1024 to 2 at 4096: slope 1 in log-log, so 1 at 2048.
  const Crossover c = crossover({at(4096, 2), at(1024, 0.5)});
  REQUIRE(c.kind == Crossover::Kind::kRises);
  CHECK(c.at == Approx(2048));
  REQUIRE(c.low);
  REQUIRE(c.high);
  CHECK(*c.low < c.at);
  CHECK(*c.high > c.at);
  CHECK(*c.low == Approx(2048 / 1.01).epsilon(1e-3));
}

TEST_CASE("a crossover bound outside what was measured is left open", "[report]") {
  const Crossover c = crossover({at(1024, 0.9, 0.3), at(2048, 1.1, 0.3), at(4096, 1.2, 0.05)});
  REQUIRE(c.kind == Crossover::Kind::kRises);
  CHECK_FALSE(c.low);  // the optimistic curve is above 1 from the start
  CHECK(c.high);
}

TEST_CASE("a crossover counts only if the candidate stays ahead", "[report]") {
  CHECK(crossover({at(1, 0.5), at(2, 2), at(4, 0.5)}).kind == Crossover::Kind::kFallsBack);
  CHECK(crossover({at(1, 0.5), at(2, 2), at(4, 0.5), at(8, 3)}).at > 4);
  CHECK(crossover({at(1, 2), at(2, 3)}).kind == Crossover::Kind::kAlwaysAbove);
  CHECK(crossover({at(1, 0.2), at(2, 0.3)}).kind == Crossover::Kind::kAlwaysBelow);
  CHECK(crossover({at(1, 1.01), at(2, 0.99)}).kind == Crossover::Kind::kEven);
  CHECK(crossover({}).kind == Crossover::Kind::kNoData);
  CHECK(crossover({{1024, summarise({kNaN})}}).kind == Crossover::Kind::kNoData);
}

TEST_CASE("always ahead is clear only if no interval touches the band", "[report]") {
  CHECK(crossover({at(1, 2), at(2, 3)}).clear);
  CHECK_FALSE(crossover({at(1, 1.02), at(2, 3)}).clear);
}
