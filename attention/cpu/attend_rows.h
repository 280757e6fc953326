// What every sparse-attention kernel does with gathered rows: dot products of one vector with a
// register's worth of rows, and weighted sums of rows. Bound by the loads of the rows: 4 bytes a
// multiply-add, from the L2 cache.
#pragma once
#include "attention/cpu/simd_math.h"

namespace dsa::cpu {

inline constexpr float kLog2E = 1.44269504088896f;
inline constexpr float kLn2 = 0.693147180559945f;
inline constexpr float kLowest = -3.4e38f;

/// Registers of a row handled at a time. Four multiply-adds in flight hide the latency.
inline constexpr int kTile = 4;

template <class Isa>
int64_t rounded_up(int64_t n) {
  return (n + Isa::kWidth - 1) / Isa::kWidth * Isa::kWidth;
}

/// acc[j] += columns [0, kRegs registers) of x . row ids[j].
template <class Isa, int kRegs>
[[gnu::always_inline]] inline void add_dots(typename Isa::Reg (&acc)[Isa::kWidth], const float* x,
                                            const float* rows, int64_t row, const int32_t* ids) {
  typename Isa::Reg part[kRegs];
#pragma GCC unroll 4
  for (int r = 0; r < kRegs; ++r) part[r] = Isa::load(x + r * Isa::kWidth);
#pragma GCC unroll 16
  for (int j = 0; j < Isa::kWidth; ++j) {
    const float* y = rows + ids[j] * row;
#pragma GCC unroll 4
    for (int r = 0; r < kRegs; ++r)
      acc[j] = Isa::fma(part[r], Isa::load(y + r * Isa::kWidth), acc[j]);
  }
}

template <class Isa>
[[gnu::always_inline]] inline void clear(typename Isa::Reg (&acc)[Isa::kWidth]) {
#pragma GCC unroll 16
  for (int j = 0; j < Isa::kWidth; ++j) acc[j] = Isa::zero();
}

template <class Isa, int kRegs>
[[gnu::always_inline]] inline typename Isa::Reg narrow_dots(const float* x, const float* rows,
                                                            const int32_t* ids) {
  typename Isa::Reg acc[Isa::kWidth];
  clear<Isa>(acc);
  add_dots<Isa, kRegs>(acc, x, rows, kRegs * Isa::kWidth, ids);
  return Isa::sum_each(acc);
}

template <class Isa>
typename Isa::Reg wide_dots(const float* x, const float* rows, int64_t width, const int32_t* ids) {
  typename Isa::Reg acc[Isa::kWidth];
  clear<Isa>(acc);
  int64_t c = 0;
  for (; c + kTile * Isa::kWidth <= width; c += kTile * Isa::kWidth)
    add_dots<Isa, kTile>(acc, x + c, rows + c, width, ids);
  for (; c < width; c += Isa::kWidth) add_dots<Isa, 1>(acc, x + c, rows + c, width, ids);
  return Isa::sum_each(acc);
}

/// Lane j is x . row ids[j]; `width` is a multiple of kWidth.
template <class Isa>
[[gnu::always_inline]] inline typename Isa::Reg dots(const float* x, const float* rows,
                                                     int64_t width, const int32_t* ids) {
  switch (width / Isa::kWidth) {
    case 1:
      return narrow_dots<Isa, 1>(x, rows, ids);
    case 2:
      return narrow_dots<Isa, 2>(x, rows, ids);
    case 4:
      return narrow_dots<Isa, 4>(x, rows, ids);
    default:
      return wide_dots<Isa>(x, rows, width, ids);
  }
}

/// sum[0, kRegs registers) += sum_j weights[j] * row ids[j], `slots` even.
template <class Isa, int kRegs>
[[gnu::always_inline]] inline void add_columns(float* sum, const float* rows, int64_t row,
                                               const int32_t* ids, const float* weights,
                                               int64_t slots) {
  typename Isa::Reg even[kRegs], odd[kRegs];
#pragma GCC unroll 4
  for (int r = 0; r < kRegs; ++r) {
    even[r] = Isa::load(sum + r * Isa::kWidth);
    odd[r] = Isa::zero();
  }
#pragma GCC unroll 2
  for (int64_t j = 0; j < slots; j += 2) {
    const float *y = rows + ids[j] * row, *z = rows + ids[j + 1] * row;
    const auto wy = Isa::set1(weights[j]), wz = Isa::set1(weights[j + 1]);
#pragma GCC unroll 4
    for (int r = 0; r < kRegs; ++r) {
      even[r] = Isa::fma(wy, Isa::load(y + r * Isa::kWidth), even[r]);
      odd[r] = Isa::fma(wz, Isa::load(z + r * Isa::kWidth), odd[r]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRegs; ++r) Isa::store(sum + r * Isa::kWidth, Isa::add(even[r], odd[r]));
}

/// sum += sum_j weights[j] * row ids[j]; `width` is a multiple of kWidth, `slots` even.
template <class Isa>
[[gnu::always_inline]] inline void add_rows(float* sum, const float* rows, int64_t width,
                                            const int32_t* ids, const float* weights,
                                            int64_t slots) {
  constexpr int64_t kStep = kTile * Isa::kWidth;
  if (width == kStep) return add_columns<Isa, kTile>(sum, rows, kStep, ids, weights, slots);
  int64_t c = 0;
  for (; c + kStep <= width; c += kStep)
    add_columns<Isa, kTile>(sum + c, rows + c, width, ids, weights, slots);
  for (; c < width; c += Isa::kWidth)
    add_columns<Isa, 1>(sum + c, rows + c, width, ids, weights, slots);
}

}  // namespace dsa::cpu
