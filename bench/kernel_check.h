// One call of a kernel benchmark, and whether its result is right: the float64 reference decides, on
// a slice of the queries when the problem is large. Tolerances live here and nowhere else.
#pragma once
#include "bench/kernel_inputs.h"

#include <optional>
#include <string>
#include <vector>

namespace dsa::bench {

/// Runs `kernel` once on the backend its name says; the results, gradients last.
/// `dout` replaces the set's upstream gradient if it is defined.
std::vector<at::Tensor> call(const KernelCase& kernel, const InputSet& set,
                             const at::Tensor& dout = at::Tensor());

struct Verdict {
  double error = 0;          ///< worst row |out - ref| / |ref|, Euclidean
  double wrong_members = 0;  ///< of selections
  std::optional<double> recall =
      std::nullopt;          ///< of a selection that need not be exact, against the reference
  std::string failure = {};  ///< one sentence, or empty
};

/// "  recall 0.98 against float64", or "".
std::string shown(const Verdict& verdict);

/// Calls the kernel first and the reference after it, so that stale memory cannot pass.
Verdict check(const KernelCase& kernel, const InputSet& set, int64_t checked_queries);

/// The forward half of check(): is `out` what `kernel` should have given?
Verdict verdict_on(const KernelCase& kernel, const InputSet& set,
                   const std::vector<at::Tensor>& out, int64_t checked_queries);

/// Takes over the worst of another check of the same kernel.
void worsen(Verdict& all, const Verdict& one);

/// Largest `error` allowed: what rounding explains, or what our kernels promise where that is less.
double tolerance(const KernelCase& kernel);

/// Worst row of |out - ref| / |ref| over the last dimension; rows smaller than `floor` times the
/// mean of those that are not zero count as that large. NaN where out has NaN, infinite where infinities differ.
/// No row counts as smaller than `least`.
double worst_row_error(const at::Tensor& out, const at::Tensor& ref, double floor = 0.01,
                       double least = 0);

/// Mean Euclidean size of the rows that are not zero.
double usual_row(const at::Tensor& ref);

/// Members of `ids` [1, T, K] that are not the K best of float64 `scores` [1, T, S], and the other
/// way round; scores within `slack` [1, T, S] of the threshold may fall either way.
double wrong_members(const at::Tensor& ids, const at::Tensor& scores, const at::Tensor& slack);

}  // namespace dsa::bench
