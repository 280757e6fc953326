// The peak loops for one ISA; peak_<isa>.cpp makes the struct once.
#pragma once
#include "attention/cpu/peak_kernels.h"

namespace dsa::cpu {

template <class Isa>
struct Peak {
  using Reg = typename Isa::Reg;
  // Two units times four to five cycles of latency; with two constants they fit 16 registers.
  static constexpr int kChains = 12;
  static constexpr int kSteps = 16;  ///< of every chain in a round

  static void fma(int64_t rounds, float* sink) {
    // x -> 0.5 x + 1 goes to 2: neither overflow nor denormals slow it down.
    const Reg half = Isa::set1(0.5f), one = Isa::set1(1.0f);
    Reg chain[kChains];
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) chain[i] = Isa::set1(static_cast<float>(i));
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
      for (int step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
        for (int i = 0; i < kChains; ++i) chain[i] = Isa::fma(chain[i], half, one);
      }
    }
    Reg sum = Isa::zero();
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sum = Isa::add(sum, chain[i]);
    *sink = Isa::reduce_add(sum);
  }

  static float read(const float* from, int64_t floats) {
    constexpr int kLoads = 8;
    Reg sum[kLoads];
#pragma GCC unroll 8
    for (int i = 0; i < kLoads; ++i) sum[i] = Isa::zero();
    for (int64_t at = 0; at < floats; at += kLoads * Isa::kWidth) {
#pragma GCC unroll 8
      for (int i = 0; i < kLoads; ++i)
        sum[i] = Isa::add(sum[i], Isa::load(from + at + i * Isa::kWidth));
    }
    Reg total = Isa::zero();
#pragma GCC unroll 8
    for (int i = 0; i < kLoads; ++i) total = Isa::add(total, sum[i]);
    return Isa::reduce_add(total);
  }
};

template <class Isa>
constexpr PeakKernels peak_kernels_of() {
  return {.fma_flops = 2 * Isa::kWidth * Peak<Isa>::kChains * Peak<Isa>::kSteps,
          .fma = Peak<Isa>::fma,
          .read = Peak<Isa>::read};
}

}  // namespace dsa::cpu
