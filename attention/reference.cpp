// Attention of the `reference` backend, dense and sparse by the same loops.
#include "attention/reference.h"

#include "attention/backend_rows.h"
#include "attention/door.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace dsa::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Attention {
  at::Tensor q, k, v;
  int64_t B, T, S, H, G, D, V = 0;
  double scale;

  Attention(const at::Tensor& q_in, const at::Tensor& k_in, const at::Tensor& v_in, double scale_in)
      : q(as_double(q_in)), k(as_double(k_in)), scale(scale_in) {
    B = q.size(0), T = q.size(1), H = q.size(2), D = q.size(3), S = k.size(1), G = k.size(2);
    if (!v_in.defined()) return;
    v = as_double(v_in);
    V = v.size(3);
  }

  int64_t group(int64_t h) const { return h * G / H; }
  int64_t q_offset(int64_t b, int64_t t, int64_t h) const { return (b * T + t) * H + h; }
  int64_t k_offset(int64_t b, int64_t s, int64_t h) const { return (b * S + s) * G + group(h); }
  const double* q_row(int64_t b, int64_t t, int64_t h) const {
    return q.const_data_ptr<double>() + q_offset(b, t, h) * D;
  }
  const double* k_row(int64_t b, int64_t s, int64_t h) const {
    return k.const_data_ptr<double>() + k_offset(b, s, h) * D;
  }
  const double* v_row(int64_t b, int64_t s, int64_t h) const {
    return v.const_data_ptr<double>() + k_offset(b, s, h) * V;
  }

  /// Softmax over the listed keys into `p`; the log-sum-exp is returned.
  double softmax(int64_t b, int64_t t, int64_t h, const KeyList& keys,
                 std::vector<double>& p) const {
    p.resize(static_cast<size_t>(keys.count));
    double largest = -kInfinity;
    for (int64_t n = 0; n < keys.count; ++n) {
      const double logit = scale * dot(q_row(b, t, h), k_row(b, keys[n], h), D);
      p[static_cast<size_t>(n)] = logit;
      largest = std::max(largest, logit);
    }
    if (keys.count == 0) return -kInfinity;
    double sum = 0;
    for (double& x : p) sum += x = std::exp(x - largest);
    for (double& x : p) x /= sum;
    return largest + std::log(sum);
  }
};

ops::AttentionResult forward(const Attention& in, const KeyLists& keys, c10::ScalarType dtype) {
  at::Tensor out = at::zeros({in.B, in.T, in.H, in.V}, at::kDouble);
  at::Tensor lse = at::empty({in.B, in.T, in.H}, at::kDouble);
  double* out_data = out.data_ptr<double>();
  double* lse_data = lse.data_ptr<double>();
  at::parallel_for(0, in.B * in.T, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> p;
    for (int64_t row = begin; row < end; ++row) {
      const int64_t b = row / in.T, t = row % in.T;
      const KeyList list = keys.of(b, t);
      for (int64_t h = 0; h < in.H; ++h) {
        const int64_t at = in.q_offset(b, t, h);
        lse_data[at] = in.softmax(b, t, h, list, p);
        for (int64_t n = 0; n < list.count; ++n)
          add_scaled(out_data + at * in.V, p[static_cast<size_t>(n)], in.v_row(b, list[n], h),
                     in.V);
      }
    }
  });
  return {out.to(dtype), lse.to(accumulation_dtype(dtype))};
}

/// One head of one query: with dp = dout.v and ds = p (dp - sum p dp), adds to all three gradients.
void backward_row(const Attention& in, const double* dout, const KeyList& keys, int64_t b,
                  int64_t t, int64_t h, AttentionGrads& grads) {
  std::vector<double> p, dp;
  in.softmax(b, t, h, keys, p);
  double mean_dp = 0;
  for (int64_t n = 0; n < keys.count; ++n) {
    dp.push_back(dot(dout, in.v_row(b, keys[n], h), in.V));
    mean_dp += p[static_cast<size_t>(n)] * dp.back();
  }
  double* dq = grads.dq.data_ptr<double>() + in.q_offset(b, t, h) * in.D;
  for (int64_t n = 0; n < keys.count; ++n) {
    const double prob = p[static_cast<size_t>(n)];
    const double ds = in.scale * prob * (dp[static_cast<size_t>(n)] - mean_dp);
    const int64_t key = in.k_offset(b, keys[n], h);
    add_scaled(dq, ds, in.k_row(b, keys[n], h), in.D);
    add_scaled(grads.dk.data_ptr<double>() + key * in.D, ds, in.q_row(b, t, h), in.D);
    add_scaled(grads.dv.data_ptr<double>() + key * in.V, prob, dout, in.V);
  }
}

