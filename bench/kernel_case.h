// One kernel benchmark as data: which operation, which pass, on which backend, on what problem.
#pragma once
#include "attention/cost.h"
#include "harness/run_config.h"

#include <map>
#include <string>
#include <vector>

namespace dsa::bench {

struct KernelCase {
  Op op = Op::kDense;
  Pass pass = Pass::kForward;
  std::string backend;
  Problem problem;     ///< batch 1, queries = keys = L
  std::string scores;  ///< distribution of the index scores; empty for families without a selection

  bool backward() const { return pass == Pass::kForwardBackward; }
};

/// Axes in the fixed order of names: ("pass", "fwd"), ("backend", "cpu"), ("L", "8192"), ...
using Axes = std::vector<std::pair<std::string, std::string>>;
Axes axes(const KernelCase& kernel);

/// Every case of the configuration whose backend provides the operation, ordered so that cases on the
/// same inputs follow each other.
std::vector<KernelCase> kernel_cases(const KernelConfig& config,
                                     const std::vector<int64_t>& lengths);

bool has_attention(Op op);  ///< H, G, D, V are axes
bool has_indexer(Op op);    ///< I, J are axes
bool has_selection(Op op);  ///< K and scores are axes

const char* dtype_name(c10::ScalarType dtype);  ///< f32 | bf16 | f64

}  // namespace dsa::bench
