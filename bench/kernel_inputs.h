// Seeded inputs of kernel benchmarks, shared by all backends that are measured on one problem.
#pragma once
#include "attention/ops.h"
#include "bench/captured.h"
#include "bench/kernel_case.h"

#include <memory>
#include <optional>
#include <vector>

namespace dsa::bench {

/// Only the tensors the operation needs are defined.
struct InputSet {
  at::Tensor q, k, v, weight, scores, lse;
  ops::Selection selection;
  at::Tensor dout;  ///< upstream gradient of the output
};

struct Inputs {
  std::vector<InputSet> sets;           ///< repetitions rotate through them
  std::optional<SelectionFacts> facts;  ///< of captured selections, the first set's
  uint64_t hash() const;  ///< over all bytes: a kernel that writes to its inputs is caught
};

/// The last problem's inputs: the same for every backend and pass.
class InputCache {
 public:
  std::shared_ptr<const Inputs> get(const KernelCase& kernel, const KernelConfig& config);

 private:
  std::string key_;
  std::shared_ptr<const Inputs> inputs_;
  CapturedModel captured_;
};

/// Bytes of one set.
double bytes_of_set(const KernelCase& kernel);

}  // namespace dsa::bench
