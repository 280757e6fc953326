// Mathematics on registers, templated on the ISA struct (Portable, Avx2, Avx512) so that every
// ISA file owns its copy.
#pragma once
#include <cstdint>

namespace dsa::cpu {

/// 2^x for x <= 0 (correct up to x < 128), relative error below 2e-7. Exactly 0 below x = -100:
/// a softmax term that small changes no float32 sum, and its products would be denormals.
template <class Isa>
[[gnu::always_inline]] inline typename Isa::Reg exp2(typename Isa::Reg x) {
  // Adding 1.5 * 2^23 rounds to an integer that sits in the low mantissa bits.
  const auto magic = Isa::set1(12582912.0f);
  const auto smallest = Isa::set1(-100.0f);
  const auto in_range = Isa::gt(x, smallest);
  x = Isa::max(x, smallest);
  const auto shifted = Isa::add(x, magic);
  const auto f = Isa::sub(x, Isa::sub(shifted, magic));
  auto p = Isa::set1(1.53533620e-4f);  // minimax over |f| <= 1/2, exactly 1 at f = 0
  p = Isa::fma(p, f, Isa::set1(1.33988739e-3f));
  p = Isa::fma(p, f, Isa::set1(9.61843692e-3f));
  p = Isa::fma(p, f, Isa::set1(5.55033237e-2f));
  p = Isa::fma(p, f, Isa::set1(2.40226477e-1f));
  p = Isa::fma(p, f, Isa::set1(6.93147182e-1f));
  p = Isa::fma(p, f, Isa::set1(1.0f));
  const auto exponent = Isa::template shift_left<23>(Isa::as_int(shifted));
  return Isa::keep(in_range, Isa::as_float(Isa::iadd(Isa::as_int(p), exponent)));
}

/// Lane j of a[i] and lane i of a[j] change places.
template <class Isa>
[[gnu::always_inline]] inline void transpose(typename Isa::Reg (&a)[Isa::kWidth]) {
  if constexpr (requires { Isa::transpose(a); }) {
    Isa::transpose(a);
  } else {
    float lanes[Isa::kWidth][Isa::kWidth], turned[Isa::kWidth];
    for (int64_t i = 0; i < Isa::kWidth; ++i) Isa::store(lanes[i], a[i]);
    for (int64_t j = 0; j < Isa::kWidth; ++j) {
      for (int64_t i = 0; i < Isa::kWidth; ++i) turned[i] = lanes[i][j];
      a[j] = Isa::load(turned);
    }
  }
}

/// An int32 that orders as the float does (NaN aside; -0 below +0).
template <class Isa>
[[gnu::always_inline]] inline typename Isa::Int ordered_key(typename Isa::Reg x) {
  const auto i = Isa::as_int(x);
  return Isa::ixor(i, Isa::template shift_right<1>(Isa::template shift_right_signed<31>(i)));
}

}  // namespace dsa::cpu
