// The bfloat16 dot-product instruction of AVX-512 at its peak; compiled with its own flag.
#include "attention/cpu/peak_kernels.h"

#include <immintrin.h>

namespace dsa::cpu {
namespace {

constexpr int kChains = 12, kSteps = 16;

void dot(int64_t rounds, float* sink) {
  // Zeros times zeros: the unit's time does not depend on values.
  const __m512bh pairs = reinterpret_cast<__m512bh>(_mm512_setzero_si512());
  __m512 chain[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) chain[i] = _mm512_set1_ps(static_cast<float>(i));
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
      for (int i = 0; i < kChains; ++i) {
        chain[i] = _mm512_dpbf16_ps(chain[i], pairs, pairs);
        asm volatile("" : "+v"(chain[i]));  // or the compiler may prove that nothing changes
      }
    }
  }
  __m512 sum = _mm512_setzero_ps();
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sum = _mm512_add_ps(sum, chain[i]);
  *sink = _mm512_reduce_add_ps(sum);
}

}  // namespace

const Bf16Peak kBf16PeakAvx512 = {.dot_flops = 2 * 32 * kChains * kSteps, .dot = dot};

}  // namespace dsa::cpu
