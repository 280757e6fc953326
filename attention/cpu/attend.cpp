// Sparse attention forward and attention mass of the `cpu` backend: tensors to raw pointers, tasks
// over torch's pool. A task is a block of queries and one kv head.
#include "attention/backend_cpu.h"
#include "attention/cpu/attend_kernels.h"
#include "attention/cpu/attend_shape.h"
#include "attention/cpu/dispatch.h"
#include "attention/cpu/scratch.h"
#include "attention/cpu/tasks.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

namespace dsa::cpu {
namespace {

constexpr int64_t kPackedKeys = 256;  // of one packing task

/// One batch element of k or v with rows made whole registers, [G][S][padded]. Token-major rows
/// of one head would lie G rows apart and fill only some sets of the caches.
const float* packed_heads(const AttendKernels& kernels, const float* tokens, int64_t keys,
                          int64_t kv_heads, int64_t width, int64_t padded, float* packed) {
  if (kv_heads == 1 && width == padded) return tokens;
  for_each_range(keys, kPackedKeys, [&](int64_t begin, int64_t end) {
    for (int64_t g = 0; g < kv_heads; ++g)
      kernels.pack_rows(tokens + (begin * kv_heads + g) * width, kv_heads * width, end - begin,
                        width, padded, packed + (g * keys + begin) * padded);
  });
  return packed;
}

/// The part of a block that forward and mass share, for queries [begin, ...) of batch element b.
QueryBlock query_block(const AttendShape& n, const at::Tensor& q, const ops::Selection& selection,
                       int64_t b, int64_t begin) {
  const int64_t row = b * n.queries + begin;
  QueryBlock block{};
  block.q = q.const_data_ptr<float>() + row * n.heads * n.width;
  block.q_token = n.heads * n.width;
  block.heads = n.group();
  block.width = n.width;
  block.padded = n.padded;
  block.ids = selection.indices.const_data_ptr<int32_t>() + row * n.top_k;
  block.counts = selection.count.const_data_ptr<int32_t>() + row;
  block.top_k = n.top_k;
  block.panel_keys = n.panel(std::max(n.padded, n.v_padded));
  return block;
}

int64_t block_queries(const AttendShape& n, int64_t blocks_per_query_range) {
  const int64_t floats = n.group() * (n.top_k + n.padded + n.v_padded);
  return n.block(floats * int64_t{sizeof(float)}, blocks_per_query_range);
}

}  // namespace

ops::AttentionResult sparse_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                    const ops::Selection& selection, double scale) {
  const AttendKernels& kernels = *isa_in_use().attend;
  const AttendShape n(q, k, v.size(3), selection, kernels.lanes);
  ops::AttentionResult result{at::empty({n.batch, n.queries, n.heads, n.v_width}, q.options()),
                              at::empty({n.batch, n.queries, n.heads}, q.options())};
  const int64_t k_floats = n.kv_heads * n.keys * n.padded;
  float* packed = scratch<float>(Slot::kAttendCall, k_floats + n.kv_heads * n.keys * n.v_padded);
  const int64_t step = block_queries(n, n.kv_heads);
  const int64_t blocks = (n.queries + step - 1) / step;
  for (int64_t b = 0; b < n.batch; ++b) {
    const float* keys =
        packed_heads(kernels, k.const_data_ptr<float>() + b * n.keys * n.kv_heads * n.width, n.keys,
                     n.kv_heads, n.width, n.padded, packed);
    const float* values =
        packed_heads(kernels, v.const_data_ptr<float>() + b * n.keys * n.kv_heads * n.v_width,
                     n.keys, n.kv_heads, n.v_width, n.v_padded, packed + k_floats);
    for_each_task(blocks * n.kv_heads, [&](int64_t task) {
      const int64_t g = task / blocks, begin = task % blocks * step;
      const int64_t row = b * n.queries + begin, head = g * n.group();
      ForwardBlock block{};
      block.query = query_block(n, q, selection, b, begin);
      block.query.q += head * n.width;
      block.query.queries = std::min(step, n.queries - begin);
      block.query.k = keys + g * n.keys * n.padded;
      block.query.scale = static_cast<float>(scale);
      block.v = values + g * n.keys * n.v_padded;
      block.v_width = n.v_width;
      block.v_padded = n.v_padded;
      block.out = result.out.mutable_data_ptr<float>() + (row * n.heads + head) * n.v_width;
      block.out_token = n.heads * n.v_width;
      block.lse = result.lse.mutable_data_ptr<float>() + row * n.heads + head;
      block.lse_token = n.heads;
      block.query.scratch = scratch<float>(Slot::kAttendTask, kernels.forward_scratch(block));
      kernels.forward(block);
    });
  }
  return result;
}

at::Tensor attention_mass(const at::Tensor& q, const at::Tensor& k, const ops::Selection& selection,
                          const at::Tensor& lse, double scale) {
  const AttendKernels& kernels = *isa_in_use().attend;
  const AttendShape n(q, k, 0, selection, kernels.lanes);
  at::Tensor mass = at::zeros({n.batch, n.queries, n.top_k}, q.options());
  float* packed = scratch<float>(Slot::kAttendCall, n.kv_heads * n.keys * n.padded);
  const int64_t step = block_queries(n, 1);
  for (int64_t b = 0; b < n.batch; ++b) {
    const float* keys =
        packed_heads(kernels, k.const_data_ptr<float>() + b * n.keys * n.kv_heads * n.width, n.keys,
                     n.kv_heads, n.width, n.padded, packed);
    for_each_range(n.queries, step, [&](int64_t begin, int64_t end) {
      const int64_t row = b * n.queries + begin;
      MassBlock block{};
      block.query = query_block(n, q, selection, b, begin);
      block.query.queries = end - begin;
      block.query.scale = static_cast<float>(scale);
      block.lse_token = n.heads;
      block.weight = 1.0f / static_cast<float>(n.heads);
      block.mass = mass.mutable_data_ptr<float>() + row * n.top_k;
      block.query.scratch = scratch<float>(Slot::kAttendTask, kernels.mass_scratch(block));
      for (int64_t g = 0; g < n.kv_heads; ++g) {  // one after the other: a fixed order of sums
        const int64_t head = g * n.group();
        block.query.k = keys + g * n.keys * n.padded;
        block.query.q = q.const_data_ptr<float>() + (row * n.heads + head) * n.width;
        block.lse = lse.const_data_ptr<float>() + row * n.heads + head;
        kernels.mass(block);
      }
    });
  }
  return mass;
}

}  // namespace dsa::cpu
