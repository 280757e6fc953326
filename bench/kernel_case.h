// One kernel benchmark as data: which operation, which pass, on which backend, on what problem.
#pragma once
#include "attention/cost.h"
#include "attention/yardstick.h"
#include "harness/run_config.h"

#include <map>
#include <string>
#include <vector>

namespace dsa::bench {

struct KernelCase {
  Op op = Op::kDense;
  Pass pass = Pass::kForward;
  std::string backend;                   ///< or the yardstick's name
  const Yardstick* yardstick = nullptr;  ///< set: torch is called, no row of the backend table
  int64_t gemm = 0;                      ///< N of a matrix product; `op` means nothing then
  Problem problem;                       ///< batch 1, keys = L, queries = L or the last T of them
  std::string scores;  ///< distribution of the index scores; empty for families without a selection

  bool backward() const { return pass == Pass::kForwardBackward; }
  bool selects() const {  ///< the result is a set of keys
    return gemm == 0 && (op == Op::kSelectTopK || op == Op::kIndexerSelect);
  }
  std::string family() const { return gemm > 0 ? kGemmFamily : name(op); }
  Cost work() const;  ///< of one call
};

/// Axes in the fixed order of names: ("pass", "fwd"), ("backend", "cpu"), ("L", "8192"), ...
using Axes = std::vector<std::pair<std::string, std::string>>;
Axes axes(const KernelCase& kernel);

/// Every case of the configuration whose backend provides the operation, ordered so that cases on the
/// same inputs follow each other.
std::vector<KernelCase> kernel_cases(const KernelConfig& config,
                                     const std::vector<int64_t>& lengths);

/// Why the case cannot run, or empty.
std::string reason_to_decline(const KernelCase& kernel);

/// What the implementation says of how it ran the case, in this thread and just now, or empty.
std::string note_of(const KernelCase& kernel);

/// Keys before the first query: 0 unless only the last T of L tokens ask.
inline int64_t keys_before(const KernelCase& kernel) {
  return kernel.problem.keys - kernel.problem.queries;
}

bool has_attention(Op op);  ///< H, G, D, V are axes
bool has_indexer(Op op);    ///< I, J are axes
bool has_selection(Op op);  ///< K and scores are axes

const char* dtype_name(c10::ScalarType dtype);  ///< f32 | bf16 | f64

}  // namespace dsa::bench
