// How a timed kernel becomes numbers of a record: the same for rows of a run and sides of a goal.
#pragma once
#include "bench/kernel_check.h"
#include "bench/session.h"

namespace dsa::bench {

/// "sparse_attention/pass:fwd/backend:cpu/L:8192/...".
std::string id_of(const KernelCase& kernel);
/// Those of every metric of the row (docs/records.md).
std::map<std::string, std::string> labels_of(const KernelCase& kernel);

/// Why its inputs are too large for --kernels.memory-budget, or empty.
std::string too_large(const KernelCase& kernel, const KernelConfig& config);

struct Repetition {
  int64_t iterations = 0;
  double seconds = 0, cpu_seconds = 0;  ///< of one call
};

/// A case whose results were checked, on inputs of `working_set` bytes in all.
struct Checked {
  KernelCase kernel;
  double working_set = 0;
  Verdict verdict;
  std::optional<SelectionFacts> facts;  ///< of captured inputs
  std::string note;                     ///< how the implementation ran it, or empty
};

/// How much of the machine's peak a call of `seconds` used; nothing if no peaks were measured.
std::optional<CeilingShare> share_of(const Session& session, const Checked& row, double seconds);

/// One line of samples.jsonl.
Sample sample_of(const Session& session, const Checked& row, int64_t place,
                 const Repetition& repetition);

/// Time, rates, share of the ceiling, error: everything but the memory.
void put_metrics(Session& session, const Checked& row, const std::vector<double>& seconds);

}  // namespace dsa::bench
