// The table of sparse-attention kernels of one ISA; attend_<isa>.cpp instantiates it once.
#pragma once
#include "attention/cpu/attend_backward_impl.h"
#include "attention/cpu/attend_forward_impl.h"

namespace dsa::cpu {

template <class Isa>
void exp2_row(const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += Isa::kWidth) {
    const auto lanes = Isa::first(n - i);
    Isa::store(out + i, exp2<Isa>(Isa::load(x + i, lanes)), lanes);
  }
}

template <class Isa>
void pack_rows(const float* src, int64_t stride, int64_t rows, int64_t width, int64_t padded,
               float* dst) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t x = 0; x < padded; x += Isa::kWidth)
      Isa::store(dst + i * padded + x, Isa::load(src + i * stride + x, Isa::first(width - x)));
}

template <class Isa>
void row_dots(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t rows,
              int64_t width, float* out) {
  for (int64_t i = 0; i < rows; ++i) {
    auto sum = Isa::zero();
    for (int64_t x = 0; x < width; x += Isa::kWidth) {
      const auto lanes = Isa::first(width - x);
      sum = Isa::fma(Isa::load(a + i * a_stride + x, lanes), Isa::load(b + i * b_stride + x, lanes),
                     sum);
    }
    out[i] = Isa::reduce_add(sum);
  }
}

template <class Isa>
constexpr AttendKernels attend_kernels_of() {
  return {.lanes = Isa::kWidth,
          .exp2_row = exp2_row<Isa>,
          .pack_rows = pack_rows<Isa>,
          .row_dots = row_dots<Isa>,
          .forward_scratch = forward_scratch<Isa>,
          .forward = forward_block<Isa>,
          .mass_scratch = mass_scratch<Isa>,
          .mass = mass_block<Isa>,
          .grad_scratch = grad_scratch<Isa>,
          .query_grads = query_grads<Isa>,
          .key_grads = key_grads<Isa>};
}

}  // namespace dsa::cpu
