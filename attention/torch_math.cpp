// Peer `torch-math`: matrices of queries by keys with plain torch operations, in float32 (float64 for
// float64). Dense attention, indexer scores, and top-k by at::topk with the ties at its edge repaired.
#include "attention/backend_rows.h"
#include "attention/door.h"
#include "attention/nvtx.h"
#include "attention/torch_peers.h"

#include <ATen/Functions.h>
#include <ATen/TensorIndexing.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <tuple>

namespace dsa {
namespace torch_peers {

at::Tensor future(int64_t queries, int64_t keys, const at::Tensor& like) {
  return at::ones({queries, keys}, like.options().dtype(at::kBool)).triu_(keys - queries + 1);
}

std::optional<std::string> declines_device(const Problem& problem) {
  if (problem.device.is_cpu()) return std::nullopt;
  return "runs on the CPU only; the tensors are on " + problem.device.str();
}

std::optional<std::string> declines_bytes(const char* what, double bytes) {
  if (bytes <= kLargestMatrixBytes) return std::nullopt;
  char sentence[160];
  std::snprintf(sentence, sizeof sentence, "its %s needs %.1f GiB, more than the limit of %.0f GiB",
                what, bytes / (1ULL << 30), kLargestMatrixBytes / (1ULL << 30));
  return std::string(sentence);
}

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// [B, T, G, W] -> [B, H, T, W] in the accumulation dtype, each key head repeated for its queries.
at::Tensor head_major(const at::Tensor& x, int64_t heads) {
  const at::Tensor y = x.to(accumulation_dtype(x.scalar_type())).transpose(1, 2);
  return y.size(1) == heads ? y : y.repeat_interleave(heads / y.size(1), 1);
}

/// Gradient of repeated key heads, back as [B, S, G, W].
at::Tensor grouped(const at::Tensor& x, const at::Tensor& like) {
  const int64_t G = like.size(2);
  return x.view({x.size(0), G, x.size(1) / G, x.size(2), x.size(3)})
      .sum(2)
      .transpose(1, 2)
      .to(like.scalar_type())
      .contiguous();
}

at::Tensor logits(const at::Tensor& q, const at::Tensor& k, double scale) {
  return at::matmul(q, k.transpose(-1, -2))
      .mul_(scale)
      .masked_fill_(future(q.size(2), k.size(2), q), -kInfinity);
}

ops::AttentionResult dense_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   double scale) {
  const int64_t H = q.size(2);
  at::Tensor p = logits(head_major(q, H), head_major(k, H), scale);
  const at::Tensor lse = p.logsumexp(-1);
  p.sub_(lse.unsqueeze(-1)).exp_();
  const at::Tensor out = at::matmul(p, head_major(v, H));
  return {out.transpose(1, 2).to(q.scalar_type()).contiguous(), lse.transpose(1, 2).contiguous()};
}

AttentionGrads dense_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                              const at::Tensor& v, const ops::AttentionResult& forward,
                              double scale) {
  const int64_t H = q.size(2);
  const at::Tensor qh = head_major(q, H), kh = head_major(k, H), vh = head_major(v, H);
  const at::Tensor dh = head_major(dout, H);
  const at::Tensor lse = forward.lse.transpose(1, 2).unsqueeze(-1);
  const at::Tensor p = logits(qh, kh, scale).sub_(lse).exp_();
  const at::Tensor dv = at::matmul(p.transpose(-1, -2), dh);
  at::Tensor ds = at::matmul(dh, vh.transpose(-1, -2));
  ds.sub_((p * ds).sum(-1, true)).mul_(p).mul_(scale);
  const at::Tensor dq = at::matmul(ds, kh), dk = at::matmul(ds.transpose(-1, -2), qh);
  return {grouped(dq, q), grouped(dk, k), grouped(dv, v)};
}

/// Head by head: [B, T, S] is the largest thing alive, twice.
at::Tensor indexer_scores(const at::Tensor& q_in, const at::Tensor& k_in,
                          const at::Tensor& weight_in) {
  const auto dtype = accumulation_dtype(q_in.scalar_type());
  const at::Tensor q = q_in.to(dtype), keys = k_in.to(dtype).transpose(1, 2);
  const at::Tensor weight = weight_in.to(dtype);
  const int64_t T = q.size(1), S = k_in.size(1);
  at::Tensor scores = at::zeros({q.size(0), T, S}, q.options());
  for (int64_t i = 0; i < q.size(2); ++i)
    scores.addcmul_(at::matmul(q.select(2, i), keys).relu_(), weight.select(2, i).unsqueeze(-1));
  return scores.masked_fill_(future(T, S, q), -kInfinity);
}

