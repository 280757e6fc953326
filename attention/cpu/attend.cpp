// Sparse attention forward and attention mass of the `cpu` backend: tensors to raw pointers, tasks
// over torch's pool. A task is a block of queries and some kv heads.
#include "attention/backend_cpu.h"
#include "attention/cpu/attend_narrow_call.h"
#include "attention/cpu/dispatch.h"
#include "attention/cpu/parallel.h"
#include "attention/cpu/scratch.h"
#include "attention/door.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <atomic>
#include <cstdio>
#include <tuple>

namespace dsa::cpu {
namespace {

/// The shape of a call: notes are about one.
auto shape_of(const Problem& p) {
  return std::tuple(p.batch, p.queries, p.keys, p.heads, p.kv_heads, p.qk_width, p.v_width,
                    p.top_k);
}
struct NarrowRun {
  NarrowCount count;
  bool heads_together = false;  ///< heads that share rows in one dense product
  at::ScalarType dtype = at::kFloat;
  decltype(shape_of(Problem())) shape;
};
thread_local NarrowRun last_narrow_run;
std::atomic<NarrowChoice> narrow_choice{NarrowChoice::kMeasured};

/// Some kv heads.
struct HeadRange {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

/// Those heads of batch element b of k or v as packed rows, [heads][S][padded]. Token-major rows of one head
/// would lie G rows apart and fill only some sets of the caches.
const float* packed_heads(const AttendKernels& kernels, const at::Tensor& tokens, int64_t b,
                          HeadRange heads, int64_t padded, float* packed) {
  const int64_t keys = tokens.size(1), kv_heads = tokens.size(2), width = tokens.size(3);
  const int64_t first = (b * keys * kv_heads + heads.begin) * width;
  if (kv_heads == 1 && width == padded && !is_bf16(tokens))
    return tokens.const_data_ptr<float>() + first;
  for_each_range(keys, kPackedKeys, [&](int64_t begin, int64_t end) {
    for (int64_t g = 0; g < heads.size(); ++g)
      kernels.rows(is_bf16(tokens))
          .pack(element(tokens, first + (begin * kv_heads + g) * width), kv_heads * width,
                end - begin, width, padded, packed + (g * keys + begin) * padded);
  });
  return packed;
}

int64_t block_queries(const AttendShape& n, int64_t blocks_per_query_range) {
  const int64_t floats = n.group() * (n.top_k + n.padded + n.v_padded) + n.top_k * 9 / 8;
  return n.block(floats * int64_t{sizeof(float)}, blocks_per_query_range);
}

/// Queries of one call of a shared kernel, which fetches the next one early. Results do not depend
/// on it.
int64_t shared_queries(const AttendShape& n) {
  const int64_t fair = n.batch * n.queries * n.kv_heads / (8 * int64_t{at::get_num_threads()}) + 1;
  return std::min(fair, int64_t{16});
}

/// Queries [begin, end) of batch element b and the heads of kv head g; packed keys are the caller's.
QueryBlock query_block(const AttendInputs& in, int64_t b, int64_t g, int64_t begin, int64_t end) {
  const AttendShape& n = in.n;
  const int64_t row = b * n.queries + begin;
  QueryBlock block{};
  block.bf16 = is_bf16(in.q);
  block.q = element(in.q, (row * n.heads + g * n.group()) * n.width);
  block.q_token = n.heads * n.width;
  block.queries = end - begin;
  block.heads = n.group();
  block.width = n.width;
  block.padded = n.padded;
  block.ids = in.selection.indices.const_data_ptr<int32_t>() + row * n.top_k;
  block.counts = in.selection.count.const_data_ptr<int32_t>() + row;
  block.top_k = n.top_k;
  block.scale = in.scale;
  block.keys = n.keys;
  block.panel_shift = n.forward_panel_shift();
  return block;
}

/// All heads of a kv head in one dense product per query, straight from the tensors. v may be a view of
/// the first columns of k.
void shared_forward(const AttendInputs& in, const SharedKernel& kernel, const at::Tensor& v,
                    ops::AttentionResult& result) {
  const AttendShape& n = in.n;
  const int64_t step = shared_queries(n);
  const int64_t blocks = (n.queries + step - 1) / step;
  const int64_t v_row = values_in_keys(in.k, v) ? n.width : n.v_width;
  for_each_block(n.batch * blocks * n.kv_heads, [&](int64_t task) {
    const int64_t g = task % n.kv_heads, b = task / n.kv_heads / blocks;
    const int64_t begin = task / n.kv_heads % blocks * step, row = b * n.queries + begin;
    const int64_t head = row * n.heads + g * n.group();
    SharedBlock block{};
    block.q = element(in.q, head * n.width);
    block.q_token = n.heads * n.width;
    block.queries = std::min(step, n.queries - begin);
    block.heads = n.group();
    block.width = n.width;
    block.v_width = n.v_width;
    block.k = element(in.k, (b * n.keys * n.kv_heads + g) * n.width);
    block.v = element(v, (b * n.keys * n.kv_heads + g) * v_row);
    block.k_stride = n.kv_heads * n.width;
    block.v_stride = n.kv_heads * v_row;
    block.ids = in.selection.indices.const_data_ptr<int32_t>() + row * n.top_k;
    block.counts = in.selection.count.const_data_ptr<int32_t>() + row;
    block.top_k = n.top_k;
    block.scale = in.scale;
    block.out = mutable_element(result.out, head * n.v_width);
    block.out_token = n.heads * n.v_width;
    block.lse = result.lse.mutable_data_ptr<float>() + head;
    block.lse_token = n.heads;
    block.scratch = scratch<float>(Slot::kAttendTask, kernel.scratch(block));
    kernel.forward(block);
  });
}

/// These queries and some heads from kv head g on; packed rows, ids and scratch are the caller's.
ForwardBlock forward_block(const AttendInputs& in, int64_t b, int64_t g, QueryRange queries,
                           ops::AttentionResult& result) {
  const AttendShape& n = in.n;
  const int64_t head = (b * n.queries + queries.begin) * n.heads + g * n.group();
  ForwardBlock block{};
  block.query = query_block(in, b, g, queries.begin, queries.end);
  block.kv_heads = 1;
  block.v_width = n.v_width;
  block.v_padded = n.v_padded;
  block.out = mutable_element(result.out, head * n.v_width);
  block.out_token = n.heads * n.v_width;
  block.lse = result.lse.mutable_data_ptr<float>() + head;
  block.lse_token = n.heads;
  return block;
}

/// The orders in which blocks walk their keys, made once for all passes over heads where they take no more than
/// `most_bytes` (4.5 a selected key at 16 lanes); otherwise blocks make them at every pass.
void order_blocks(const AttendInputs& in, int64_t most_bytes, std::vector<QueryBlock>& blocks) {
  std::vector<int64_t> begins;
  int64_t words = 0;
  for (const QueryBlock& block : blocks) {
    begins.push_back(words);
    words += (in.kernels.query_order_words(block) + 15) / 16 * 16;
  }
  if (words * int64_t{sizeof(int32_t)} > most_bytes) return;
  auto* memory = scratch<int32_t>(Slot::kAttendOrder, words);
  for_each_block(static_cast<int64_t>(blocks.size()), [&](int64_t i) {
    const auto at = static_cast<size_t>(i);
    blocks[at].order = memory + begins[at];
    in.kernels.query_order(blocks[at]);
  });
}

/// Calls pass(heads, packed k, packed v) for some heads after the others: all blocks of queries read the rows
/// of a few heads from the last cache level, where those of all heads would have to come from memory.
/// @param v  undefined where only k is read
template <class Pass>
void for_heads(const AttendInputs& in, const at::Tensor& v, int64_t b, const Pass& pass) {
  const AttendShape& n = in.n;
  const int64_t at_once = n.heads_at_once(), k_floats = at_once * n.keys * n.padded;
  float* packed = scratch<float>(Slot::kAttendCall, k_floats + at_once * n.keys * n.v_padded);
  for (int64_t g = 0; g < n.kv_heads; g += at_once) {
    const HeadRange heads{g, std::min(g + at_once, n.kv_heads)};
    const float* keys = packed_heads(in.kernels, in.k, b, heads, n.padded, packed);
    const float* values = v.defined()
                              ? packed_heads(in.kernels, v, b, heads, n.v_padded, packed + k_floats)
                              : nullptr;
    pass(heads, keys, values);
  }
}

/// Every query by itself, of some of batch element b.
void forward_alone(const AttendInputs& in, const at::Tensor& v, int64_t b,
                   const std::vector<QueryRange>& ranges, ops::AttentionResult& result) {
  const AttendShape& n = in.n;
  const int64_t step = block_queries(n, n.heads_at_once());
  std::vector<QueryRange> steps;
  std::vector<QueryBlock> queries;
  for (const QueryRange& range : ranges)
    for (int64_t begin = range.begin; begin < range.end; begin += step) {
      steps.push_back({begin, std::min(begin + step, range.end)});
      queries.push_back(query_block(in, b, 0, steps.back().begin, steps.back().end));
    }
  if (steps.empty()) return;
  order_blocks(in, n.waiting_bytes(), queries);
  const auto blocks = static_cast<int64_t>(steps.size());
  for_heads(in, v, b, [&](HeadRange heads, const float* keys, const float* values) {
    const int64_t parts = head_parts(blocks, heads.size());
    for_each_block(blocks * parts, [&](int64_t task) {
      const auto at = static_cast<size_t>(blocks - 1 - task / parts);  // longest first
      const int64_t part = task % parts, first = heads.size() * part / parts;
      ForwardBlock block = forward_block(in, b, heads.begin + first, steps[at], result);
      block.kv_heads = heads.size() * (part + 1) / parts - first;
      block.query.order = queries[at].order;
      block.query.k = keys + first * n.keys * n.padded;
      block.v = values + first * n.keys * n.v_padded;
      block.query.scratch = scratch<float>(Slot::kAttendTask, in.kernels.forward_scratch(block));
      in.kernels.forward(block);
    });
  });
}

/// Decoding: too few queries to share keys, and packing the rows each selects is less work than packing all.
bool selects_few(const AttendShape& n) {
  return n.queries < kLeastTogether && n.queries * n.top_k <= n.keys;
}

constexpr int64_t kRowsAhead = 16;  ///< selected rows that are fetched before they are copied

/// Rows that are fetched early, by number.
struct EarlyRows {
  const char* from;
  int64_t bytes;  ///< of a row

