// Peers `torch-gather` and `torch-gather-heads`: sparse attention with torch operations and O(T K)
// work. Chunks of queries copy their selected keys into buffers that all chunks reuse, then multiply:
// for all key heads at once, or head by head. The chunk is the best of three, measured once per row and
// shape. Low precision computes in float32.
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
constexpr int kTrialRounds = 3;  // the first one warms up

/// What the two rows differ in: the key heads one gather copies rows of.
enum class PerGather { kAllHeads, kOneHead };

int64_t heads_per_gather(PerGather per, const Problem& p) {
  return per == PerGather::kAllHeads ? p.kv_heads : 1;
}

/// per gather, T, S, H, G, D, V, K, dtype, backward
using ShapeKey = std::array<int64_t, 10>;

std::mutex chosen_mutex;
std::map<ShapeKey, int64_t> chosen_chunks;

ShapeKey key_of(PerGather per, const Problem& p, bool backward) {
  return {static_cast<int64_t>(per),
          p.queries,
          p.keys,
          p.heads,
          p.kv_heads,
          p.qk_width,
          p.v_width,
          p.top_k,
          static_cast<int64_t>(p.dtype),
          backward};
}

/// Bytes of the gathered keys and values of one chunk.
double buffer_bytes(PerGather per, const Problem& p, int64_t chunk) {
  return double(chunk) * double(p.top_k) * double(heads_per_gather(per, p)) *
         double(p.qk_width + p.v_width) * double(c10::elementSize(accumulation_dtype(p.dtype)));
}

/// The selection of one sequence as index_select wants it.
struct Ids {
  at::Tensor ids, padded;  ///< int32 [T, K] with 0 for padding; bool [T, K]

  Ids(const ops::Selection& selection, int64_t b)
      : ids(selection.indices[b].clamp_min(0)), padded(selection.indices[b].lt(0)) {}
};

/// C key heads of one sequence, heads first, and the buffers their chunks share.
struct Heads {
  at::Tensor q, k, v;  ///< [T, C, R, D], [C, S, D], [C, S, V]; R query heads share a key head
  const Ids& selected;
  at::Tensor k_buffer, v_buffer;
  int64_t first, C, R;

  Heads(const at::Tensor& q_in, const at::Tensor& k_in, const at::Tensor& v_in, const Ids& ids,
        int64_t first_head, int64_t heads)
      : selected(ids), first(first_head), C(heads), R(q_in.size(1) / k_in.size(1)) {
    const auto dtype = accumulation_dtype(q_in.scalar_type());
    q = query_heads(q_in).to(dtype).contiguous();
    k = key_heads(k_in).to(dtype).contiguous();
    v = key_heads(v_in).to(dtype).contiguous();
    k_buffer = at::empty({0}, k.options());
    v_buffer = at::empty({0}, v.options());
  }

  /// [T, H, W] -> [T, C, R, W]: those that share these key heads.
  at::Tensor query_heads(const at::Tensor& x) const {
    return x.narrow(1, first * R, C * R).view({x.size(0), C, R, x.size(2)});
  }

  /// [S, G, W] -> [C, S, W]
  at::Tensor key_heads(const at::Tensor& x) const { return x.narrow(1, first, C).transpose(0, 1); }

  /// [T, C, R, W] -> [C n, R, W] of the chunk.
  at::Tensor rows(const at::Tensor& x, int64_t begin, int64_t n) const {
    return x.narrow(0, begin, n).transpose(0, 1).reshape({C * n, R, x.size(3)});
  }

  /// The way back: [C n, R, W] -> the chunk of [T, C, R, W].
  void store(const at::Tensor& to, const at::Tensor& from, int64_t begin, int64_t n) const {
    to.narrow(0, begin, n).copy_(from.view({C, n, R, -1}).transpose(0, 1));
  }

  at::Tensor flat_ids(int64_t begin, int64_t n) const {
    return selected.ids.narrow(0, begin, n).view(-1);
  }

  /// [C n, K, W]: the selected rows of `source`, in `buffer`.
  at::Tensor gathered(at::Tensor& buffer, const at::Tensor& source, int64_t begin,
                      int64_t n) const {
    buffer.resize_({0});  // keeps the memory; resizing a filled one draws a warning from torch
    at::index_select_out(buffer, source, 1, flat_ids(begin, n));
    return buffer.view({C * n, -1, source.size(2)});
  }

  /// [C n, 1, K]
  at::Tensor padding(int64_t begin, int64_t n) const {
    const int64_t K = selected.padded.size(1);
    return selected.padded.narrow(0, begin, n).expand({C, n, K}).reshape({C * n, 1, K});
  }
};

