// Peer `torch-gather`: sparse attention with torch operations and O(T K) work. Head by head, chunks of
// queries copy their selected keys into buffers that all chunks reuse, then multiply. The chunk is the
// best of three, measured once per shape. Low precision computes in float32.
#include "attention/backend_rows.h"
#include "attention/door.h"
#include "attention/torch_peers.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>
#include <limits>
#include <map>
#include <mutex>
#include <vector>

namespace dsa {
namespace torch_peers {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::array<int64_t, 3> kChunks = {32, 128, 1024};
constexpr double kLargestBufferBytes = 1ULL << 30;
constexpr int64_t kTrialQueries = 1024;

/// T, S, H, G, D, V, K, dtype, backward
using ShapeKey = std::array<int64_t, 9>;

std::mutex chosen_mutex;
std::map<ShapeKey, int64_t> chosen_chunks;

ShapeKey key_of(const Problem& p, bool backward) {
  return {p.queries,  p.keys,    p.heads, p.kv_heads,
          p.qk_width, p.v_width, p.top_k, static_cast<int64_t>(p.dtype),
          backward};
}

/// Bytes of the gathered keys and values of one chunk.
double buffer_bytes(const Problem& p, int64_t chunk) {
  return double(chunk) * double(p.top_k) * double(p.qk_width + p.v_width) *
         double(c10::elementSize(accumulation_dtype(p.dtype)));
}

/// The selection of one sequence as index_select wants it.
struct Ids {
  at::Tensor ids, padded;  ///< int32 [T, K] with 0 for padding; bool [T, 1, K]

  Ids(const ops::Selection& selection, int64_t b)
      : ids(selection.indices[b].clamp_min(0)), padded(selection.indices[b].lt(0).unsqueeze(1)) {}
};

/// One key head of one sequence. Heads first: all heads at once would gather rows too wide for the
/// caches (measured: 2.5 times slower at L=512, K=256, 8 heads of 64, one thread).
struct Head {
  at::Tensor q, k, v;  ///< [T, R, D], [S, D], [S, V]; R query heads share the key head
  const Ids& selected;
  at::Tensor k_buffer, v_buffer;
  int64_t g, R;

  Head(const at::Tensor& q_in, const at::Tensor& k_in, const at::Tensor& v_in, const Ids& ids,
       int64_t b, int64_t head)
      : selected(ids), g(head), R(q_in.size(2) / k_in.size(2)) {
    const auto dtype = accumulation_dtype(q_in.scalar_type());
    q = query_heads(q_in[b]).to(dtype).contiguous();
    k = k_in[b].select(1, g).to(dtype).contiguous();
    v = v_in[b].select(1, g).to(dtype).contiguous();
    k_buffer = at::empty({0}, k.options());
    v_buffer = at::empty({0}, v.options());
  }

  /// [T, H, ...] -> [T, R, ...]: those that share this key head.
  at::Tensor query_heads(const at::Tensor& x) const { return x.narrow(1, g * R, R); }

