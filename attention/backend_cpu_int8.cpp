// The row `cpu-int8`: the fused indexer on int8 copies of q and k, each row with a power of two as its
// scale. Not exact: what it selects is near the selection of the inputs, and how near is measured.
#include "attention/backend_cpu_indexer.h"
#include "attention/backend_rows.h"

#include <utility>

namespace dsa {
namespace cpu {
namespace {

constexpr int64_t kQuantizedRows = 512;  // of one task

/// int8 copies in this thread's scratch.
struct Quantized {
  int8_t *q, *k;
  float *weight, *key_scale;
  int64_t scales;  ///< of one sequence

  Quantized(const at::Tensor& query, const at::Tensor& key, const at::Tensor& head_weight,
            int64_t key_block) {
    scales = blocks_of(key.size(1), key_block) * key_block;
    const int64_t keys = key.size(0) * scales;
    const auto whole_lines = [](int64_t bytes) { return (bytes + 63) / 64 * 64; };
    auto* at = static_cast<char*>(scratch_bytes(
        Slot::kQuantizeCall, whole_lines(query.numel()) + whole_lines(key.numel()) +
                                 whole_lines(4 * head_weight.numel()) + whole_lines(4 * keys)));
    const auto take = [&](int64_t bytes) { return std::exchange(at, at + whole_lines(bytes)); };
    q = reinterpret_cast<int8_t*>(take(query.numel()));
    k = reinterpret_cast<int8_t*>(take(key.numel()));
    weight = reinterpret_cast<float*>(take(4 * head_weight.numel()));
    key_scale = reinterpret_cast<float*>(take(4 * keys));
  }
};

using Quantize = void (*)(const void* rows, int64_t n, int64_t width, int8_t* out, float* scale);

/// Calls quantize for all rows of `from`, in parallel; `scale` has a place for every row.
void quantize_rows(Quantize quantize, const at::Tensor& from, int64_t width, int8_t* out,
                   float* scale) {
  const auto* bytes = static_cast<const char*>(from.const_data_ptr());
  const auto row_bytes = width * static_cast<int64_t>(from.element_size());
  cpu::for_each_range(from.numel() / width, kQuantizedRows, [&](int64_t begin, int64_t end) {
    quantize(bytes + begin * row_bytes, end - begin, width, out + begin * width, scale + begin);
  });
}

Quantized quantized(const Int8Kernels& kernels, const at::Tensor& q, const at::Tensor& k,
                    const at::Tensor& weight) {
  const Quantized copy(q, k, weight, kernels.indexer.key_block);
  const int64_t width = q.size(3), keys = k.size(1);
  const Quantize quantize =
      q.scalar_type() == at::kFloat ? kernels.quantize_float : kernels.quantize_bfloat16;
  quantize_rows(quantize, q, width, copy.q, copy.weight);
  const auto* weights = weight.const_data_ptr<float>();
  for (int64_t i = 0; i < weight.numel(); ++i) copy.weight[i] *= weights[i];
  for (int64_t b = 0; b < k.size(0); ++b) {
    float* scale = copy.key_scale + b * copy.scales;
    quantize_rows(quantize, k[b], width, copy.k + b * keys * width, scale);
    std::fill(scale + keys, scale + copy.scales, 1.0f);
  }
  return copy;
}

ops::Selection int8_select(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                           int64_t top_k) {
  const IsaRow& isa = isa_in_use();
  const Int8Kernels& kernels = *isa.indexer_int8;
  const Quantized copy = quantized(kernels, q, k, as_float(weight));
  IndexerBatch<int8_t> batch(q, k, copy.q, copy.k, copy.weight);
  batch.key_scale = copy.key_scale;
  batch.scales = copy.scales;
  pack(batch, kernels.indexer);
  ops::Selection selection = empty_selection(batch.batch, batch.queries, top_k);
  TiledSelection select(*isa.select, std::min(top_k, batch.keys), selection);
  for_each_tiled_block(
      batch, kernels.indexer,
      [&](int64_t b, const ScoreTiles& tiles, Range queries) { select(b, tiles, queries); });
  throw_if_nan(selection.count);
  return selection;
}

std::optional<std::string> int8_declines(Op, const Problem& problem) {
  if (!problem.device.is_cpu()) return "runs on the CPU; q is on " + problem.device.str();
  if (problem.dtype != c10::kFloat && problem.dtype != c10::kBFloat16)
    return std::string("needs float32 or bfloat16; q is ") + c10::toString(problem.dtype);
  if (isa_in_use().indexer_int8 == nullptr)
    return std::string("needs AMX; the instruction set in use is ") + isa_in_use().name;
  return std::nullopt;
}

}  // namespace
}  // namespace cpu

Backend cpu_int8_backend() {
  Backend row;
  row.name = "cpu-int8";
  row.description = "our fused indexer on int8 copies (AMX); selects nearly the same keys";
  row.role = "ours";
  row.is_exact = false;
  row.declines = cpu::int8_declines;
  row.indexer_select = cpu::int8_select;
  return row;
}

}  // namespace dsa
