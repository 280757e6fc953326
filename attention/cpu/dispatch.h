// Which instruction set the `cpu` backend runs: the best one this machine has, or the one pinned
// by dsa::pin_isa (attention/backend.h). Asked once a call, never inside a loop.
#pragma once
#include "attention/cpu/kernels.h"

#include <span>

namespace dsa::cpu {

/// Every ISA compiled in, best last; isa_x86.cpp or isa_other.cpp, chosen by CMake.
std::span<const IsaRow> isa_rows();

/// The row in use now.
const IsaRow& isa_in_use();

}  // namespace dsa::cpu
