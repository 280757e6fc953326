// Sparse attention backward of the `cpu` backend. One head at a time: its rows are packed, pass 1
// walks the keys of blocks of queries and makes dq, pass 2 walks the queries of blocks of keys and
// makes dk and dv. Each row is summed by one task in a fixed order, so the bits do not depend on
// the number of threads.
#include "attention/backend_cpu.h"
#include "attention/cpu/attend_kernels.h"
#include "attention/cpu/attend_rows.h"
#include "attention/cpu/attend_shape.h"
#include "attention/cpu/dispatch.h"
#include "attention/cpu/parallel.h"
#include "attention/cpu/scratch.h"
#include "attention/cpu/transposed.h"

#include <ATen/ops/empty_like.h>

#include <utility>
#include <vector>

namespace dsa::cpu {
namespace {

/// Tokens of one task: enough to read a panel of the other side several times, few enough to share.
int64_t centres(int64_t tokens) {
  return std::clamp<int64_t>(tokens / (4 * int64_t{at::get_num_threads()}) + 1, 16, 512);
}

struct Call {
  const AttendKernels& kernels;
  const RowKernels& rows;
  const AttendShape& n;
  const at::Tensor &dout, &q, &k, &v;
  const ops::Selection& selection;
  const ops::AttentionResult& forward;
  float scale;
  AttentionGrads& grads;
};

/// Scratch of one head, rows packed to whole registers.
struct HeadRows {
  float *q, *dout, *k, *v, *dq, *dk, *dv, *lse2, *delta;
  int64_t* query_first;  ///< where each query's ids begin

