// The table of sparse-attention kernels of one ISA; attend_<isa>.cpp instantiates it once.
#pragma once
#include "attention/cpu/attend_backward_impl.h"
#include "attention/cpu/attend_forward_impl.h"
#include "attention/cpu/attend_shared_impl.h"

namespace dsa::cpu {

template <class Isa>
void exp2_row(const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += Isa::kWidth) {
    const auto lanes = Isa::first(n - i);
    Isa::store(out + i, exp2<Isa>(Isa::load(x + i, lanes)), lanes);
  }
}

template <class Isa, class Element>
void pack_rows(const void* src, int64_t stride, int64_t rows, int64_t width, int64_t padded,
               float* dst) {
  for (int64_t i = 0; i < rows; ++i) {
    const Element* row = static_cast<const Element*>(src) + i * stride;
    for (int64_t x = 0; x < padded; x += Isa::kWidth)
      Isa::store(dst + i * padded + x, load_lanes<Isa>(row + x, width - x));
  }
}

template <class Isa, class Element>
void unpack_rows(const float* src, int64_t padded, int64_t rows, int64_t width, void* dst,
                 int64_t stride) {
  for (int64_t i = 0; i < rows; ++i) {
    Element* row = static_cast<Element*>(dst) + i * stride;
    for (int64_t x = 0; x < width; x += Isa::kWidth)
      store_lanes<Isa>(row + x, Isa::load(src + i * padded + x), width - x);
  }
}

template <class Isa, class Element>
void row_dots(const void* a, const void* b, int64_t stride, int64_t rows, int64_t width,
              float* out) {
  for (int64_t i = 0; i < rows; ++i) {
    const Element* left = static_cast<const Element*>(a) + i * stride;
    const Element* right = static_cast<const Element*>(b) + i * stride;
    auto sum = Isa::zero();
    for (int64_t x = 0; x < width; x += Isa::kWidth)
      sum = Isa::fma(load_lanes<Isa>(left + x, width - x), load_lanes<Isa>(right + x, width - x),
                     sum);
    out[i] = Isa::reduce_add(sum);
  }
}

template <class Isa, class Element>
constexpr RowKernels row_kernels_of() {
  return {pack_rows<Isa, Element>, unpack_rows<Isa, Element>, row_dots<Isa, Element>};
}

/// @tparam BfloatUnits  how bfloat16 is multiplied where many heads share rows
template <class Isa, class BfloatUnits = FloatUnits<Isa, Bf16>>
constexpr AttendKernels attend_kernels_of() {
  return {.lanes = Isa::kWidth,
          .float32 = row_kernels_of<Isa, float>(),
          .bfloat16 = row_kernels_of<Isa, Bf16>(),
          .exp2_row = exp2_row<Isa>,
          .query_order_words = query_order_words<Isa>,
          .query_order = query_order<Isa>,
          .forward_scratch = forward_scratch<Isa>,
          .forward = forward_block<Isa>,
          .shared_float32 = shared_kernel_of<Isa, FloatUnits<Isa, float>>(),
          .shared_bfloat16 = shared_kernel_of<Isa, BfloatUnits>(),
          .shared_bfloat16_heads = BfloatUnits::kElements == 2 ? kSharedBfloatHeads : kSharedFloatHeads,
          .mass_scratch = mass_scratch<Isa>,
          .mass = mass_block<Isa>,
          .grad_order_words = grad_order_words<Isa>,
          .grad_order = grad_order<Isa>,
          .query_grads = query_grads<Isa>,
          .key_grads = key_grads<Isa>};
}

}  // namespace dsa::cpu
