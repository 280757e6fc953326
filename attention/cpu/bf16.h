// Reading and writing rows of float32 or bfloat16 as registers of float32. bfloat16 is the upper
// half of a float32; results are rounded to nearest, ties to even.
#pragma once
#include "attention/cpu/simd_math.h"

namespace dsa::cpu {

struct Bf16 {
  uint16_t bits;
};

/// The first n lanes from p, the others 0; n may be more than there are lanes.
template <class Isa>
[[gnu::always_inline]] inline typename Isa::Reg load_lanes(const float* p, int64_t n) {
  return n >= Isa::kWidth ? Isa::load(p) : Isa::load(p, Isa::first(n));
}

template <class Isa>
[[gnu::always_inline]] inline typename Isa::Reg load_lanes(const Bf16* p, int64_t n) {
  if constexpr (requires { Isa::load_upper(&p->bits); })
    if (n >= Isa::kWidth) return Isa::load_upper(&p->bits);
  uint32_t lanes[Isa::kWidth] = {};
  if (n >= Isa::kWidth)
    for (int64_t j = 0; j < Isa::kWidth; ++j) lanes[j] = uint32_t{p[j].bits} << 16;
  else
    for (int64_t j = 0; j < n; ++j) lanes[j] = uint32_t{p[j].bits} << 16;
  return Isa::as_float(Isa::iload(reinterpret_cast<const int32_t*>(lanes)));
}

template <class Isa>
[[gnu::always_inline]] inline void store_lanes(float* p, typename Isa::Reg x, int64_t n) {
  if (n >= Isa::kWidth)
    Isa::store(p, x);
  else
    Isa::store(p, x, Isa::first(n));
}

template <class Isa>
[[gnu::always_inline]] inline void store_lanes(Bf16* p, typename Isa::Reg x, int64_t n) {
  const auto bits = Isa::as_int(x);
  const auto odd =
      Isa::template shift_right<31>(Isa::template shift_left<15>(bits));  // bit 16: ties to even
  const auto rounded = Isa::iadd(Isa::iadd(bits, Isa::iset1(0x7fff)), odd);
  // Rounding up would turn some NaNs into infinity or -0.
  const auto kept =
      Isa::blend(Isa::eq(x, x), Isa::as_float(rounded), Isa::as_float(Isa::iset1(0x7fc00000)));
  if constexpr (requires { Isa::load_upper(&p->bits); })
    if (n >= Isa::kWidth) return Isa::store_upper(&p->bits, Isa::as_int(kept));
  int32_t lanes[Isa::kWidth];
  Isa::istore(lanes, Isa::template shift_right<16>(Isa::as_int(kept)));
  if (n >= Isa::kWidth)
    for (int64_t j = 0; j < Isa::kWidth; ++j) p[j].bits = static_cast<uint16_t>(lanes[j]);
  else
    for (int64_t j = 0; j < n; ++j) p[j].bits = static_cast<uint16_t>(lanes[j]);
}

}  // namespace dsa::cpu