/// `out` [T, C, R, V] and `lse` [T, C, R, 1] of these heads are views of the result.
void forward_chunk(Heads& in, int64_t begin, int64_t n, double scale, const at::Tensor& out,
                   const at::Tensor& lse) {
  const at::Tensor keys = in.gathered(in.k_buffer, in.k, begin, n);
  const at::Tensor padding = in.padding(begin, n);
  at::Tensor p = at::bmm(in.rows(in.q, begin, n), keys.transpose(1, 2)).mul_(scale);
  p.masked_fill_(padding, -kInfinity);
  const at::Tensor normalizer = p.logsumexp(-1, true);
  // A query with no key: -inf minus -inf.
  p.sub_(normalizer).exp_().masked_fill_(padding, 0);
  in.store(out, at::bmm(p, in.gathered(in.v_buffer, in.v, begin, n)), begin, n);
  in.store(lse, normalizer, begin, n);
}

/// Of some heads, in the accumulation dtype.
struct HeadGrads {
  at::Tensor dq, dk, dv;  ///< [T, C, R, D], [C, S, D], [C, S, V]
};

void backward_chunk(Heads& in, int64_t begin, int64_t n, double scale, const at::Tensor& dout,
                    const at::Tensor& lse, HeadGrads& grads) {
  at::Tensor keys = in.gathered(in.k_buffer, in.k, begin, n);
  at::Tensor values = in.gathered(in.v_buffer, in.v, begin, n);
  const at::Tensor q = in.rows(in.q, begin, n), d = in.rows(dout, begin, n);
  at::Tensor p = at::bmm(q, keys.transpose(1, 2)).mul_(scale).sub_(in.rows(lse, begin, n)).exp_();
  p.masked_fill_(in.padding(begin, n), 0);
  at::Tensor ds = at::bmm(d, values.transpose(1, 2));
  ds.sub_((p * ds).sum(-1, true)).mul_(p).mul_(scale);
  in.store(grads.dq, at::bmm(ds, keys), begin, n);
  // The buffers have done their work: the terms of dk and dv take their place.
  at::bmm_out(keys, ds.transpose(1, 2), q);
  at::bmm_out(values, p.transpose(1, 2), d);
  const at::Tensor ids = in.flat_ids(begin, n);
  for (int64_t c = 0; c < in.C; ++c) {
    grads.dk[c].index_add_(0, ids, keys.view({in.C, ids.size(0), -1})[c]);
    grads.dv[c].index_add_(0, ids, values.view({in.C, ids.size(0), -1})[c]);
  }
}

using RunChunk = std::function<void(int64_t begin, int64_t n)>;

void run_chunks(int64_t begin, int64_t end, int64_t chunk, const RunChunk& run) {
  for (int64_t at = begin; at < end; at += chunk) run(at, std::min(chunk, end - at));
}

/// Times the last queries, whose rows are full, with each chunk that fits. Rounds in turn, each chunk's
/// fastest counts: one disturbed trial must not saddle a shape with the wrong chunk. Writes what the
/// real run writes again.
int64_t measured_chunk(PerGather per, const Problem& p, const RunChunk& run) {
  const int64_t begin = std::max<int64_t>(0, p.queries - kTrialQueries);
  std::array<double, kChunks.size()> fastest;
  fastest.fill(kInfinity);
  for (int round = 0; round < kTrialRounds; ++round) {
    for (size_t i = 0; i < kChunks.size(); ++i) {
      const bool fits =
          kChunks[i] / 4 < p.queries && buffer_bytes(per, p, kChunks[i]) <= kLargestBufferBytes;
      if (i > 0 && !fits) continue;
      const auto start = std::chrono::steady_clock::now();
      run_chunks(begin, p.queries, kChunks[i], run);
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
      fastest[i] = std::min(fastest[i], elapsed.count());
    }
  }
  return kChunks[static_cast<size_t>(std::ranges::min_element(fastest) - fastest.begin())];
}

int64_t best_chunk(PerGather per, const Problem& p, bool backward, const RunChunk& run) {
  const std::lock_guard lock(chosen_mutex);
  const auto known = chosen_chunks.find(key_of(per, p, backward));
  if (known != chosen_chunks.end()) return known->second;
  return chosen_chunks[key_of(per, p, backward)] = measured_chunk(per, p, run);
}

