// The fused row operations against torch's in float64, on every instruction set, in float32 and
// bfloat16.
#include "attention/rows.h"

#include "attention/backend.h"
#include "attention/dropped_attention.h"
#include "model/residual.h"
#include "tests/model_fixture.h"

#include <ATen/TensorOperators.h>
#include <catch2/catch_test_macros.hpp>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>

using namespace dsa;
using dsa::testing::relative_error;
using dsa::testing::seed_torch;

namespace {

/// Calls check(element type, tolerance relative to the largest value) on every ISA.
template <class Check>
void on_every_isa(const Check& check) {
  for (const std::string& isa : available_isas()) {
    CAPTURE(isa);
    pin_isa(isa);
    check(at::kFloat, 2e-6);
    check(at::kBFloat16, 8e-3);
  }
  pin_isa("auto");
}

at::Tensor normal(at::IntArrayRef sizes, at::ScalarType type) {
  return at::randn(sizes, at::kFloat).to(type);
}

/// 0 or 1 / (1 - p): what the dropping does to ones.
at::Tensor kept(const rows::Dropping& dropping, at::IntArrayRef sizes) {
  return rows::dropped(at::ones(sizes, at::kFloat), dropping, at::kFloat).to(at::kDouble);
}

}  // namespace

TEST_CASE("rows: losses, hits and gradients of logits", "[rows]") {
  seed_torch(1);
  on_every_isa([](at::ScalarType type, double tolerance) {
    for (const int64_t vocab : {1, 15, 33, 1000}) {
      CAPTURE(type, vocab);
      at::Tensor logits = (normal({9, vocab}, at::kFloat) * 20).to(type);
      at::Tensor targets = at::randint(vocab, {9}, at::TensorOptions(at::kLong));
      targets[4] = -100;
      const at::Tensor exact = logits.to(at::kDouble).requires_grad_();
      const at::Tensor each = at::cross_entropy_loss(exact, targets, {}, at::Reduction::None);
      const at::Tensor wanted = torch::autograd::grad({each.sum() * 0.25}, {exact})[0];
      const at::Tensor hits = (exact.argmax(1) == targets);
      at::Tensor losses = at::empty({9}, at::kFloat), correct = at::empty({9}, at::kBool);
      rows::cross_entropy(logits, targets, 0.25, true, losses, correct);
      CHECK(relative_error(losses, each) < 2e-6);
      CHECK(relative_error(logits, wanted) < tolerance);
      CHECK(at::equal(correct, hits));
    }
  });
}

TEST_CASE("rows: a logit that is no number makes its row's loss none", "[rows]") {
  on_every_isa([](at::ScalarType type, double) {
    for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
      at::Tensor logits = at::zeros({2, 40}, type);
      logits[0][37] = bad;
      at::Tensor losses = at::empty({2}, at::kFloat), correct = at::empty({2}, at::kBool);
      rows::cross_entropy(logits, at::zeros({2}, at::kLong), 1, true, losses, correct);
      CHECK(std::isnan(losses[0].item<float>()));
      CHECK(std::abs(losses[1].item<double>() - std::log(40.0)) < 1e-6);
    }
  });
}

TEST_CASE("rows: RMSNorm forward and backward", "[rows]") {
  seed_torch(2);
  on_every_isa([](at::ScalarType type, double tolerance) {
    for (const int64_t width : {8, 20, 256}) {
      CAPTURE(type, width);
      const at::Tensor x = normal({3, 70, width}, at::kFloat).requires_grad_();
      const at::Tensor scale = normal({width}, at::kFloat).requires_grad_();
      const at::Tensor out = rms_norm(x, scale, 1e-6, type);
      const at::Tensor dout = normal({3, 70, width}, type);
      const auto actual = torch::autograd::grad({out}, {x, scale}, {dout});
      const at::Tensor x64 = x.detach().to(at::kDouble).requires_grad_();
      const at::Tensor scale64 = scale.detach().to(at::kDouble).requires_grad_();
      const at::Tensor out64 = at::rms_norm(x64, {width}, scale64, 1e-6);
      const auto wanted = torch::autograd::grad({out64}, {x64, scale64}, {dout.to(at::kDouble)});
      CHECK(out.scalar_type() == type);
      CHECK(relative_error(out, out64) < tolerance);
      CHECK(relative_error(actual[0], wanted[0]) < 4e-6);
      CHECK(relative_error(actual[1], wanted[1]) < 4e-6);
    }
  });
}

TEST_CASE("rows: dropout drops its share, another for another seed, the same again", "[rows]") {
  const rows::Dropping some{0.3, 7}, other{0.3, 8};
  on_every_isa([&](at::ScalarType type, double) {
    const at::Tensor ones = at::ones({500, 210}, at::kFloat);
    const at::Tensor a = rows::dropped(ones, some, type), b = rows::dropped(ones, other, type);
    CHECK(at::equal(a, rows::dropped(ones, some, type)));
    const double n = 500 * 210, zeros = (a == 0).sum().item<double>();
    CHECK(std::abs(zeros - 0.3 * n) < 4 * std::sqrt(0.3 * 0.7 * n));
    const double both = ((a == 0) & (b == 0)).sum().item<double>();
    CHECK(std::abs(both - 0.09 * n) < 4 * std::sqrt(0.09 * 0.91 * n));
    // Neighbours in a row and in a column fall independently.
    for (const int64_t dim : {0, 1}) {
      const at::Tensor shifted = a.roll(1, dim);
      const double pairs = ((a == 0) & (shifted == 0)).sum().item<double>();
      CHECK(std::abs(pairs - 0.09 * n) < 5 * std::sqrt(0.09 * 0.91 * n));
    }
    CHECK(relative_error(a.max(), at::ones({}) / 0.7) < 4e-3);
  });
}

