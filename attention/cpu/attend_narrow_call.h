// Calls of sparse attention where few heads share a kv head and neighbouring queries are looked at
// together: packing, and blocks to tasks. Tensors in; the kernels behind get raw pointers.
#pragma once
#include "attention/backend_cpu.h"
#include "attention/cpu/attend_kernels.h"
#include "attention/cpu/attend_shape.h"

#include <vector>

namespace dsa::cpu {

inline constexpr int64_t kPackedKeys = 256;  ///< of one packing task

/// Fewer queries than this can have no tile of 32 x 32 pairs that is worth the arithmetic.
inline constexpr int64_t kLeastTogether = 8;

struct AttendInputs {
  const AttendKernels& kernels;
  const AttendShape& n;
  const at::Tensor &q, &k;
  const ops::Selection& selection;
  float scale;
};

/// One batch element of a forward pass.
struct NarrowCall {
  const AttendInputs& in;
  const at::Tensor& v;
  int64_t b;
  ops::AttentionResult& result;
  NarrowChoice choice;
};

struct QueryRange {
  int64_t begin, end;
};

/// bfloat16, all of it.
NarrowCount narrow_element(const NarrowCall& call, const NarrowKernel& kernel);

/// float32: blocks for which looking at 32 queries together pays.
/// @param left  the other queries
NarrowCount split_element(const NarrowCall& call, const SplitKernel& kernel,
                          std::vector<QueryRange>& left);

}  // namespace dsa::cpu
