// Sparse attention, its gradients and its mass in float64, by plain loops: the truth the `cpu`
// kernels are held to. Kept apart from the reference backend, so that neither can hide the other's
// mistake. Also random causal selections and the error of a row.
#pragma once
#include "attention/backend.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace dsa::test {

struct AttendCase {
  int64_t batch, queries, keys, heads, kv_heads, width, v_width, top_k;
  uint64_t seed = 1;
  int64_t empty_every = 0;  ///< every n-th query selects nothing

  std::string text() const {
    std::string line = "B T S H G D V K seed:";
    for (int64_t x : {batch, queries, keys, heads, kv_heads, width, v_width, top_k}) {
      line += " ";
      line += std::to_string(x);
    }
    return line + " " + std::to_string(seed);
  }
};

struct AttendInputs {
  at::Tensor q, k, v, dout;  ///< float32
  ops::Selection selection;
  double scale;
};

/// Normal numbers made here, not by torch: the same on every version.
inline at::Tensor normal(at::IntArrayRef shape, std::mt19937_64& random) {
  at::Tensor x = at::empty(shape, at::kFloat);
  std::normal_distribution<float> gaussian;
  for (int64_t i = 0; i < x.numel(); ++i) x.data_ptr<float>()[i] = gaussian(random);
  return x;
}

/// min(K, visible) random visible keys of each query, ascending, padded with -1.
inline ops::Selection random_selection(const AttendCase& c, std::mt19937_64& random) {
  ops::Selection chosen{at::full({c.batch, c.queries, c.top_k}, -1, at::kInt),
                        at::zeros({c.batch, c.queries}, at::kInt)};
  int32_t* ids = chosen.indices.data_ptr<int32_t>();
  int32_t* counts = chosen.count.data_ptr<int32_t>();
  std::vector<int32_t> visible;
  for (int64_t row = 0; row < c.batch * c.queries; ++row) {
    const int64_t t = row % c.queries, n = t + 1 + c.keys - c.queries;
    if (c.empty_every > 0 && t % c.empty_every == 0) continue;
    visible.resize(static_cast<size_t>(n));
    for (int64_t s = 0; s < n; ++s) visible[static_cast<size_t>(s)] = static_cast<int32_t>(s);
    const int64_t take = std::min(c.top_k, n);
    std::sample(visible.begin(), visible.end(), ids + row * c.top_k, take, random);
    counts[row] = static_cast<int32_t>(take);
  }
  return chosen;
}

inline AttendInputs inputs_of(const AttendCase& c) {
  std::mt19937_64 random(c.seed);
  AttendInputs in;
  in.q = normal({c.batch, c.queries, c.heads, c.width}, random);
  in.k = normal({c.batch, c.keys, c.kv_heads, c.width}, random);
  in.v = normal({c.batch, c.keys, c.kv_heads, c.v_width}, random);
  in.dout = normal({c.batch, c.queries, c.heads, c.v_width}, random);
  in.selection = random_selection(c, random);
  in.scale = 1.0 / std::sqrt(static_cast<double>(c.width));
  return in;
}

struct Oracle {
  std::vector<double> out, lse, mass, dq, dk, dv;
  /// What each gradient row adds up, by absolute value: the scale of its rounding errors.
  std::vector<double> dq_terms, dk_terms;
};

