// The distribution-free interval of a median, which every interval of ours is made of.
#pragma once

namespace dsa::record {

/// Largest k >= 1 with 2 P(Binomial(n, 1/2) < k) <= alpha: the k-th smallest and the k-th largest of n
/// samples bound the median at 1 - alpha. 0 where n samples cannot (n < 1 + log2(1 / alpha)).
int sign_test_rank(int n, double alpha);

/// Fewest samples for which sign_test_rank(n, alpha) is not 0.
int sign_test_samples(double alpha);

}  // namespace dsa::record
