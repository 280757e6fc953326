// Loops that reach what one thread of this ISA can do at most: fused multiply-adds that never leave
// registers, and reads that do nothing else. attention/ceilings.cpp times them.
#pragma once
#include "attention/cpu/kernels.h"

namespace dsa::cpu {

struct PeakKernels {
  int64_t fma_flops;  ///< of one round of fma()
  void (*fma)(int64_t rounds, float* sink);
  float (*read)(const float* from, int64_t floats);  ///< the sum of all; floats: a multiple of 256
};

/// bfloat16 pairs multiplied and added into float32, where the ISA has an instruction for it.
struct Bf16Peak {
  int64_t dot_flops;  ///< of one round of dot()
  void (*dot)(int64_t rounds, float* sink);
};

extern const PeakKernels kPeakPortable;
extern const PeakKernels kPeakAvx2;
extern const PeakKernels kPeakAvx512;
extern const Bf16Peak kBf16PeakAvx512;
extern const Bf16Peak kBf16PeakAmx;

}  // namespace dsa::cpu
