// How much memory a kernel call takes beyond what was there: scratch, and the peak of the process.
#pragma once
#include "attention/cpu/scratch.h"
#include "harness/memory.h"

#include <catch2/catch_test_macros.hpp>

#include <utility>

namespace dsa::test {

/// By how many bytes `work` makes the scratch of all threads grow, that of the calling thread from
/// nothing, and how far resident memory rises meanwhile.
template <class Work>
std::pair<double, double> memory_of(const Work& work) {
  cpu::release_scratch();
  const int64_t before = cpu::scratch_live_bytes();
  const auto peak = peak_bytes(work);
  if (!peak) SKIP("this system does not tell the peak of resident memory");
  return {static_cast<double>(cpu::scratch_live_bytes() - before), *peak};
}

/// Beyond packed inputs a thread may hold this much (docs/kernels.md).
inline constexpr double kPerThread = 4 << 20;
/// Pages of malloc and of the threads' stacks, which no test tells apart from a kernel's.
inline constexpr double kUnseen = 2 << 20;

}  // namespace dsa::test