AttentionGrads backward(const at::Tensor& dout, const Attention& in, const KeyLists& keys,
                        c10::ScalarType dtype) {
  const at::Tensor gradient = as_double(dout);
  AttentionGrads grads{at::zeros_like(in.q), at::zeros_like(in.k), at::zeros_like(in.v)};
  // Key heads share no gradient, so each may have its own thread; the sums stay in query order.
  at::parallel_for(0, in.B * in.G, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t b = task / in.G, g = task % in.G, heads = in.H / in.G;
      for (int64_t t = 0; t < in.T; ++t)
        for (int64_t h = g * heads; h < (g + 1) * heads; ++h)
          backward_row(in, gradient.const_data_ptr<double>() + in.q_offset(b, t, h) * in.V,
                       keys.of(b, t), b, t, h, grads);
    }
  });
  return {grads.dq.to(dtype), grads.dk.to(dtype), grads.dv.to(dtype)};
}

ops::AttentionResult sparse_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                    const ops::Selection& selection, double scale) {
  const Attention in(q, k, v, scale);
  return forward(in, KeyLists(&selection, in.T, in.S), q.scalar_type());
}

AttentionGrads sparse_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const ops::Selection& selection,
                               const ops::AttentionResult&, double scale) {
  const Attention in(q, k, v, scale);
  return backward(dout, in, KeyLists(&selection, in.T, in.S), q.scalar_type());
}

ops::AttentionResult dense_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   double scale) {
  const Attention in(q, k, v, scale);
  return forward(in, KeyLists(nullptr, in.T, in.S), q.scalar_type());
}

AttentionGrads dense_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                              const at::Tensor& v, const ops::AttentionResult&, double scale) {
  const Attention in(q, k, v, scale);
  return backward(dout, in, KeyLists(nullptr, in.T, in.S), q.scalar_type());
}

at::Tensor attention_mass(const at::Tensor& q, const at::Tensor& k, const ops::Selection& selection,
                          const at::Tensor&, double scale) {
  const Attention in(q, k, at::Tensor(), scale);
  const KeyLists keys(&selection, in.T, in.S);
  const int64_t width = selection.indices.size(2);
  at::Tensor mass = at::zeros({in.B, in.T, width}, at::kDouble);
  double* data = mass.data_ptr<double>();
  at::parallel_for(0, in.B * in.T, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> p;
    for (int64_t row = begin; row < end; ++row) {
      const int64_t b = row / in.T, t = row % in.T;
      const KeyList list = keys.of(b, t);
      for (int64_t h = 0; h < in.H; ++h) {
        in.softmax(b, t, h, list, p);
        add_scaled(data + row * width, 1.0 / static_cast<double>(in.H), p.data(), list.count);
      }
    }
  });
  return mass.to(accumulation_dtype(q.scalar_type()));
}

std::optional<std::string> declines(Op, const Problem& problem) {
  if (problem.device.is_cpu()) return std::nullopt;
  return "runs on the CPU only; the tensors are on " + problem.device.str();
}

}  // namespace
}  // namespace dsa::reference

namespace dsa {

Backend reference_backend() {
  Backend row;
  row.name = "reference";
  row.description = "plain loops in float64: the oracle of every test, slow on purpose";
  row.role = "oracle";
  row.declines = reference::declines;
  row.indexer_scores = reference::indexer_scores;
  row.indexer_scores_backward = reference::indexer_scores_backward;
  row.select_top_k = reference::select_top_k;
  row.indexer_select = reference::indexer_select;
  row.selected_scores = reference::selected_scores;
  row.selected_scores_backward = reference::selected_scores_backward;
  row.sparse_forward = reference::sparse_forward;
  row.sparse_backward = reference::sparse_backward;
  row.attention_mass = reference::attention_mass;
  row.dense_forward = reference::dense_forward;
  row.dense_backward = reference::dense_backward;
  return row;
}

}  // namespace dsa
