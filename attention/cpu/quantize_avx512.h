// Rows of float32 or bfloat16 as int8 with one power of two a row: |x - scale * n| <= scale / 2, -127 <= n
// <= 127. Include it only from files compiled with the AVX-512 flags of CMakeLists.txt.
#pragma once
#include "attention/cpu/bf16.h"
#include "attention/cpu/simd_avx512.h"

namespace dsa::cpu {

template <class Source>
struct Quantizer {
  using Isa = Avx512;
  using Reg = Isa::Reg;
  static constexpr int64_t kWidth = Isa::kWidth;

  /// The least power of two that brings `largest` to 127 or below; NaN for what is not finite.
  static float scale_of(float largest) {
    if (!(largest < __builtin_inff())) return __builtin_nanf("");
    constexpr float kLeast = 0x1p-126f;  // of normal numbers
    if (largest <= 127 * kLeast) return kLeast;
    const float ratio = largest * (1.0f / 127.0f);
    int32_t bits;
    __builtin_memcpy(&bits, &ratio, sizeof bits);
    bits &= 0x7f800000;
    float scale;
    __builtin_memcpy(&scale, &bits, sizeof scale);
    return scale * 127.0f >= largest ? scale : 2 * scale;
  }

  static void row(const Source* from, int64_t width, int8_t* out, float* scale) {
    const Reg sign = Isa::as_float(Isa::iset1(static_cast<int32_t>(0x80000000u)));
    Reg largest = Isa::zero(), poison = Isa::zero();
    for (int64_t j = 0; j < width; j += kWidth) {
      const Reg x = load_lanes<Isa>(from + j, width - j);
      largest = Isa::max(largest, _mm512_andnot_ps(sign, x));
      poison = Isa::fma(x, Isa::zero(), poison);  // max loses a NaN
    }
    const float bad = Isa::reduce_add(poison);
    *scale = scale_of(bad == 0 ? Isa::reduce_max(largest) : bad);
    const Reg factor = Isa::set1(bad == 0 ? 1.0f / *scale : 0.0f);
    for (int64_t j = 0; j < width; j += kWidth) {
      const auto lanes = Isa::first(width - j);
      const Reg x = Isa::mul(load_lanes<Isa>(from + j, width - j), factor);
      _mm_mask_storeu_epi8(out + j, lanes, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x)));
    }
  }

  static void rows(const void* from, int64_t n, int64_t width, int8_t* out, float* scale) {
    for (int64_t r = 0; r < n; ++r)
      row(static_cast<const Source*>(from) + r * width, width, out + r * width, scale + r);
  }
};

}  // namespace dsa::cpu
