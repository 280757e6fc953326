// Peer `torch-gather`: sparse attention with torch operations and O(T K) work. Chunks of queries copy
// their selected keys into buffers that all chunks reuse, then multiply. The chunk is the best of
// three, measured once per shape. Low precision computes in float32.
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
  return double(chunk) * double(p.top_k) * double(p.kv_heads) * double(p.qk_width + p.v_width) *
         double(c10::elementSize(accumulation_dtype(p.dtype)));
}

/// One sequence, heads first, and the buffers its chunks share.
struct Gather {
  at::Tensor q, k, v;      ///< [T, G, R, D], [G, S, D], [G, S, V]; R query heads share a key head
  at::Tensor ids, padded;  ///< int32 [T, K] with 0 for padding; bool [T, K]
  at::Tensor k_buffer, v_buffer;
  int64_t T, G, R, K;

  Gather(const at::Tensor& q_in, const at::Tensor& k_in, const at::Tensor& v_in,
         const ops::Selection& selection, int64_t b) {
    const auto dtype = accumulation_dtype(q_in.scalar_type());
    T = q_in.size(1), G = k_in.size(2), R = q_in.size(2) / G, K = selection.indices.size(2);
    q = grouped(q_in, b);
    k = k_in[b].to(dtype).transpose(0, 1).contiguous();
    v = v_in[b].to(dtype).transpose(0, 1).contiguous();
    padded = selection.indices[b].lt(0);
    ids = selection.indices[b].clamp_min(0);
    k_buffer = at::empty({0}, k.options());
    v_buffer = at::empty({0}, v.options());
  }

  at::Tensor grouped(const at::Tensor& x, int64_t b) const {
    return x[b].to(accumulation_dtype(x.scalar_type())).view({T, G, R, -1});
  }

  /// [T, G, R, W] -> [G n, R, W] of the chunk.
  at::Tensor rows(const at::Tensor& x, int64_t begin, int64_t n) const {
    return x.narrow(0, begin, n).transpose(0, 1).reshape({G * n, R, x.size(3)});
  }

  at::Tensor flat_ids(int64_t begin, int64_t n) const { return ids.narrow(0, begin, n).view(-1); }

  /// [G n, K, W]: the selected rows of `source`, in `buffer`.
  at::Tensor gathered(at::Tensor& buffer, const at::Tensor& source, int64_t begin,
                      int64_t n) const {
    buffer.resize_({0});  // keeps the memory; resizing a filled one draws a warning from torch
    at::index_select_out(buffer, source, 1, flat_ids(begin, n));
    return buffer.view({G * n, K, source.size(2)});
  }

  at::Tensor padding(int64_t begin, int64_t n) const {
    return padded.narrow(0, begin, n).expand({G, n, K}).reshape({G * n, 1, K});
  }
};

void forward_chunk(Gather& in, int64_t begin, int64_t n, double scale,
                   const ops::AttentionResult& result) {
  const at::Tensor keys = in.gathered(in.k_buffer, in.k, begin, n);
  const at::Tensor pad = in.padding(begin, n);
  at::Tensor p = at::bmm(in.rows(in.q, begin, n), keys.transpose(1, 2)).mul_(scale);
  p.masked_fill_(pad, -kInfinity);
  const at::Tensor lse = p.logsumexp(-1, true);
  // A query with no key: -inf minus -inf.
  p.sub_(lse).exp_().masked_fill_(pad, 0);
  const at::Tensor out = at::bmm(p, in.gathered(in.v_buffer, in.v, begin, n));
  const auto store = [&](const at::Tensor& to, const at::Tensor& from) {
    to.narrow(0, begin, n)
        .view({n, in.G, in.R, -1})
        .copy_(from.view({in.G, n, in.R, -1}).transpose(0, 1));
  };
  store(result.out, out);
  store(result.lse, lse);
}

void backward_chunk(Gather& in, int64_t begin, int64_t n, double scale, const at::Tensor& dout,
                    const at::Tensor& lse, const AttentionGrads& grads) {
  at::Tensor keys = in.gathered(in.k_buffer, in.k, begin, n);
  at::Tensor values = in.gathered(in.v_buffer, in.v, begin, n);
  const at::Tensor q = in.rows(in.q, begin, n), d = in.rows(dout, begin, n);
  at::Tensor p = at::bmm(q, keys.transpose(1, 2)).mul_(scale).sub_(in.rows(lse, begin, n)).exp_();
  p.masked_fill_(in.padding(begin, n), 0);
  at::Tensor ds = at::bmm(d, values.transpose(1, 2));
  ds.sub_((p * ds).sum(-1, true)).mul_(p).mul_(scale);
  grads.dq.narrow(0, begin, n).copy_(at::bmm(ds, keys).view({in.G, n, in.R, -1}).transpose(0, 1));
  // The buffers have done their work: the terms of dk and dv take their place.
  at::bmm_out(keys, ds.transpose(1, 2), q);
  at::bmm_out(values, p.transpose(1, 2), d);
  const at::Tensor ids = in.flat_ids(begin, n);
  for (int64_t g = 0; g < in.G; ++g) {
    grads.dk[g].index_add_(0, ids, keys.view({in.G, n * in.K, -1})[g]);
    grads.dv[g].index_add_(0, ids, values.view({in.G, n * in.K, -1})[g]);
  }
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
    Gather in(q, k, v, selection, b);
    const ops::AttentionResult row{result.out[b], result.lse[b]};
    const RunChunk run = [&](int64_t begin, int64_t n) { forward_chunk(in, begin, n, scale, row); };
    run_chunks(0, p.queries, best_chunk(p, false, run), run);
  }
  return result;
}

AttentionGrads sparse_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const ops::Selection& selection,
                               const ops::AttentionResult& forward, double scale) {
  const Problem p = problem_of(q, k, v, selection);
  AttentionGrads total{at::empty_like(q), at::empty_like(k), at::empty_like(v)};
  for (int64_t b = 0; b < q.size(0); ++b) {
    Gather in(q, k, v, selection, b);
    const at::Tensor d = in.grouped(dout, b), lse = in.grouped(forward.lse, b);
    const AttentionGrads grads{at::empty_like(in.q), at::zeros_like(in.k), at::zeros_like(in.v)};
    const RunChunk run = [&](int64_t begin, int64_t n) {
      backward_chunk(in, begin, n, scale, d, lse, grads);
    };
    const int64_t chunk = best_chunk(p, true, run);
    grads.dk.zero_();  // the trials have added to them
    grads.dv.zero_();
    run_chunks(0, p.queries, chunk, run);
    total.dq[b].copy_(grads.dq.view(total.dq[b].sizes()));
    total.dk[b].copy_(grads.dk.transpose(0, 1));
    total.dv[b].copy_(grads.dv.transpose(0, 1));
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
