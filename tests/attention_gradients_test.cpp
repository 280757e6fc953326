// Gradients: the oracle against finite differences in float64, then every backend against the oracle.
// Selections are frozen and inputs keep away from relu's kink, where no derivative exists.
#include "attention/backend.h"
#include "attention/ops.h"
#include "tests/close_to.h"
#include "tests/shapes.h"

#include <ATen/core/grad_mode.h>
#include <catch2/catch_test_macros.hpp>

#include <functional>
#include <limits>
#include <vector>

using namespace dsa;
using namespace dsa::testing;

namespace {

constexpr uint64_t kGradientSeed = 20260303;
constexpr double kStep = 1e-5;

using Loss = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

/// A fixed random projection, so that no gradient is a symmetric sum that hides an error.
at::Tensor projected(const at::Tensor& x) {
  const at::Tensor finite = x.masked_fill(x.isinf(), 0);
  return (finite * at::arange(1, x.numel() + 1, x.options()).mul(0.7).sin().view(x.sizes())).sum();
}

std::vector<at::Tensor> gradients(const Loss& loss, std::vector<at::Tensor> inputs) {
  for (at::Tensor& x : inputs) x = x.detach().clone().requires_grad_();
  loss(inputs).backward();
  std::vector<at::Tensor> result;
  for (const at::Tensor& x : inputs) result.push_back(x.grad());
  return result;
}

at::Tensor finite_difference(const Loss& loss, std::vector<at::Tensor> inputs, size_t which) {
  const at::NoGradGuard no_grad;
  inputs[which] = inputs[which].clone();
  at::Tensor slope = at::empty_like(inputs[which]);
  double* x = inputs[which].data_ptr<double>();
  for (int64_t i = 0; i < slope.numel(); ++i) {
    const double centre = x[i];
    x[i] = centre + kStep;
    const double after = loss(inputs).item<double>();
    x[i] = centre - kStep;
    const double before = loss(inputs).item<double>();
    x[i] = centre;
    slope.data_ptr<double>()[i] = (after - before) / (2 * kStep);
  }
  return slope;
}

void check_by_differences(const Loss& loss, const std::vector<at::Tensor>& inputs) {
  const UseBackend use("reference");
  const std::vector<at::Tensor> analytic = gradients(loss, inputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    CAPTURE(i);
    const at::Tensor numeric = finite_difference(loss, inputs, i);
    const double worst = (analytic[i] - numeric).abs().max().item<double>();
    const double largest = numeric.abs().max().item<double>();
    CAPTURE(worst, largest);
    CHECK(worst <= 1e-7 * std::max(1.0, largest));
  }
}

/// Indexer inputs none of whose q.k comes near 0.
IndexerInputs away_from_kinks(const Shape& shape, c10::ScalarType dtype) {
  for (uint64_t seed = kGradientSeed;; ++seed) {
    IndexerInputs in = indexer_inputs(shape, seed, dtype);
    const at::Tensor x = at::matmul(in.q.to(at::kDouble).transpose(1, 2),
                                    in.k.to(at::kDouble).unsqueeze(1).transpose(-1, -2));
    if (x.abs().min().item<double>() > 1e-4) return in;
  }
}

const Shape kSmall{.B = 2, .T = 4, .S = 6, .H = 4, .G = 2, .D = 3, .V = 5, .I = 3, .J = 4, .K = 3};

std::vector<Shape> gradient_shapes() {
  std::vector<Shape> shapes;
  for (const Shape& s : edge_shapes())
    if (s.T <= 40) shapes.push_back(s);
  shapes.push_back(
      {.B = 1, .T = 70, .S = 90, .H = 4, .G = 2, .D = 32, .V = 32, .I = 4, .J = 32, .K = 20});
  return shapes;
}

/// Compares the gradients of `loss` on every backend that provides them with the oracle's.
void check_backends(Op op, const Shape& shape, c10::ScalarType dtype, const Loss& loss,
                    const std::vector<at::Tensor>& inputs, int64_t terms) {
  Problem p;
  p.batch = shape.B, p.queries = shape.T, p.keys = shape.S, p.heads = shape.H;
  p.kv_heads = shape.G, p.qk_width = shape.D, p.v_width = shape.V, p.top_k = shape.K;
  p.index_heads = shape.I, p.index_width = shape.J, p.dtype = dtype, p.backward = true;
  std::vector<at::Tensor> exact, rounded;
  for (const at::Tensor& x : inputs) exact.push_back(x.to(dtype).to(at::kDouble));
  for (const at::Tensor& x : inputs) rounded.push_back(x.to(dtype));
  std::vector<at::Tensor> truth;
  {
    const UseBackend use("reference");
    truth = gradients(loss, exact);
  }
  for (const Backend& row : backends()) {
    if (reason_to_decline(row, op, p)) continue;
    const UseBackend use(row.name);
    const std::vector<at::Tensor> got = gradients(loss, rounded);
    for (size_t i = 0; i < got.size(); ++i) {
      CAPTURE(row.name, name(op), shape.text(), dtype, kGradientSeed, i);
      CHECK(got[i].scalar_type() == dtype);
      // Rows may cancel to nothing (K = 1: dq = 0), so errors are relative to the tensor's rms row,
      // or to a part of the size-1 terms that cancelled.
      const double rms = truth[i].norm(2, -1).square().mean().sqrt().item<double>();
      CHECK_THAT(got[i], CloseTo(truth[i], terms, std::max(rms, 0.2)));
    }
  }
}

Loss dense_loss(double scale) {
  return [scale](const std::vector<at::Tensor>& x) {
    return projected(ops::dense_attention(x[0], x[1], x[2], scale).out.to(at::kDouble));
  };
}

Loss sparse_loss(const ops::Selection& selection, double scale) {
  return [=](const std::vector<at::Tensor>& x) {
    return projected(ops::sparse_attention(x[0], x[1], x[2], selection, scale).out.to(at::kDouble));
  };
}

Loss scores_loss() {
  return [](const std::vector<at::Tensor>& x) {
    return projected(ops::indexer_scores(x[0], x[1], x[2]).to(at::kDouble));
  };
}

Loss selected_loss(const ops::Selection& selection) {
  return [=](const std::vector<at::Tensor>& x) {
    return projected(ops::selected_scores(x[0], x[1], x[2], selection).to(at::kDouble));
  };
}

}  // namespace

