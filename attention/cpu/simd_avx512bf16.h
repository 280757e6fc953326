// AVX-512 with its bfloat16 instructions: Avx512 and one more multiply-add.
#pragma once
#include "attention/cpu/simd_avx512.h"

namespace dsa::cpu {

struct Avx512Bf16 : Avx512 {
  /// Lanes of a and b are pairs of bfloat16; their two products are added to the lane of sum.
  /// Denormal inputs and results count as 0 (the instruction's rule, whatever MXCSR says).
  static Reg add_pair_products(Reg sum, Reg a, Reg b) {
    // Not the intrinsic: clang 16 crashes when an operand of it is a broadcast float.
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
  }
};

}  // namespace dsa::cpu
