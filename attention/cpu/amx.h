// Tiles of Intel AMX: 8 registers of 16 rows of 64 bytes, and one instruction that multiplies two of
// them. Include it only from *_amx.cpp.
//
// C[16][16] += A[16 rows][32 bf16] * B[16 pairs][16 columns of 2 bf16]: A is rows as a tensor has them,
// B has two rows side by side. Terms below 2^-126 count as 0, sums are float32, rounded to nearest.
#pragma once
#include <cstdint>
#include <immintrin.h>

namespace dsa::cpu {

inline constexpr int64_t kTileRows = 16;
inline constexpr int64_t kTileBytes = 1024;
inline constexpr int64_t kTilePairs = 32;  ///< bfloat16 in a row of a tile

}  // namespace dsa::cpu

#ifdef DSA_EMULATE_AMX
#include "attention/cpu/amx_emulated.h"
#else
namespace dsa::cpu {

/// While it lives, this thread's eight tiles are 16 x 64 bytes each. Kernels of other libraries
/// configure tiles anew, so it wraps one call and nothing that calls back.
class Tiles {
 public:
  [[gnu::always_inline]] Tiles() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    // Not the intrinsic: to g++ 12 it reads 8 bytes, and the stores of the other 56 are dropped.
    asm volatile("ldtilecfg %0" ::"m"(config) : "memory");
  }
  [[gnu::always_inline]] ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

/// c += a * b. Not the intrinsic: its arguments must be literals, not even template parameters.
template <int c, int a, int b>
[[gnu::always_inline]] inline void multiply_bf16() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b));
}
/// The same for int8, summed in int32: a row of A holds 64 elements, one of B four rows side by side.
template <int c, int a, int b>
[[gnu::always_inline]] inline void multiply_int8() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b));
}

}  // namespace dsa::cpu
#endif
