// CloseTo: per-row relative error against a float64 oracle. The tolerance comes from the dtype of the
// result and the number of terms a result sums, never from what happened to pass. Give seed and shape
// with CAPTURE: a failure then prints them, the worst coordinate and both values.
#pragma once
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <catch2/catch_tostring.hpp>
#include <catch2/matchers/catch_matchers_templated.hpp>

#include <algorithm>
#include <cmath>
#include <optional>
#include <sstream>
#include <string>

namespace Catch {
template <>
struct StringMaker<at::Tensor> {
  static std::string convert(const at::Tensor& x) {
    std::ostringstream s;
    s << x.scalar_type() << ' ' << x.sizes();
    return s.str();
  }
};
}  // namespace Catch

namespace dsa::testing {

/// Largest relative error of rounding once to `dtype`.
inline double unit_roundoff(c10::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble:
      return std::ldexp(1, -53);
    case at::kHalf:
      return std::ldexp(1, -11);
    case at::kBFloat16:
      return std::ldexp(1, -9);
    default:
      return std::ldexp(1, -24);
  }
}

/// Rounding errors of a sum of n terms grow like sqrt(n); 16 covers the few roundings of each term
/// (product, exponential, division). Low-precision kernels sum in float32, but round probabilities,
/// p (dp - delta), out and the result to their own dtype: 8 covers those and what they lose together.
inline double tolerance(c10::ScalarType dtype, int64_t terms) {
  const c10::ScalarType sum = dtype == at::kDouble ? at::kDouble : at::kFloat;
  const double low = dtype == sum ? 0 : 8 * unit_roundoff(dtype);
  return low + 16 * unit_roundoff(sum) * std::sqrt(static_cast<double>(terms));
}

class CloseTo : public Catch::Matchers::MatcherGenericBase {
 public:
  /// @param terms      how many products a value sums, e.g. D + K for attention
  /// @param cancelled  norm of the terms where they may cancel (gradients): the error of a row is
  ///                   then relative to at least this
  /// @param dtype      of the inputs, where the result's own is wider (lse of bfloat16)
  CloseTo(const at::Tensor& oracle, int64_t terms, double cancelled = 0,
          std::optional<c10::ScalarType> dtype = std::nullopt)
      : oracle_(oracle.to(at::kDouble)), terms_(terms), cancelled_(cancelled), dtype_(dtype) {}

  bool match(const at::Tensor& result) const {
    if (!result.defined() || result.sizes() != oracle_.sizes()) {
      found_ = "the shape is another";
      return false;
    }
    const at::Tensor got = result.to(at::kDouble);
    const at::Tensor exact = (got == oracle_).logical_or_(got.isnan().logical_and(oracle_.isnan()));
    // Infinities must match exactly; NaN - anything stays NaN and fails below.
    const at::Tensor difference = (got - oracle_).masked_fill_(exact, 0);
    const at::Tensor finite = oracle_.masked_fill(oracle_.isfinite().logical_not(), 0);
    const at::Tensor size = finite.norm(2, -1).clamp_min_(std::max(cancelled_, 1e-300));
    const at::Tensor error = difference.norm(2, -1).div_(size).reshape({-1});
    const at::Tensor ranked = error.nan_to_num(INFINITY, INFINITY, INFINITY);
    const double allowed = tolerance(dtype_.value_or(result.scalar_type()), terms_);
    const int64_t row = ranked.argmax().item<int64_t>();
    if (ranked[row].item<double>() <= allowed) return true;
    describe_worst(got, difference, row, error[row].item<double>(), allowed);
    return false;
  }

  std::string describe() const override { return "is close to the oracle: " + found_; }

 private:
  void describe_worst(const at::Tensor& got, const at::Tensor& difference, int64_t row,
                      double error, double allowed) const {
    const int64_t width = got.dim() ? got.size(-1) : 1;
    const at::Tensor in_row =
        difference.reshape({-1, width})[row].abs().nan_to_num(INFINITY, INFINITY, INFINITY);
    int64_t column = in_row.argmax().item<int64_t>();
    std::ostringstream s;
    s << "row error " << error << " > " << allowed << " (" << terms_ << " terms), worst at [";
    std::string coordinate = std::to_string(column);
    int64_t rest = row;
    for (int64_t d = got.dim() - 2; d >= 0; --d) {
      coordinate = std::to_string(rest % got.size(d)) + ", " + coordinate;
      rest /= got.size(d);
    }
    s << coordinate << "]: got " << got.reshape({-1, width})[row][column].item<double>()
      << ", oracle " << oracle_.reshape({-1, width})[row][column].item<double>();
    found_ = s.str();
  }

  at::Tensor oracle_;
  int64_t terms_;
  double cancelled_;
  std::optional<c10::ScalarType> dtype_;
  mutable std::string found_ = "yes";
};

}  // namespace dsa::testing