IndexerGrads indexer_scores_backward(const at::Tensor& dscores, const at::Tensor& q_in,
                                     const at::Tensor& k_in, const at::Tensor& weight_in) {
  const auto dtype = accumulation_dtype(q_in.scalar_type());
  const at::Tensor q = q_in.to(dtype), k = k_in.to(dtype), weight = weight_in.to(dtype);
  const at::Tensor ds = dscores.masked_fill(future(q.size(1), k.size(1), q), 0);
  at::Tensor dq = at::empty_like(q), dk = at::zeros_like(k), dw = at::empty_like(weight);
  for (int64_t i = 0; i < q.size(2); ++i) {
    const at::Tensor x = at::matmul(q.select(2, i), k.transpose(1, 2)).relu_();
    dw.select(2, i).copy_((ds * x).sum(-1));
    const at::Tensor dx = (ds * weight.select(2, i).unsqueeze(-1)).mul_(x.gt(0));
    dq.select(2, i).copy_(at::matmul(dx, k));
    dk.add_(at::matmul(dx.transpose(1, 2), q.select(2, i)));
  }
  return {dq.to(q_in.scalar_type()), dk.to(k_in.scalar_type()), dw.to(weight_in.scalar_type())};
}

void require_no_nan(const at::Tensor& visible_scores, const at::Tensor& best) {
  if (!best.isnan().any().item<bool>()) return;
  const at::Tensor first = visible_scores.isnan().nonzero()[0];
  throw_nan_score(first[0].item<int64_t>(), first[1].item<int64_t>(), first[2].item<int64_t>());
}

/// Rows [N, S] whose K-th score occurs again below the edge: all above it, then the earliest equals.
at::Tensor ids_of_tied_rows(const at::Tensor& scores, const at::Tensor& visible, int64_t top_k,
                            const at::Tensor& edge) {
  const at::Tensor above = scores.gt(edge);
  const at::Tensor equal = scores.eq(edge).logical_and_(visible);
  const at::Tensor wanted = top_k - above.sum(-1, true);
  const at::Tensor earliest = equal.cumsum(-1).le(wanted).logical_and_(equal);
  return above.logical_or(earliest).nonzero().select(1, 1).view({scores.size(0), top_k});
}

ops::Selection select_top_k(const at::Tensor& scores, int64_t top_k) {
  const int64_t B = scores.size(0), T = scores.size(1), S = scores.size(2);
  const at::Tensor hidden = future(T, S, scores);
  const at::Tensor masked = scores.masked_fill(hidden, -kInfinity);
  // One more than asked for: does the score at the edge occur again behind it?
  const auto [values, ids] = masked.topk(std::min(top_k + 1, S));
  require_no_nan(masked, values.select(2, 0));

  const at::Tensor visible = at::arange(S - T + 1, S + 1, ids.options());  // keys of each query
  const at::Tensor slot = at::arange(top_k, ids.options());
  const at::Tensor count = visible.clamp_max(top_k);
  // Queries that see no more than K keys read them all.
  at::Tensor result = slot.expand({T, top_k})
                          .masked_fill(slot.ge(visible.unsqueeze(1)), -1)
                          .to(at::kInt)
                          .repeat({B, 1, 1});
  if (top_k < S) {
    const int64_t first = std::max<int64_t>(0, top_k - (S - T));  // query that sees more than K
    const auto late = [&](const at::Tensor& x) { return x.slice(1, first); };
    late(result).copy_(std::get<0>(late(ids).slice(2, 0, top_k).sort(-1)));
    const at::Tensor edge = values.slice(2, top_k - 1, top_k);
    const at::Tensor tied = late(edge).eq(late(values).slice(2, top_k)).squeeze(-1);
    if (tied.any().item<bool>()) {
      const at::Tensor rows_visible = late(hidden.logical_not().expand({B, T, S})).index({tied});
      late(result).index_put_({tied}, ids_of_tied_rows(late(masked).index({tied}), rows_visible,
                                                       top_k, late(edge).index({tied}))
                                          .to(at::kInt));
    }
  }
  return {result, count.to(at::kInt).expand({B, T}).contiguous()};
}

ops::Selection indexer_select(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                              int64_t top_k) {
  const at::Tensor scores = indexer_scores(q, k, weight);
  const nvtx::Range range("select_top_k", nvtx::Category::kTopK, k.size(1));
  return select_top_k(scores, top_k);
}

std::optional<std::string> declines_math(Op op, const Problem& p) {
  if (auto reason = declines_device(p)) return reason;
  const double heads = op == Op::kDense ? double(p.heads) : 1;
  const double bytes = double(c10::elementSize(accumulation_dtype(p.dtype)));
  return declines_bytes("matrix of queries by keys",
                        heads * double(p.batch) * double(p.queries) * double(p.keys) * bytes);
}

}  // namespace
}  // namespace torch_peers

Backend torch_math_backend() {
  Backend row;
  row.name = "torch-math";
  row.description = "plain torch matmul, softmax, relu and topk over the full score matrix";
  row.role = "peer";
  row.declines = torch_peers::declines_math;
  row.dense_forward = torch_peers::dense_forward;
  row.dense_backward = torch_peers::dense_backward;
  row.indexer_scores = torch_peers::indexer_scores;
  row.indexer_scores_backward = torch_peers::indexer_scores_backward;
  row.select_top_k = torch_peers::select_top_k;
  row.indexer_select = torch_peers::indexer_select;
  return row;
}

}  // namespace dsa
