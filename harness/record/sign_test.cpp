#include "harness/record/sign_test.h"

#include <cmath>

namespace dsa::record {

int sign_test_rank(int n, double alpha) {
  // Term by term in logarithms: 2^-n underflows for a long list of step times.
  double tail = 0;
  int rank = 0;
  for (int i = 0; i < n / 2; ++i) {
    tail += std::exp(std::lgamma(n + 1.0) - std::lgamma(i + 1.0) - std::lgamma(n - i + 1.0) -
                     n * std::log(2.0));
    if (2 * tail > alpha) break;
    rank = i + 1;
  }
  return rank;
}

int sign_test_samples(double alpha) {
  int n = 2;
  while (sign_test_rank(n, alpha) == 0) ++n;
  return n;
}

}  // namespace dsa::record