Problem problem_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                   const ops::Selection& selection) {
  Problem p;
  p.queries = q.size(1), p.heads = q.size(2), p.qk_width = q.size(3);
  p.keys = k.size(1), p.kv_heads = k.size(2), p.v_width = v.size(3);
  p.top_k = selection.indices.size(2), p.dtype = q.scalar_type();
  return p;
}

template <PerGather per>
ops::AttentionResult sparse_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                    const ops::Selection& selection, double scale) {
  const Problem p = problem_of(q, k, v, selection);
  const int64_t heads = heads_per_gather(per, p);
  ops::AttentionResult result{
      at::empty({q.size(0), p.queries, p.heads, p.v_width}, q.options()),
      at::empty({q.size(0), p.queries, p.heads}, q.options().dtype(accumulation_dtype(p.dtype)))};
  for (int64_t b = 0; b < q.size(0); ++b) {
    const Ids ids(selection, b);
    for (int64_t g = 0; g < p.kv_heads; g += heads) {
      Heads in(q[b], k[b], v[b], ids, g, heads);
      const at::Tensor out = in.query_heads(result.out[b]);
      const at::Tensor lse = in.query_heads(result.lse[b].unsqueeze(-1));
      const RunChunk run = [&](int64_t begin, int64_t n) {
        forward_chunk(in, begin, n, scale, out, lse);
      };
      run_chunks(0, p.queries, best_chunk(per, p, false, run), run);
    }
  }
  return result;
}

template <PerGather per>
AttentionGrads sparse_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const ops::Selection& selection,
                               const ops::AttentionResult& forward, double scale) {
  const Problem p = problem_of(q, k, v, selection);
  const int64_t heads = heads_per_gather(per, p);
  AttentionGrads total{at::empty_like(q), at::empty_like(k), at::empty_like(v)};
  for (int64_t b = 0; b < q.size(0); ++b) {
    const Ids ids(selection, b);
    for (int64_t g = 0; g < p.kv_heads; g += heads) {
      Heads in(q[b], k[b], v[b], ids, g, heads);
      const at::Tensor d = in.query_heads(dout[b]).to(in.q.scalar_type()).contiguous();
      const at::Tensor lse = in.query_heads(forward.lse[b].unsqueeze(-1));
      HeadGrads grads{at::empty_like(in.q), at::zeros_like(in.k), at::zeros_like(in.v)};
      const RunChunk run = [&](int64_t begin, int64_t n) {
        backward_chunk(in, begin, n, scale, d, lse, grads);
      };
      const int64_t chunk = best_chunk(per, p, true, run);
      grads.dk.zero_();  // the trials have added to them
      grads.dv.zero_();
      run_chunks(0, p.queries, chunk, run);
      in.query_heads(total.dq[b]).copy_(grads.dq);
      in.key_heads(total.dk[b]).copy_(grads.dk);
      in.key_heads(total.dv[b]).copy_(grads.dv);
    }
  }
  return total;
}

template <PerGather per>
std::optional<std::string> declines_gather(Op, const Problem& p) {
  if (auto reason = declines_device(p)) return reason;
  return declines_bytes("buffer of gathered keys and values",
                        buffer_bytes(per, p, kChunks.front()));
}

template <PerGather per>
std::string chunk_note(Op op, const Problem& p) {
  if (op != Op::kSparse) return "";
  const std::lock_guard lock(chosen_mutex);
  std::string note;
  for (const bool backward : {false, true}) {
    const auto known = chosen_chunks.find(key_of(per, p, backward));
    if (known == chosen_chunks.end()) continue;
    note += (note.empty() ? "" : ", ") + std::string(backward ? "backward" : "forward") +
            " chunk " + std::to_string(known->second);
  }
  return note;
}

template <PerGather per>
Backend gather_row(const char* name, const char* description) {
  Backend row;
  row.name = name;
  row.description = description;
  row.role = "peer";
  row.declines = declines_gather<per>;
  row.sparse_forward = sparse_forward<per>;
  row.sparse_backward = sparse_backward<per>;
  row.note = chunk_note<per>;
  return row;
}

}  // namespace
}  // namespace torch_peers

Backend torch_gather_backend() {
  return torch_peers::gather_row<torch_peers::PerGather::kAllHeads>(
      "torch-gather",
      "torch index_select and bmm over query chunks, all key heads at once; "
      "the best chunk of 32, 128, 1024");
}

Backend torch_gather_heads_backend() {
  return torch_peers::gather_row<torch_peers::PerGather::kOneHead>(
      "torch-gather-heads",
      "torch index_select and bmm over query chunks, one key head at a time; "
      "the best chunk of 32, 128, 1024");
}

}  // namespace dsa
