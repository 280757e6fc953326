// What both bfloat16 kernels of attend_narrow_impl.h share.
#pragma once
#include "attention/cpu/attend_kernels.h"
#include "attention/cpu/bf16.h"
#include "attention/cpu/simd_avx512.h"

namespace dsa::cpu {

/// The first n of 16 lanes, rounded to nearest, ties to even; NaN stays NaN.
[[gnu::always_inline]] inline void store16(Bf16* out, __m512 x, int64_t n) {
  if (n <= 0) return;
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  // Rounding up would turn some NaNs into infinity or -0.
  rounded = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q),
                                  _mm512_set1_epi32(0x7fc00000));
  _mm256_mask_storeu_epi16(out, Avx512::first(n),
                           _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
}

/// The columns of 32 that exist, `left` of them to the end of the row.
inline __mmask32 columns_left(int64_t left) {
  return left >= 32 ? ~__mmask32{0} : left > 0 ? (__mmask32{1} << left) - 1 : 0;
}

}  // namespace dsa::cpu
