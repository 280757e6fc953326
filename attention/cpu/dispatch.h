// Which instruction set the `cpu` backend runs: the best one this machine has, or the one pinned
// by dsa::pin_isa (attention/backend.h). Asked once a call, never inside a loop.
#pragma once
#include "attention/cpu/kernels.h"

#include <cstdint>
#include <span>

namespace dsa::cpu {

/// Every ISA compiled in, best last; isa_x86.cpp or isa_other.cpp, chosen by CMake.
std::span<const IsaRow> isa_rows();

/// How a thread rounds, and what it does with denormals, as the processor keeps it.
struct FloatMode {
  uint64_t words[2];
};
/// Makes this thread round to nearest and keep denormals; returns what it did before. Beside
/// isa_rows(). Of x86 MXCSR alone: fesetenv also loads x87 state, which took 2 % of a small call.
FloatMode use_exact_floats();
void restore_floats(const FloatMode& before);

/// The row in use now.
const IsaRow& isa_in_use();

}  // namespace dsa::cpu