  /// [n, K, W]: the selected rows of `source`, in `buffer`.
  at::Tensor gathered(at::Tensor& buffer, const at::Tensor& source, int64_t begin,
                      int64_t n) const {
    buffer.resize_({0});  // keeps the memory; resizing a filled one draws a warning from torch
    at::index_select_out(buffer, source, 0, selected.ids.narrow(0, begin, n).view(-1));
    return buffer.view({n, -1, source.size(1)});
  }
};

void forward_chunk(Head& in, int64_t begin, int64_t n, double scale,
                   const ops::AttentionResult& result) {
  const at::Tensor keys = in.gathered(in.k_buffer, in.k, begin, n);
  const at::Tensor padded = in.selected.padded.narrow(0, begin, n);
  at::Tensor p = at::bmm(in.q.narrow(0, begin, n), keys.transpose(1, 2)).mul_(scale);
  p.masked_fill_(padded, -kInfinity);
  const at::Tensor lse = p.logsumexp(-1, true);
  // A query with no key: -inf minus -inf.
  p.sub_(lse).exp_().masked_fill_(padded, 0);
  const at::Tensor out = at::bmm(p, in.gathered(in.v_buffer, in.v, begin, n));
  in.query_heads(result.out.narrow(0, begin, n)).copy_(out);
  in.query_heads(result.lse.narrow(0, begin, n)).copy_(lse.squeeze(-1));
}

/// Of one head, in the accumulation dtype.
struct HeadGrads {
  at::Tensor dq, dk, dv;  ///< [T, R, D], [S, D], [S, V]
};

void backward_chunk(Head& in, int64_t begin, int64_t n, double scale, const at::Tensor& dout,
                    const at::Tensor& lse, HeadGrads& grads) {
  at::Tensor keys = in.gathered(in.k_buffer, in.k, begin, n);
  at::Tensor values = in.gathered(in.v_buffer, in.v, begin, n);
  const at::Tensor q = in.q.narrow(0, begin, n), d = dout.narrow(0, begin, n);
  at::Tensor p = at::bmm(q, keys.transpose(1, 2))
                     .mul_(scale)
                     .sub_(lse.narrow(0, begin, n).unsqueeze(-1))
                     .exp_();
  p.masked_fill_(in.selected.padded.narrow(0, begin, n), 0);
  at::Tensor ds = at::bmm(d, values.transpose(1, 2));
  ds.sub_((p * ds).sum(-1, true)).mul_(p).mul_(scale);
  grads.dq.narrow(0, begin, n).copy_(at::bmm(ds, keys));
  // The buffers have done their work: the terms of dk and dv take their place.
  at::bmm_out(keys, ds.transpose(1, 2), q);
  at::bmm_out(values, p.transpose(1, 2), d);
  const at::Tensor ids = in.selected.ids.narrow(0, begin, n).view(-1);
  grads.dk.index_add_(0, ids, keys.view({-1, keys.size(2)}));
  grads.dv.index_add_(0, ids, values.view({-1, values.size(2)}));
}

using RunChunk = std::function<void(int64_t begin, int64_t n)>;

void run_chunks(int64_t begin, int64_t end, int64_t chunk, const RunChunk& run) {
  for (int64_t at = begin; at < end; at += chunk) run(at, std::min(chunk, end - at));
}

/// Times the last queries, whose rows are full, with each chunk that fits; the second of two runs
/// counts. Writes what the real run writes again.
int64_t measured_chunk(const Problem& p, const RunChunk& run) {
  int64_t best = kChunks.front();
  double best_seconds = kInfinity;
  for (const int64_t chunk : kChunks) {
    if (chunk > kChunks.front() &&
        (chunk / 4 >= p.queries || buffer_bytes(p, chunk) > kLargestBufferBytes))
      continue;
    const int64_t begin = std::max<int64_t>(0, p.queries - kTrialQueries);
    double seconds = 0;
    for (int trial = 0; trial < 2; ++trial) {
      const auto start = std::chrono::steady_clock::now();
      run_chunks(begin, p.queries, chunk, run);
      seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
    if (seconds < best_seconds) best_seconds = seconds, best = chunk;
  }
  return best;
}

int64_t best_chunk(const Problem& p, bool backward, const RunChunk& run) {
  const std::lock_guard lock(chosen_mutex);
  const auto known = chosen_chunks.find(key_of(p, backward));
  if (known != chosen_chunks.end()) return known->second;
  return chosen_chunks[key_of(p, backward)] = measured_chunk(p, run);
}

Problem problem_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                   const ops::Selection& selection) {
  Problem p;
  p.queries = q.size(1), p.heads = q.size(2), p.qk_width = q.size(3);
  p.keys = k.size(1), p.kv_heads = k.size(2), p.v_width = v.size(3);
  p.top_k = selection.indices.size(2), p.dtype = q.scalar_type();
  return p;
}

ops::AttentionResult sparse_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                    const ops::Selection& selection, double scale) {
  const Problem p = problem_of(q, k, v, selection);
  ops::AttentionResult result{
      at::empty({q.size(0), p.queries, p.heads, p.v_width}, q.options()),
      at::empty({q.size(0), p.queries, p.heads}, q.options().dtype(accumulation_dtype(p.dtype)))};
  for (int64_t b = 0; b < q.size(0); ++b) {
    const Ids ids(selection, b);
    const ops::AttentionResult sequence{result.out[b], result.lse[b]};
    for (int64_t g = 0; g < p.kv_heads; ++g) {
      Head in(q, k, v, ids, b, g);
      const RunChunk run = [&](int64_t begin, int64_t n) {
        forward_chunk(in, begin, n, scale, sequence);
      };
      run_chunks(0, p.queries, best_chunk(p, false, run), run);
    }
  }
  return result;
}

AttentionGrads sparse_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const ops::Selection& selection,
                               const ops::AttentionResult& forward, double scale) {
  const Problem p = problem_of(q, k, v, selection);
  AttentionGrads total{at::empty_like(q), at::empty_like(k), at::empty_like(v)};
  for (int64_t b = 0; b < q.size(0); ++b) {
    const Ids ids(selection, b);
    for (int64_t g = 0; g < p.kv_heads; ++g) {
      Head in(q, k, v, ids, b, g);
      const at::Tensor d = in.query_heads(dout[b]).to(in.q.scalar_type()).contiguous();
      const at::Tensor lse = in.query_heads(forward.lse[b]);
      HeadGrads grads{at::empty_like(in.q), at::zeros_like(in.k), at::zeros_like(in.v)};
      const RunChunk run = [&](int64_t begin, int64_t n) {
        backward_chunk(in, begin, n, scale, d, lse, grads);
      };
      const int64_t chunk = best_chunk(p, true, run);
      grads.dk.zero_();  // the trials have added to them
      grads.dv.zero_();
      run_chunks(0, p.queries, chunk, run);
      in.query_heads(total.dq[b]).copy_(grads.dq);
      total.dk[b].select(1, g).copy_(grads.dk);
      total.dv[b].select(1, g).copy_(grads.dv);
    }
  }
  return total;
}

std::optional<std::string> declines_gather(Op, const Problem& p) {
  if (auto reason = declines_device(p)) return reason;
  return declines_bytes("buffer of gathered keys and values", buffer_bytes(p, kChunks.front()));
}

std::string chunk_note(Op op, const Problem& p) {
  if (op != Op::kSparse) return "";
  const std::lock_guard lock(chosen_mutex);
  std::string note;
  for (const bool backward : {false, true}) {
    const auto known = chosen_chunks.find(key_of(p, backward));
    if (known == chosen_chunks.end()) continue;
    note += (note.empty() ? "" : ", ") + std::string(backward ? "backward" : "forward") +
            " chunk " + std::to_string(known->second);
  }
  return note;
}

}  // namespace
}  // namespace torch_peers

Backend torch_gather_backend() {
  Backend row;
  row.name = "torch-gather";
  row.description = "torch index_select and bmm over query chunks; the best chunk of 32, 128, 1024";
  row.role = "peer";
  row.declines = torch_peers::declines_gather;
  row.sparse_forward = torch_peers::sparse_forward;
  row.sparse_backward = torch_peers::sparse_backward;
  row.note = torch_peers::chunk_note;
  return row;
}

}  // namespace dsa