inline double dot(const float* a, const float* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

/// Adds one (query, head) to the oracle.
inline void oracle_row(const AttendCase& c, const AttendInputs& in, int64_t row, int64_t h,
                       Oracle& o) {
  const int64_t b = row / c.queries, g = h * c.kv_heads / c.heads, i = row * c.heads + h;
  const int32_t* ids = in.selection.indices.const_data_ptr<int32_t>() + row * c.top_k;
  const int64_t n = in.selection.count.const_data_ptr<int32_t>()[row];
  if (n == 0) {
    o.lse[static_cast<size_t>(i)] = -INFINITY;
    return;
  }
  const float* q = in.q.const_data_ptr<float>() + i * c.width;
  const float* dout = in.dout.const_data_ptr<float>() + i * c.v_width;
  const auto kv = [&](int64_t j) { return (b * c.keys + ids[j]) * c.kv_heads + g; };
  const float* k = in.k.const_data_ptr<float>();
  const float* v = in.v.const_data_ptr<float>();
  std::vector<double> p(static_cast<size_t>(n)), dp(p.size());
  double top = -INFINITY, sum = 0, delta = 0;
  for (int64_t j = 0; j < n; ++j) {
    p[static_cast<size_t>(j)] = in.scale * dot(q, k + kv(j) * c.width, c.width);
    top = std::max(top, p[static_cast<size_t>(j)]);
  }
  for (double& x : p) sum += x = std::exp(x - top);
  o.lse[static_cast<size_t>(i)] = top + std::log(sum);
  for (int64_t j = 0; j < n; ++j) {
    const size_t at = static_cast<size_t>(j);
    p[at] /= sum;
    dp[at] = dot(dout, v + kv(j) * c.v_width, c.v_width);
    delta += p[at] * dp[at];
    o.mass[static_cast<size_t>(row * c.top_k + j)] += p[at] / static_cast<double>(c.heads);
    for (int64_t x = 0; x < c.v_width; ++x) {
      o.out[static_cast<size_t>(i * c.v_width + x)] += p[at] * v[kv(j) * c.v_width + x];
      o.dv[static_cast<size_t>(kv(j) * c.v_width + x)] += p[at] * dout[x];
    }
  }
  for (int64_t j = 0; j < n; ++j) {
    const size_t at = static_cast<size_t>(j), key = static_cast<size_t>(kv(j));
    const double ds = in.scale * p[at] * (dp[at] - delta);
    const double size = in.scale * p[at] * (std::abs(dp[at]) + std::abs(delta));
    o.dq_terms[static_cast<size_t>(i)] += size * std::sqrt(static_cast<double>(c.width));
    o.dk_terms[key] += size * std::sqrt(static_cast<double>(c.width));
    for (int64_t x = 0; x < c.width; ++x) {
      o.dq[static_cast<size_t>(i * c.width + x)] += ds * k[kv(j) * c.width + x];
      o.dk[key * static_cast<size_t>(c.width) + static_cast<size_t>(x)] += ds * q[x];
    }
  }
}

inline Oracle oracle_of(const AttendCase& c, const AttendInputs& in) {
  const auto zeros = [](int64_t n) { return std::vector<double>(static_cast<size_t>(n)); };
  const int64_t rows = c.batch * c.queries * c.heads, kv = c.batch * c.keys * c.kv_heads;
  Oracle o{zeros(rows * c.v_width),
           zeros(rows),
           zeros(c.batch * c.queries * c.top_k),
           zeros(rows * c.width),
           zeros(kv * c.width),
           zeros(kv * c.v_width),
           zeros(rows),
           zeros(kv)};
  for (int64_t row = 0; row < c.batch * c.queries; ++row)
    for (int64_t h = 0; h < c.heads; ++h) oracle_row(c, in, row, h, o);
  return o;
}

struct WorstRow {
  double error = 0;  ///< |found - exact| / |exact|, Euclidean
  int64_t row = 0;
};

/// @param terms  if given, a row's error is divided by at least a fifth of its terms: rows that
///               cancel (one key: dq is exactly 0) are held to 5e-6 / 5 = 16 units of 2^-24 of their
///               terms, the rounding of base-2 scores up to 16 from which p is recomputed
inline WorstRow worst_row(const at::Tensor& found, const std::vector<double>& exact, int64_t width,
                          const std::vector<double>* terms = nullptr) {
  WorstRow worst;
  const float* x = found.const_data_ptr<float>();
  for (int64_t row = 0; row < found.numel() / width; ++row) {
    double error = 0, size = 0;
    for (int64_t i = row * width; i < (row + 1) * width; ++i) {
      const double y = exact[static_cast<size_t>(i)];
      error += (x[i] - y) * (x[i] - y);
      size += y * y;
    }
    const double floor = terms ? 0.2 * (*terms)[static_cast<size_t>(row)] : 0.0;
    const double scale = std::max(std::sqrt(size), floor);
    // A row of zeros must be met exactly; NaN must not pass.
    const double relative = error == 0 ? 0.0 : scale == 0 ? INFINITY : std::sqrt(error) / scale;
    if (!(relative <= worst.error)) worst = {relative, row};
  }
  return worst;
}

}  // namespace dsa::test
