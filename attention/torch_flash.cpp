// Peers on torch's flash attention for CPUs: `torch-sdpa` (dense, causal) and `torch-mask` (sparse as
// a mask over all keys, the way most DSA experiments do it: O(T S) work and memory).
#include "attention/backend_rows.h"
#include "attention/torch_peers.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <limits>

namespace dsa {
namespace torch_peers {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Head-major views, the narrower of D and V filled up with zeros: the flash kernel wants D = V.
struct FlashInputs {
  at::Tensor q, k, v;
  int64_t width;

  FlashInputs(const at::Tensor& q_in, const at::Tensor& k_in, const at::Tensor& v_in)
      : width(std::max(q_in.size(3), v_in.size(3))) {
    q = widened(q_in), k = widened(k_in), v = widened(v_in);
  }

  at::Tensor widened(const at::Tensor& x) const {
    const int64_t missing = width - x.size(3);
    return (missing ? at::constant_pad_nd(x, {0, missing}) : x).transpose(1, 2);
  }
};

at::Tensor token_major(const at::Tensor& x, int64_t width) {
  return x.transpose(1, 2).slice(3, 0, width).contiguous();
}

/// What the kernel is told about visibility: `causal` alone is right only where T = S.
struct Visibility {
  bool causal = false;
  std::optional<at::Tensor> mask;
};

Visibility causal_visibility(const at::Tensor& q, const at::Tensor& k) {
  const int64_t T = q.size(1), S = k.size(1);
  if (T == S) return {true, std::nullopt};
  if (T == 1) return {};
  return {false, at::zeros({T, S}, q.options()).masked_fill_(future(T, S, q), -kInfinity)};
}

Visibility selected_visibility(const at::Tensor& q, const at::Tensor& k,
                               const ops::Selection& selection) {
  const int64_t S = k.size(1);
  const at::Tensor ids = selection.indices.to(at::kLong);
  // Column S takes the padding and is cut off again.
  at::Tensor mask = at::full({q.size(0), q.size(1), S + 1}, -kInfinity, q.options());
  mask.scatter_(2, ids.masked_fill(ids.lt(0), S), 0);
  return {false, mask.slice(2, 0, S).unsqueeze(1)};
}

ops::AttentionResult forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const Visibility& visible, double scale) {
  const FlashInputs in(q, k, v);
  const auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
      in.q, in.k, in.v, 0.0, visible.causal, visible.mask, scale);
  return {token_major(out, v.size(3)), lse.transpose(1, 2).contiguous()};
}

AttentionGrads backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                        const at::Tensor& v, const ops::AttentionResult& forward,
                        const Visibility& visible, double scale) {
  const FlashInputs in(q, k, v);
  const at::Tensor lse =
      forward.lse.masked_fill(forward.lse.eq(-kInfinity), 0).transpose(1, 2).contiguous();
  const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      in.widened(dout), in.q, in.k, in.v, in.widened(forward.out), lse, 0.0, visible.causal,
      visible.mask, scale);
  return {token_major(dq, q.size(3)), token_major(dk, k.size(3)), token_major(dv, v.size(3))};
}

ops::AttentionResult dense_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   double scale) {
  return forward(q, k, v, causal_visibility(q, k), scale);
}

AttentionGrads dense_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                              const at::Tensor& v, const ops::AttentionResult& result,
                              double scale) {
  return backward(dout, q, k, v, result, causal_visibility(q, k), scale);
}

ops::AttentionResult masked_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                    const ops::Selection& selection, double scale) {
  ops::AttentionResult result = forward(q, k, v, selected_visibility(q, k, selection), scale);
  // torch says 0 for a query with no key.
  result.lse.masked_fill_(selection.count.eq(0).unsqueeze(-1), -kInfinity);
  return result;
}

AttentionGrads masked_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const ops::Selection& selection,
                               const ops::AttentionResult& result, double scale) {
  return backward(dout, q, k, v, result, selected_visibility(q, k, selection), scale);
}

std::optional<std::string> declines_sdpa(Op, const Problem& p) {
  if (auto reason = declines_device(p)) return reason;
  if (p.queries == p.keys || p.queries == 1) return std::nullopt;
  const double bytes = double(p.queries) * double(p.keys) * double(c10::elementSize(p.dtype));
  return declines_bytes("mask of fewer queries than keys", bytes);
}

std::optional<std::string> declines_mask(Op, const Problem& p) {
  if (auto reason = declines_device(p)) return reason;
  const double pairs = double(p.batch) * double(p.queries) * double(p.keys);
  return declines_bytes("mask of queries by keys", pairs * double(c10::elementSize(p.dtype)));
}

}  // namespace
}  // namespace torch_peers

Backend torch_sdpa_backend() {
  Backend row;
  row.name = "torch-sdpa";
  row.description = "torch's flash attention for CPUs (zero-padded where D and V differ)";
  row.role = "peer";
  row.declines = torch_peers::declines_sdpa;
  row.dense_forward = torch_peers::dense_forward;
  row.dense_backward = torch_peers::dense_backward;
  return row;
}

Backend torch_mask_backend() {
  Backend row;
  row.name = "torch-mask";
  row.description = "torch's flash attention under a mask of the selection: dense work, no savings";
  row.role = "peer";
  row.declines = torch_peers::declines_mask;
  row.sparse_forward = torch_peers::masked_forward;
  row.sparse_backward = torch_peers::masked_backward;
  return row;
}

}  // namespace dsa