  EarlyRows(const at::Tensor& rows, int64_t width)
      : from(static_cast<const char*>(rows.const_data_ptr())),
        bytes(width * static_cast<int64_t>(rows.element_size())) {}

  void fetch(int64_t row) const {
    for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(from + row * bytes + byte);
  }
};

/// Every query and kv head by itself, over a copy of the rows it selects, of batch element b.
void forward_few(const AttendInputs& in, const at::Tensor& v, int64_t b,
                 ops::AttentionResult& result) {
  const AttendShape& n = in.n;
  const RowKernels& rows = in.kernels.rows(is_bf16(in.q));
  const EarlyRows early_k(in.k, n.width), early_v(v, n.v_width);
  for_each_block(n.queries * n.kv_heads, [&](int64_t task) {
    const int64_t t = task / n.kv_heads, g = task % n.kv_heads;
    ForwardBlock block = forward_block(in, b, g, {t, t + 1}, result);
    block.query.keys = *block.query.counts;
    auto* k = scratch<float>(Slot::kAttendRows, n.top_k * (n.padded + n.v_padded + 1));
    float* values = k + n.top_k * n.padded;
    auto* places = reinterpret_cast<int32_t*>(values + n.top_k * n.v_padded);
    const auto row_of = [&](int64_t i) {
      return (b * n.keys + block.query.ids[i]) * n.kv_heads + g;
    };
    for (int64_t i = 0; i < block.query.keys; ++i) {
      const int64_t row = row_of(i);
      if (i + kRowsAhead < block.query.keys) {
        early_k.fetch(row_of(i + kRowsAhead));
        early_v.fetch(row_of(i + kRowsAhead));
      }
      rows.pack(element(in.k, row * n.width), 0, 1, n.width, n.padded, k + i * n.padded);
      rows.pack(element(v, row * n.v_width), 0, 1, n.v_width, n.v_padded, values + i * n.v_padded);
      places[i] = static_cast<int32_t>(i);
    }
    block.query.k = k;
    block.v = values;
    block.query.ids = places;
    block.query.scratch = scratch<float>(Slot::kAttendTask, in.kernels.forward_scratch(block));
    in.kernels.forward(block);
  });
}

/// One batch element where few heads share a kv head.
NarrowCount forward_element(const NarrowCall& call) {
  const AttendKernels& kernels = call.in.kernels;
  const bool bf16 = is_bf16(call.in.q);
  if (selects_few(call.in.n) && call.choice == NarrowChoice::kMeasured) {
    forward_few(call.in, call.v, call.b, call.result);
    return {};
  }
  if (bf16 && kernels.narrow != nullptr) return narrow_element(call, *kernels.narrow);
  std::vector<QueryRange> left{{0, call.in.n.queries}};
  NarrowCount count;
  if (!bf16 && kernels.split != nullptr) count = split_element(call, *kernels.split, left);
  forward_alone(call.in, call.v, call.b, left, call.result);
  return count;
}

NarrowCount forward_elements(const AttendInputs& in, const at::Tensor& v,
                             ops::AttentionResult& result) {
  std::vector<NarrowCount> counts(static_cast<size_t>(in.n.batch));
  for_each_batch_element(in.n.batch, [&](int64_t b) {
    counts[static_cast<size_t>(b)] = forward_element({in, v, b, result, narrow_choice});
  });
  NarrowCount sum;
  for (const NarrowCount& c : counts) {
    sum.blocks += c.blocks;
    sum.by_union += c.by_union;
    sum.overlap += c.overlap / static_cast<double>(in.n.batch);
    sum.neighbours = c.neighbours;
  }
  return sum;
}

void mass_element(const AttendInputs& in, const at::Tensor& lse, int64_t b, at::Tensor& mass) {
  const AttendShape& n = in.n;
  const int64_t step = block_queries(n, 1);
  std::vector<QueryBlock> queries;
  for (int64_t begin = 0; begin < n.queries; begin += step)
    queries.push_back(query_block(in, b, 0, begin, std::min(begin + step, n.queries)));
  if (n.kv_heads > 1) order_blocks(in, 2 * static_cast<int64_t>(mass.nbytes()) / n.batch, queries);
  for_heads(in, {}, b, [&](HeadRange heads, const float* keys, const float*) {
    for_each_block(static_cast<int64_t>(queries.size()), [&](int64_t i) {
      const int64_t begin = i * step, row = b * n.queries + begin;
      MassBlock block{};
      block.lse_token = n.heads;
      block.weight = 1.0f / static_cast<float>(n.heads);
      block.mass = mass.mutable_data_ptr<float>() + row * n.top_k;
      for (int64_t g = heads.begin; g < heads.end;
           ++g) {  // one after the other: a fixed order of sums
        block.query = query_block(in, b, g, begin, std::min(begin + step, n.queries));
        block.query.order = queries[static_cast<size_t>(i)].order;
        block.query.k = keys + (g - heads.begin) * n.keys * n.padded;
        block.query.scratch = scratch<float>(Slot::kAttendTask, in.kernels.mass_scratch(block));
        block.lse = lse.const_data_ptr<float>() + row * n.heads + g * n.group();
        in.kernels.mass(block);
      }
    });
  });
}

}  // namespace

ops::AttentionResult sparse_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                    const ops::Selection& selection, double scale) {
  const AttendKernels& kernels = *isa_in_use().attend;
  const AttendShape n(q, k, v.size(3), selection, kernels.lanes);
  ops::AttentionResult result{
      at::empty({n.batch, n.queries, n.heads, n.v_width}, q.options()),
      at::empty({n.batch, n.queries, n.heads}, q.options().dtype(at::kFloat))};
  advise_huge_pages(mutable_element(result.out, 0), static_cast<int64_t>(result.out.nbytes()));
  const AttendInputs in{kernels, n, q, k, selection, static_cast<float>(scale)};
  const bool bf16 = is_bf16(q);
  last_narrow_run = {};
  if (n.group() >= (bf16 ? kernels.shared_bfloat16_heads : kSharedFloatHeads)) {
    shared_forward(in, bf16 ? kernels.shared_bfloat16 : kernels.shared_float32, v, result);
    last_narrow_run.heads_together = true;
  } else {
    last_narrow_run.count = forward_elements(in, v.contiguous(), result);
  }
  last_narrow_run.dtype = q.scalar_type();
  last_narrow_run.shape = {n.batch,    n.queries, n.keys,    n.heads,
                           n.kv_heads, n.width,   n.v_width, n.top_k};
  return result;
}

NarrowCount last_narrow() {
  return last_narrow_run.count;
}

std::string narrow_note(const Problem& problem) {
  const auto& [count, heads_together, dtype, shape] = last_narrow_run;
  if (problem.dtype != dtype || shape_of(problem) != shape) return "";
  if (heads_together) return "heads together";
  if (count.blocks == 0) return problem.heads > problem.kv_heads ? "heads one by one" : "";
  char text[96];
  const auto blocks = static_cast<long long>(count.blocks);
  if (count.by_union == 0)
    std::snprintf(text, sizeof text, "alone %lld blocks, U%d/K %.1f", blocks,
                  static_cast<int>(count.neighbours), count.overlap);
  else
    std::snprintf(text, sizeof text, "together %lld of %lld blocks, U%d/K %.1f",
                  static_cast<long long>(count.by_union), blocks,
                  static_cast<int>(count.neighbours), count.overlap);
  return text;
}

void choose_narrow(NarrowChoice choice) {
  narrow_choice = choice;
}

at::Tensor attention_mass(const at::Tensor& q, const at::Tensor& k, const ops::Selection& selection,
                          const at::Tensor& lse, double scale) {
  const AttendKernels& kernels = *isa_in_use().attend;
  const AttendShape n(q, k, 0, selection, kernels.lanes);
  at::Tensor mass = at::zeros({n.batch, n.queries, n.top_k}, q.options().dtype(at::kFloat));
  const AttendInputs in{kernels, n, q, k, selection, static_cast<float>(scale)};
  for_each_batch_element(n.batch, [&](int64_t b) { mass_element(in, lse, b, mass); });
  return mass;
}

}  // namespace dsa::cpu
