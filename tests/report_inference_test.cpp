// Student's t against published tables, the two one-sided tests against worked numbers and against
// thousands of simulated experiments, Holm against his example.
#include "reports/inference.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>

#include <cmath>
#include <random>

using namespace dsa::report;
using Catch::Approx;

TEST_CASE("quantiles of Student's t are those of the tables", "[report]") {
  // Upper 5 % and 2.5 % points: NIST/SEMATECH e-Handbook of Statistical Methods, section 1.3.6.7.2.
  const struct {
    int freedom;
    double five, two_and_a_half;
  } table[] = {{1, 6.314, 12.706}, {2, 2.920, 4.303},  {3, 2.353, 3.182},  {4, 2.132, 2.776},
               {5, 2.015, 2.571},  {9, 1.833, 2.262},  {10, 1.812, 2.228}, {19, 1.729, 2.093},
               {30, 1.697, 2.042}, {100, 1.660, 1.984}};
  for (const auto& row : table) {
    CAPTURE(row.freedom);
    CHECK(student_quantile(0.95, row.freedom) == Approx(row.five).margin(6e-4));
    CHECK(student_quantile(0.975, row.freedom) == Approx(row.two_and_a_half).margin(6e-4));
    CHECK(student_quantile(0.05, row.freedom) == Approx(-row.five).margin(6e-4));
    CHECK(student_cdf(student_quantile(0.3, row.freedom), row.freedom) == Approx(0.3));
  }
  CHECK(student_cdf(0, 7) == 0.5);
  CHECK(student_cdf(1, 1) == Approx(0.75));  // Cauchy
  CHECK(student_cdf(std::sqrt(2.0), 2) == Approx(0.5 + std::sqrt(2.0) / 4));
}

TEST_CASE("mean and interval of a few samples, the others counted", "[report]") {
  // Two-sided 95 % with n = 5: 2.776 s / sqrt(5); s of 1..5 is sqrt(2.5).
  const Mean m = mean_of({1, 2, NAN, 3, 4, INFINITY, 5});
  CHECK(m.n == 5);
  CHECK(m.missing == 2);
  CHECK(m.mean == Approx(3));
  CHECK(m.deviation == Approx(std::sqrt(2.5)));
  CHECK(m.half_width() == Approx(2.7764 * std::sqrt(2.5) / std::sqrt(5)).epsilon(1e-4));
  CHECK(std::isnan(mean_of({1}).half_width()));
  CHECK(std::isnan(mean_of({NAN}).mean));
}

TEST_CASE("the paired t test gives the published p of Student's sleep data", "[report]") {
  // Student (1908): mean 1.58, t = 4.0621 with 9 degrees of freedom, p = 0.00283 (R, sleep).
  const Mean gain = mean_of({1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4});
  CHECK(gain.mean == Approx(1.58));
  CHECK(gain.mean / gain.error() == Approx(4.0621).epsilon(1e-4));
  CHECK(p_different(gain) == Approx(0.00283289).epsilon(1e-4));
  CHECK(gain.mean - gain.half_width() == Approx(0.7001142).epsilon(1e-5));
  CHECK(gain.mean + gain.half_width() == Approx(2.4598858).epsilon(1e-5));
}

TEST_CASE("two one-sided tests say the same as a 90 % interval inside the margin", "[report]") {
  const Mean d{5, 0, 0.004, 0.01};
  const double half = student_quantile(0.95, 4) * d.error();
  CHECK(p_equivalent(d, d.mean + half + 1e-9) < kAlpha);
  CHECK(p_equivalent(d, d.mean + half - 1e-9) > kAlpha);
  SECTION("what the mean may be off by counts against either claim") {
    CHECK(p_equivalent(d, 0.03, 0.005) == Approx(p_equivalent(d, 0.025)));
    CHECK(p_different(d, 0.004) == 1);
    CHECK(p_different(d, 0.002) > p_different(d));
  }
  SECTION("without spread the mean decides alone") {
    CHECK(p_equivalent({3, 0, 0.01, 0}, 0.02) == 0);
    CHECK(p_equivalent({3, 0, 0.02, 0}, 0.02) == 1);
    CHECK(p_different({3, 0, 0.01, 0}) == 0);
    CHECK(p_different({3, 0, 0, 0}) == 1);
  }
  CHECK(p_equivalent({1, 0, 0, NAN}, 0.02) == 1);
}

/// Share of simulated experiments of n seeds that are declared equivalent within 0.02.
static double declared_equivalent(int n, double difference, double spread) {
  std::mt19937_64 random(12345);
  std::normal_distribution<double> seeds(difference, spread);
  constexpr int kTrials = 20000;
  int declared = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<double> samples;
    for (int i = 0; i < n; ++i) samples.push_back(seeds(random));
    declared += p_equivalent(mean_of(samples), 0.02) <= kAlpha;
  }
  return declared / static_cast<double>(kTrials);
}

TEST_CASE("a difference of exactly the margin is called equivalent in at most 5 %", "[report]") {
  // 20 000 trials: the share of 5 % has a standard error of 0.15 %, so 5.6 % is four of them.
  for (const int n : {3, 5}) {
    for (const double spread : {0.001, 0.005, 0.02}) {
      for (const double sign : {-1.0, 1.0}) {
        CAPTURE(n, spread, sign);
        CHECK(declared_equivalent(n, sign * 0.02, spread) < 0.056);
      }
    }
    CAPTURE(n);
    // With a small spread only one of the two sides can fail, and the test is exact.
    CHECK(declared_equivalent(n, 0.02, 0.001) > 0.044);
  }
}

TEST_CASE("no difference and a small spread is called equivalent nearly always", "[report]") {
  CHECK(declared_equivalent(3, 0, 0.004) > 0.95);
  CHECK(declared_equivalent(5, 0, 0.006) > 0.99);
  CHECK(declared_equivalent(3, 0, 0.02) < 0.5);  // a large one decides nothing
}

TEST_CASE("Holm rejects from the smallest p on until the first that is too large", "[report]") {
  // Three tests: 0.05/3, 0.05/2, 0.05.
  CHECK(holm({0.04, 0.01, 0.03}) == std::vector<bool>{false, true, false});
  CHECK(holm({0.04, 0.01, 0.02}) == std::vector<bool>{true, true, true});
  CHECK(holm({0.02, 0.02, 0.02}) == std::vector<bool>{false, false, false});
  CHECK(holm({0.04}) == std::vector<bool>{true});
  CHECK(holm({NAN, 0.04}) == std::vector<bool>{false, true});
  CHECK(holm({}).empty());
}
