// Sparse-attention kernels as templates on the ISA; attend_<isa>.cpp instantiates each once.
#pragma once
#include "attention/cpu/attend_kernels.h"
#include "attention/cpu/simd_math.h"

namespace dsa::cpu {

template <class Isa>
void exp2_row(const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += Isa::kWidth) {
    const auto lanes = Isa::first(n - i);
    Isa::store(out + i, exp2<Isa>(Isa::load(x + i, lanes)), lanes);
  }
}

template <class Isa>
constexpr AttendKernels attend_kernels_of() {
  return {.exp2_row = exp2_row<Isa>};
}

}  // namespace dsa::cpu
