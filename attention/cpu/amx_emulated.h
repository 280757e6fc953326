// The instructions of amx.h by AVX-512, for tests of the AMX kernels on machines without AMX: the same
// values (Intel's manual, TDPBF16PS and TDPBSSD) at a thirtieth of the speed. Never timed, never shipped:
// only the objects of dsa-tests-amx are compiled with DSA_EMULATE_AMX (CMakeLists.txt here).
#pragma once
#include <cstdint>
#include <immintrin.h>

namespace dsa::cpu::emulated {

struct Tile {
  alignas(64) uint32_t rows[16][16];
};

inline thread_local Tile tiles[8];
inline thread_local bool are_configured = false;

/// The tiles, while this thread has them; silicon stops a program that uses them without.
inline Tile& tile_at(int tile) {
  if (!are_configured) __builtin_trap();
  return tiles[tile];
}

/// Every float a NaN, so that a tile that is read before it is written shows.
inline void forget_tiles() {
  for (Tile& tile : tiles)
    for (auto& row : tile.rows)
      for (uint32_t& value : row) value = 0xffffffffu;
}

inline void load(int tile, const void* from, int64_t stride) {
  for (int64_t row = 0; row < 16; ++row)
    __builtin_memcpy(tile_at(tile).rows[row], static_cast<const char*>(from) + row * stride, 64);
}

inline void store(int tile, void* to, int64_t stride) {
  for (int64_t row = 0; row < 16; ++row)
    __builtin_memcpy(static_cast<char*>(to) + row * stride, tile_at(tile).rows[row], 64);
}

inline void zero(int tile) {
  __builtin_memset(tile_at(tile).rows, 0, sizeof tile_at(tile).rows);
}

/// Columns 2k and 2k+1 are summed apart, from 0, and then added to c.
[[gnu::noinline]] inline void add_products_bf16(Tile& c, const Tile& a, const Tile& b) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u));
  const auto as_float = [](__m512i x) { return _mm512_castsi512_ps(x); };
  for (int row = 0; row < 16; ++row) {
    __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
    for (int k = 0; k < 16; ++k) {
      const __m512i x = _mm512_set1_epi32(static_cast<int32_t>(a.rows[row][k]));
      const __m512i y = _mm512_load_si512(b.rows[k]);
      even = _mm512_fmadd_ps(as_float(_mm512_slli_epi32(x, 16)), as_float(_mm512_slli_epi32(y, 16)),
                             even);
      odd = _mm512_fmadd_ps(as_float(_mm512_and_si512(x, upper)),
                            as_float(_mm512_and_si512(y, upper)), odd);
    }
    const __m512 before = _mm512_load_ps(c.rows[row]);
    _mm512_store_ps(c.rows[row], _mm512_add_ps(before, _mm512_add_ps(even, odd)));
  }
}

inline void multiply_bf16(int c, int a, int b) {
  // read and written as 0, to nearest, no exception trapped
  constexpr unsigned kZeroDenormals = 0x9fc0;
  const unsigned before = _mm_getcsr();
  _mm_setcsr(kZeroDenormals);
  add_products_bf16(tile_at(c), tile_at(a), tile_at(b));
  _mm_setcsr(before);
}

inline void multiply_int8(int c, int a, int b) {
  for (int row = 0; row < 16; ++row) {
    auto* sums = reinterpret_cast<int32_t*>(tile_at(c).rows[row]);
    const auto* x = reinterpret_cast<const int8_t*>(tile_at(a).rows[row]);
    for (int k = 0; k < 16; ++k) {
      const auto* y = reinterpret_cast<const int8_t*>(tile_at(b).rows[k]);
      for (int n = 0; n < 16; ++n)
        for (int i = 0; i < 4; ++i) sums[n] += int32_t{x[4 * k + i]} * y[4 * n + i];
    }
  }
}

}  // namespace dsa::cpu::emulated

namespace dsa::cpu {

class Tiles {
 public:
  Tiles() {
    emulated::forget_tiles();
    emulated::are_configured = true;
  }
  ~Tiles() { emulated::are_configured = false; }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

template <int c, int a, int b>
void multiply_bf16() {
  emulated::multiply_bf16(c, a, b);
}
template <int c, int a, int b>
void multiply_int8() {
  emulated::multiply_int8(c, a, b);
}

}  // namespace dsa::cpu

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#define _tile_loadd(tile, from, stride) dsa::cpu::emulated::load(tile, from, stride)
#define _tile_stored(tile, to, stride) dsa::cpu::emulated::store(tile, to, stride)
#define _tile_zero(tile) dsa::cpu::emulated::zero(tile)
#define _tile_dpbf16ps(c, a, b) dsa::cpu::emulated::multiply_bf16(c, a, b)