TEST_CASE("the oracle's gradients are slopes", "[gradients]") {
  const AttentionInputs in = attention_inputs(kSmall, kGradientSeed, at::kDouble);
  const ops::Selection selection = random_selection(kSmall, kGradientSeed);
  SECTION("dense attention") {
    check_by_differences(dense_loss(in.scale), {in.q, in.k, in.v});
  }
  SECTION("sparse attention") {
    check_by_differences(sparse_loss(selection, in.scale), {in.q, in.k, in.v});
  }
  const IndexerInputs index = away_from_kinks(kSmall, at::kDouble);
  SECTION("indexer scores") {
    check_by_differences(scores_loss(), {index.q, index.k, index.weight});
  }
  SECTION("selected scores") {
    check_by_differences(selected_loss(selection), {index.q, index.k, index.weight});
  }
  SECTION("the KL loss through the selected scores") {
    const at::Tensor lse = ops::sparse_attention(in.q, in.k, in.v, selection, in.scale).lse;
    const at::Tensor target = ops::selected_attention_mass(in.q, in.k, selection, lse, in.scale);
    check_by_differences(
        [&](const std::vector<at::Tensor>& x) {
          return ops::indexer_kl(ops::selected_scores(x[0], x[1], x[2], selection), target,
                                 selection);
        },
        {index.q, index.k, index.weight});
  }
}

TEST_CASE("relu at exactly 0 passes no gradient", "[gradients]") {
  const at::Tensor q = at::tensor({1.0, -1.0}).view({1, 1, 1, 2});
  const at::Tensor k = at::ones({1, 1, 2}, at::kDouble), weight = at::ones({1, 1, 1}, at::kDouble);
  for (const Backend& row : backends()) {
    Problem p;
    p.batch = p.queries = p.keys = p.index_heads = 1;
    p.index_width = 2, p.backward = true;
    if (reason_to_decline(row, Op::kIndexerScores, p)) continue;
    const UseBackend use(row.name);
    CAPTURE(row.name);
    for (const at::Tensor& g :
         gradients(scores_loss(), {q.to(at::kFloat), k.to(at::kFloat), weight.to(at::kFloat)}))
      CHECK(g.abs().max().item<float>() == 0);
  }
}

TEST_CASE("gradients of every backend agree with the oracle", "[gradients]") {
  for (const Shape& shape : gradient_shapes())
    for (const auto dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
      const AttentionInputs in = attention_inputs(shape, kGradientSeed, at::kDouble);
      const ops::Selection selection = random_selection(shape, kGradientSeed);
      const std::vector<at::Tensor> qkv = {in.q, in.k, in.v};
      check_backends(Op::kDense, shape, dtype, dense_loss(in.scale), qkv, shape.D + 2 * shape.S);
      check_backends(Op::kSparse, shape, dtype, sparse_loss(selection, in.scale), qkv,
                     shape.D + shape.S + shape.K);
      const IndexerInputs index = away_from_kinks(shape, dtype);
      const std::vector<at::Tensor> qkw = {index.q, index.k, index.weight};
      check_backends(Op::kIndexerScores, shape, dtype, scores_loss(), qkw, shape.J + 2 * shape.S);
      check_backends(Op::kSelectedScores, shape, dtype, selected_loss(selection), qkw,
                     shape.J + 2 * shape.S);
    }
}

TEST_CASE("attention mass and selections carry no gradient", "[gradients]") {
  AttentionInputs in = attention_inputs(kSmall, kGradientSeed, at::kDouble);
  in.q.requires_grad_();
  const ops::Selection selection = random_selection(kSmall, kGradientSeed);
  const auto forward = ops::sparse_attention(in.q, in.k, in.v, selection, in.scale);
  CHECK(forward.out.requires_grad());
  CHECK_FALSE(forward.lse.requires_grad());
  CHECK_FALSE(
      ops::selected_attention_mass(in.q, in.k, selection, forward.lse, in.scale).requires_grad());
}

TEST_CASE("a backend without a backward declines in words when gradients are wanted",
          "[gradients]") {
  Backend forward_only = backend("reference");
  forward_only.sparse_backward = nullptr;
  Problem p;
  CHECK_FALSE(reason_to_decline(forward_only, Op::kSparse, p));
  p.backward = true;
  CHECK(reason_to_decline(forward_only, Op::kSparse, p) ==
        "it has no backward of sparse_attention");
}
