// What a few seeds allow to say of a mean difference: Student's t, two one-sided tests, Holm's
// correction. Standard library only; knows nothing of records.
#pragma once
#include <vector>

namespace dsa::report {

inline constexpr double kAlpha = 0.05;  ///< of every test
inline constexpr int kSeedsNeeded = 3;  ///< fewer decide nothing

/// P(T <= t) of Student's t with `freedom` >= 1 degrees of freedom; exact for whole ones.
double student_cdf(double t, int freedom);
/// The t with student_cdf(t) = p, 0 < p < 1.
double student_quantile(double p, int freedom);

/// Of the finite samples; the others are counted in `missing`, never averaged.
struct Mean {
  int n = 0, missing = 0;
  double mean = 0,
         deviation = 0;  ///< NaN when n is 0; the deviation (n - 1 below) also when n is 1

  bool empty() const { return n == 0; }
  double error() const;  ///< standard error of the mean
  /// Half the two-sided 95 % interval; NaN when n < 2.
  double half_width() const;
};
Mean mean_of(const std::vector<double>& samples);

/// p of the two one-sided tests: small = the mean lies within ±margin. `slack` says how far the mean
/// may be off for other reasons than the seeds; it counts against the claim. 1 when n < 2.
double p_equivalent(const Mean& difference, double margin, double slack = 0);
/// p of the two-sided t test: small = the mean is not 0.
double p_different(const Mean& difference, double slack = 0);

/// Which of the hypotheses Holm's step-down procedure rejects at kAlpha for the whole family. NaN =
/// a test that was not made; it is none of the family.
std::vector<bool> holm(const std::vector<double>& ps);

}  // namespace dsa::report