TEST_CASE("rows: every instruction set drops the same values", "[rows]") {
  const at::Tensor ones = at::ones({20, 75}, at::kFloat);
  pin_isa("portable");
  const at::Tensor wanted = rows::dropped(ones, {0.1, 3}, at::kFloat);
  on_every_isa([&](at::ScalarType, double) {
    CHECK(at::equal(rows::dropped(ones, {0.1, 3}, at::kFloat), wanted));
  });
}

TEST_CASE("rows: the residual sum and its gradients share one dropout", "[rows]") {
  on_every_isa([](at::ScalarType type, double tolerance) {
    seed_torch(3);
    const at::Tensor x = normal({2, 9, 40}, at::kFloat).requires_grad_();
    const at::Tensor branch = normal({2, 9, 40}, type).requires_grad_();
    const at::Tensor out = add_branch(x, branch, 0.4, true);
    const at::Tensor dout = normal({2, 9, 40}, at::kFloat);
    const auto actual = torch::autograd::grad({out}, {x, branch}, {dout});
    const at::Tensor factor = actual[1].to(at::kDouble) / dout.to(at::kDouble);
    CHECK(at::equal(actual[0], dout));
    CHECK(relative_error(out, x.to(at::kDouble) + branch.to(at::kDouble) * factor) < tolerance);
    CHECK((factor == 0).sum().item<int64_t>() > 0);
    CHECK(at::equal(add_branch(x, branch, 0.4, false), x + branch));
  });
}

TEST_CASE("rows: SiLU with dropout, forward and backward", "[rows]") {
  seed_torch(4);
  on_every_isa([](at::ScalarType type, double tolerance) {
    const at::Tensor x = (normal({11, 37}, at::kFloat) * 4).to(type), dout = normal({11, 37}, type);
    x[0][0] = -200.0, x[0][1] = 200.0;
    const rows::Dropping dropping{0.2, 5};
    at::Tensor out = at::empty_like(x), dx = at::empty_like(x);
    rows::silu_dropped(x, dropping, 0, out);
    rows::silu_dropped_backward(x, dout, dropping, 0, dx);
    const at::Tensor x64 = x.to(at::kDouble).requires_grad_();
    const at::Tensor out64 = at::silu(x64) * kept(dropping, {11, 37});
    const at::Tensor wanted = torch::autograd::grad({out64}, {x64}, {dout.to(at::kDouble)})[0];
    CHECK(relative_error(out, out64) < tolerance);
    CHECK(relative_error(dx, wanted) < tolerance);
    at::Tensor later = at::empty_like(x).narrow(0, 0, 4);
    rows::silu_dropped(x.narrow(0, 7, 4), dropping, 7, later);
    CHECK(at::equal(later, out.narrow(0, 7, 4)));
  });
}

TEST_CASE("rows: attention with dropout equals torch's with the same mask", "[rows]") {
  for (const int64_t length : {2, 17, 300}) {  // 300: a sequence at a time
    seed_torch(5);
    on_every_isa([&](at::ScalarType type, double tolerance) {
      CAPTURE(type, length);
      const int64_t batch = 3, heads = 2, width = 12;
      const rows::Dropping dropping{0.25, 11};
      std::vector<at::Tensor> in, exact;
      for (int i = 0; i < 3; ++i) {
        in.push_back(normal({batch, length, heads, width}, type).requires_grad_());
        exact.push_back(in.back().detach().to(at::kDouble).requires_grad_());
      }
      const at::Tensor out = dropped_attention(in[0], in[1], in[2], 0.3, dropping);
      const at::Tensor mask = kept(dropping, {batch, heads, length, length});
      const auto turned = [&](int i) { return exact[static_cast<size_t>(i)].transpose(1, 2); };
      const at::Tensor future = at::ones({length, length}, at::kBool).triu(1);
      const at::Tensor scores = (at::matmul(turned(0), turned(1).transpose(2, 3)) * 0.3)
                                    .masked_fill(future, -std::numeric_limits<double>::infinity());
      const at::Tensor out64 = at::matmul(scores.softmax(-1) * mask, turned(2)).transpose(1, 2);
      const at::Tensor dout = normal(out.sizes(), type);
      const auto actual = torch::autograd::grad({out}, in, {dout});
      const auto wanted = torch::autograd::grad({out64}, exact, {dout.to(at::kDouble)});
      CHECK(relative_error(out, out64) < tolerance);
      for (size_t i = 0; i < 3; ++i) CHECK(relative_error(actual[i], wanted[i]) < 3 * tolerance);
    });
  }
}
