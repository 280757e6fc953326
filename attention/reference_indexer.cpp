// Indexer scores and selection of the `reference` backend.
#include "attention/door.h"
#include "attention/reference.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace dsa::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Float64 inputs of the lightning indexer with its pair score.
struct ScoreInputs {
  at::Tensor q, k, weight;
  int64_t B, T, S, I, J;

  ScoreInputs(const at::Tensor& q_in, const at::Tensor& k_in, const at::Tensor& weight_in)
      : q(as_double(q_in)), k(as_double(k_in)), weight(as_double(weight_in)) {
    B = q.size(0), T = q.size(1), I = q.size(2), J = q.size(3), S = k.size(1);
  }

  const double* q_row(int64_t b, int64_t t, int64_t i) const {
    return q.const_data_ptr<double>() + ((b * T + t) * I + i) * J;
  }
  const double* k_row(int64_t b, int64_t s) const {
    return k.const_data_ptr<double>() + (b * S + s) * J;
  }
  double w(int64_t b, int64_t t, int64_t i) const {
    return weight.const_data_ptr<double>()[(b * T + t) * I + i];
  }
  double score(int64_t b, int64_t t, int64_t s) const {
    double sum = 0;
    for (int64_t i = 0; i < I; ++i) {
      const double x = dot(q_row(b, t, i), k_row(b, s), J);
      // Not std::max: a NaN must stay one.
      sum += w(b, t, i) * (x < 0 ? 0 : x);
    }
    return sum;
  }
};

/// Scores of the listed pairs into rows of `width`, the rest -inf.
at::Tensor scores_of(const ScoreInputs& in, const KeyLists& keys, int64_t width) {
  at::Tensor result = at::full({in.B, in.T, width}, -kInfinity, at::kDouble);
  double* out = result.data_ptr<double>();
  at::parallel_for(0, in.B * in.T, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t b = row / in.T, t = row % in.T;
      const KeyList list = keys.of(b, t);
      for (int64_t n = 0; n < list.count; ++n) out[row * width + n] = in.score(b, t, list[n]);
    }
  });
  return result;
}

IndexerGrads gradients(const at::Tensor& dscores, const ScoreInputs& in, const KeyLists& keys) {
  const at::Tensor gradient = as_double(dscores);
  const double* g = gradient.const_data_ptr<double>();
  const int64_t width = gradient.size(2);
  at::Tensor dq = at::zeros_like(in.q), dk = at::zeros_like(in.k), dw = at::zeros_like(in.weight);
  double* dq_data = dq.data_ptr<double>();
  double* dk_data = dk.data_ptr<double>();
  double* dw_data = dw.data_ptr<double>();
  for (int64_t row = 0; row < in.B * in.T; ++row) {
    const int64_t b = row / in.T, t = row % in.T;
    const KeyList list = keys.of(b, t);
    for (int64_t n = 0; n < list.count; ++n) {
      const int64_t s = list[n];
      const double ds = g[row * width + n];
      for (int64_t i = 0; i < in.I; ++i) {
        const double x = dot(in.q_row(b, t, i), in.k_row(b, s), in.J);
        if (x <= 0) continue;
        const int64_t head = row * in.I + i;
        const double dx = ds * in.w(b, t, i);
        dw_data[head] += ds * x;
        add_scaled(dq_data + head * in.J, dx, in.k_row(b, s), in.J);
        add_scaled(dk_data + (b * in.S + s) * in.J, dx, in.q_row(b, t, i), in.J);
      }
    }
  }
  return {dq, dk, dw};
}

IndexerGrads rounded_to(const IndexerGrads& g, c10::ScalarType dtype) {
  return {g.dq.to(dtype), g.dk.to(dtype), g.dweight.to(dtype)};
}

/// Ids of the best `top_k` of `visible` scores into `ids`; the count is returned.
int32_t select_row(const double* scores, int64_t b, int64_t t, int64_t visible, int64_t top_k,
                   int32_t* ids) {
  for (int64_t s = 0; s < visible; ++s)
    if (std::isnan(scores[s])) throw_nan_score(b, t, s);
  std::vector<int32_t> order(static_cast<size_t>(visible));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t other) { return scores[a] > scores[other]; });
  const int64_t count = std::min(top_k, visible);
  order.resize(static_cast<size_t>(count));
  std::sort(order.begin(), order.end());
  std::copy(order.begin(), order.end(), ids);
  return static_cast<int32_t>(count);
}

ops::Selection empty_selection(int64_t batch, int64_t queries, int64_t top_k) {
  return {at::full({batch, queries, top_k}, -1, at::kInt), at::zeros({batch, queries}, at::kInt)};
}

}  // namespace

at::Tensor indexer_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight) {
  const ScoreInputs in(q, k, weight);
  return scores_of(in, KeyLists(nullptr, in.T, in.S), in.S).to(accumulation_dtype(q.scalar_type()));
}

IndexerGrads indexer_scores_backward(const at::Tensor& dscores, const at::Tensor& q,
                                     const at::Tensor& k, const at::Tensor& weight) {
  const ScoreInputs in(q, k, weight);
  return rounded_to(gradients(dscores, in, KeyLists(nullptr, in.T, in.S)), q.scalar_type());
}

at::Tensor selected_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                           const ops::Selection& selection) {
  const ScoreInputs in(q, k, weight);
  return scores_of(in, KeyLists(&selection, in.T, in.S), selection.indices.size(2))
      .to(accumulation_dtype(q.scalar_type()));
}

IndexerGrads selected_scores_backward(const at::Tensor& dscores, const at::Tensor& q,
                                      const at::Tensor& k, const at::Tensor& weight,
                                      const ops::Selection& selection) {
  const ScoreInputs in(q, k, weight);
  return rounded_to(gradients(dscores, in, KeyLists(&selection, in.T, in.S)), q.scalar_type());
}

ops::Selection select_top_k(const at::Tensor& scores, int64_t top_k) {
  const at::Tensor exact = as_double(scores);
  const int64_t B = exact.size(0), T = exact.size(1), S = exact.size(2);
  ops::Selection result = empty_selection(B, T, top_k);
  int32_t* count = result.count.data_ptr<int32_t>();
  int32_t* ids = result.indices.data_ptr<int32_t>();
  for (int64_t row = 0; row < B * T; ++row)
    count[row] = select_row(exact.const_data_ptr<double>() + row * S, row / T, row % T,
                            row % T + S - T + 1, top_k, ids + row * top_k);
  return result;
}

ops::Selection indexer_select(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                              int64_t top_k) {
  const ScoreInputs in(q, k, weight);
  const bool wide = q.scalar_type() == at::kDouble;
  ops::Selection result = empty_selection(in.B, in.T, top_k);
  int32_t* count = result.count.data_ptr<int32_t>();
  int32_t* ids = result.indices.data_ptr<int32_t>();
  std::vector<double> scores;
  for (int64_t row = 0; row < in.B * in.T; ++row) {
    const int64_t b = row / in.T, t = row % in.T;
    scores.resize(static_cast<size_t>(t + in.S - in.T + 1));
    for (size_t s = 0; s < scores.size(); ++s) {
      const double score = in.score(b, t, static_cast<int64_t>(s));
      scores[s] = wide ? score : static_cast<float>(score);  // the same ids as in two steps
    }
    count[row] = select_row(scores.data(), b, t, static_cast<int64_t>(scores.size()), top_k,
                            ids + row * top_k);
  }
  return result;
}

}  // namespace dsa::reference