  explicit HeadRows(const AttendShape& n) {
    const int64_t qk = n.padded, v_row = n.v_padded;
    float* at = scratch<float>(
        Slot::kAttendCall, n.queries * (2 * qk + v_row + 4) + 9 * 16 + n.keys * 2 * (qk + v_row));
    // Whole cache lines, or every row would straddle two.
    const auto take = [&](int64_t floats) {
      return std::exchange(at, at + (floats + 15) / 16 * 16);
    };
    query_first = reinterpret_cast<int64_t*>(take(n.queries * 2));
    q = take(n.queries * qk);
    dq = take(n.queries * qk);
    dout = take(n.queries * v_row);
    k = take(n.keys * qk);
    dk = take(n.keys * qk);
    v = take(n.keys * v_row);
    dv = take(n.keys * v_row);
    lse2 = take(n.queries);
    delta = take(n.queries);
    for (int64_t t = 0; t < n.queries; ++t) query_first[t] = t * n.top_k;
  }
};

/// Packs k and v of kv head g and clears their gradients.
void load_kv_head(const Call& c, const HeadRows& r, int64_t b, int64_t g) {
  const AttendShape& n = c.n;
  for_each_range(n.keys, centres(n.keys), [&](int64_t begin, int64_t end) {
    const int64_t row = (b * n.keys + begin) * n.kv_heads + g, rows = end - begin;
    c.rows.pack(element(c.k, row * n.width), n.kv_heads * n.width, rows, n.width, n.padded,
                r.k + begin * n.padded);
    c.rows.pack(element(c.v, row * n.v_width), n.kv_heads * n.v_width, rows, n.v_width, n.v_padded,
                r.v + begin * n.v_padded);
    std::fill_n(r.dk + begin * n.padded, rows * n.padded, 0.0f);
    std::fill_n(r.dv + begin * n.v_padded, rows * n.v_padded, 0.0f);
  });
}

/// Packs q and dout of query head h, and makes what the softmax's gradient needs of each query.
void load_query_head(const Call& c, const HeadRows& r, int64_t b, int64_t h) {
  const AttendShape& n = c.n;
  for_each_range(n.queries, centres(n.queries), [&](int64_t begin, int64_t end) {
    const int64_t row = (b * n.queries + begin) * n.heads + h, rows = end - begin;
    const int64_t q_token = n.heads * n.width, out_token = n.heads * n.v_width;
    const void* dout = element(c.dout, row * n.v_width);
    c.rows.pack(element(c.q, row * n.width), q_token, rows, n.width, n.padded,
                r.q + begin * n.padded);
    c.rows.pack(dout, out_token, rows, n.v_width, n.v_padded, r.dout + begin * n.v_padded);
    c.rows.dots(dout, element(c.forward.out, row * n.v_width), out_token, rows, n.v_width,
                r.delta + begin);
    const float* lse = c.forward.lse.const_data_ptr<float>() + row;
    for (int64_t t = 0; t < rows; ++t) r.lse2[begin + t] = lse[t * n.heads] * kLog2E;
    std::fill_n(r.dq + begin * n.padded, rows * n.padded, 0.0f);
  });
}

void store_rows(const Call& c, const float* packed, int64_t padded, at::Tensor& grad, int64_t b,
                int64_t h) {
  const int64_t tokens = grad.size(1), heads = grad.size(2), width = grad.size(3);
  for_each_range(tokens, centres(tokens), [&](int64_t begin, int64_t end) {
    c.rows.unpack(packed + begin * padded, padded, end - begin, width,
                  mutable_element(grad, ((b * tokens + begin) * heads + h) * width), heads * width);
  });
}

GradBlock grad_block(const Call& c, const HeadRows& r) {
  GradBlock block{};
  block.padded = c.n.padded;
  block.v_padded = c.n.v_padded;
  block.lse2 = r.lse2;
  block.delta = r.delta;
  block.scale = c.scale;
  // One head at a time: no row is read again from the L1 cache, however many share it.
  block.panel_shift = AttendShape::panel_shift(c.n.padded + c.n.v_padded, kBackwardPanelBytes);
  return block;
}

/// The tasks of a pass for `shared.centre_qk` and so on, which lie in the same place for every head.
std::vector<GradBlock> blocks_of(GradBlock shared, int64_t tokens) {
  std::vector<GradBlock> blocks;
  const int64_t step = centres(tokens);
  for (int64_t begin = 0; begin < tokens; begin += step) {
    shared.begin = begin;
    shared.end = std::min(begin + step, tokens);
    blocks.push_back(shared);
  }
  return blocks;
}

std::vector<GradBlock> query_blocks(const Call& c, const HeadRows& r, int64_t b) {
  GradBlock shared = grad_block(c, r);
  shared.centre_qk = r.q;
  shared.centre_v = r.dout;
  shared.neighbour_qk = r.k;
  shared.neighbour_v = r.v;
  shared.neighbours = c.n.keys;
  shared.first = r.query_first;
  shared.count = c.selection.count.const_data_ptr<int32_t>() + b * c.n.queries;
  shared.ids = c.selection.indices.const_data_ptr<int32_t>() + b * c.n.queries * c.n.top_k;
  shared.grad_qk = r.dq;
  return blocks_of(shared, c.n.queries);
}

std::vector<GradBlock> key_blocks(const Call& c, const HeadRows& r,
                                  const TransposedSelection& lists) {
  GradBlock shared = grad_block(c, r);
  shared.centre_qk = r.k;
  shared.centre_v = r.v;
  shared.neighbour_qk = r.q;
  shared.neighbour_v = r.dout;
  shared.neighbours = c.n.queries;
  shared.first = lists.first;
  shared.count = lists.count;
  shared.ids = lists.queries;
  shared.grad_qk = r.dk;
  shared.grad_v = r.dv;
  return blocks_of(shared, c.n.keys);
}

void run(std::vector<GradBlock>& blocks, void (*kernel)(const GradBlock&)) {
  for_each_block(static_cast<int64_t>(blocks.size()),
                 [&](int64_t i) { kernel(blocks[static_cast<size_t>(i)]); });
}

/// Sorts the lists of both passes, once for all heads: 4.5 bytes a pair and pass at 16 lanes, ids and groups.
void order(const Call& c, std::vector<GradBlock>& queries, std::vector<GradBlock>& keys) {
  std::vector<int64_t> begins;
  int64_t words = 0;
  for (auto* blocks : {&queries, &keys})
    for (const GradBlock& block : *blocks) {
      begins.push_back(words);
      words += (c.kernels.grad_order_words(block) + 15) / 16 * 16;
    }
  auto* memory = scratch<int32_t>(Slot::kAttendOrder, words);
  size_t i = 0;
  for (auto* blocks : {&queries, &keys}) {
    for (GradBlock& block : *blocks) block.order = memory + begins[i++];
    run(*blocks, c.kernels.grad_order);
  }
}

void batch_element(const Call& c, int64_t b) {
  const AttendShape& n = c.n;
  const HeadRows rows(n);
  const TransposedSelection lists = transposed(
      c.selection.indices.const_data_ptr<int32_t>() + b * n.queries * n.top_k,
      c.selection.count.const_data_ptr<int32_t>() + b * n.queries, n.queries, n.keys, n.top_k);
  std::vector<GradBlock> queries = query_blocks(c, rows, b), keys = key_blocks(c, rows, lists);
  order(c, queries, keys);
  for (int64_t g = 0; g < n.kv_heads; ++g) {
    load_kv_head(c, rows, b, g);
    for (int64_t h = g * n.group(); h < (g + 1) * n.group(); ++h) {
      load_query_head(c, rows, b, h);
      run(queries, c.kernels.query_grads);
      run(keys, c.kernels.key_grads);
      store_rows(c, rows.dq, n.padded, c.grads.dq, b, h);
    }
    store_rows(c, rows.dk, n.padded, c.grads.dk, b, g);
    store_rows(c, rows.dv, n.v_padded, c.grads.dv, b, g);
  }
}

}  // namespace

AttentionGrads sparse_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const ops::Selection& selection,
                               const ops::AttentionResult& forward, double scale) {
  const AttendKernels& kernels = *isa_in_use().attend;
  const AttendShape n(q, k, v.size(3), selection, kernels.lanes);
  AttentionGrads grads{at::empty_like(q), at::empty_like(k), at::empty_like(v)};
  for (at::Tensor* grad : {&grads.dq, &grads.dk, &grads.dv})
    advise_huge_pages(mutable_element(*grad, 0), static_cast<int64_t>(grad->nbytes()));
  const Call call{kernels, kernels.rows(is_bf16(q)),  n,    dout, q, k, v, selection,
                  forward, static_cast<float>(scale), grads};
  for_each_batch_element(n.batch, [&](int64_t b) { batch_element(call, b); });
  return grads;
}

}  // namespace dsa::cpu
