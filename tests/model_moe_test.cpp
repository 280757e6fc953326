// Mixture of experts against a plain loop over tokens, and the balance loss.
#include "model/experts.h"
#include "model/moe.h"
#include "tests/model_fixture.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

using namespace dsa;
using dsa::testing::largest;
using dsa::testing::relative_error;

namespace {

std::shared_ptr<Moe> make_moe(ModelConfig config) {
  dsa::testing::seed_torch(21);
  auto moe = std::make_shared<Moe>(12, config);
  moe->to(at::kDouble);
  moe->eval();
  return moe;
}

/// Token by token, expert by expert, with the same parameters.
at::Tensor plain_loop(Moe& moe, const at::Tensor& hidden, int64_t n_active) {
  const auto parameters = moe.named_parameters();
  const at::Tensor tokens = hidden.flatten(0, 1);
  std::vector<at::Tensor> rows;
  for (int64_t n = 0; n < tokens.size(0); ++n) {
    const at::Tensor logits = at::linear(tokens[n], parameters["router"]);
    const auto [best, ids] = at::topk(logits, n_active);
    const at::Tensor shares = best.softmax(0);
    at::Tensor row = at::zeros_like(tokens[n]);
    for (int64_t a = 0; a < n_active; ++a) {
      const std::string expert = "expert" + std::to_string(ids[a].item<int64_t>());
      const at::Tensor active = at::silu(at::linear(tokens[n], parameters[expert + ".in"]));
      row = row + shares[a] * at::linear(active, parameters[expert + ".out"]);
    }
    rows.push_back(row);
  }
  return at::stack(rows).view(hidden.sizes());
}

}  // namespace

TEST_CASE("MoE equals a plain loop over tokens and experts, gradients too", "[model][moe]") {
  ModelConfig config;
  config.n_experts = 5;
  config.n_active = GENERATE(1, 2, 5);
  config.expert_width = 7;
  const auto moe = make_moe(config);
  const at::Tensor hidden = at::randn({2, 19, 12}, at::kDouble).set_requires_grad(true);
  const auto run = [&](const at::Tensor& output) {
    moe->zero_grad();
    hidden.mutable_grad() = at::Tensor();
    output.sin().sum().backward();
    std::vector<at::Tensor> found{output.detach(), hidden.grad().clone()};
    for (const auto& p : moe->parameters()) {
      found.push_back(p.grad().defined() ? p.grad().clone() : at::zeros_like(p));
    }
    return found;
  };
  const auto actual = run(moe->forward(hidden).hidden);
  const auto expected = run(plain_loop(*moe, hidden, config.n_active));
  for (size_t i = 0; i < actual.size(); ++i) {
    INFO("tensor " << i);
    // With one active expert its share is 1 whatever the router says: that gradient is 0 in both.
    CHECK(largest(actual[i] - expected[i]) < 1e-12 * std::max(1.0, largest(expected[i])));
  }
}

TEST_CASE("experts in float32 equal those of float64, with and without rows", "[model][moe]") {
  const int64_t n_experts = GENERATE(3, 40);
  const bool training = GENERATE(false, true);
  CAPTURE(n_experts, training);
  dsa::testing::seed_torch(5);
  std::vector<int64_t> counts;  // uneven, and some without a row
  for (int64_t e = 0; e < n_experts; ++e) counts.push_back(e % 5 == 1 ? 0 : 1 + 7 * (e % 4));
  const at::Tensor of_expert = at::tensor(counts, at::kLong);
  const at::Tensor rows = at::randn({of_expert.sum().item<int64_t>(), 24});
  std::vector<ExpertWeights> weights;
  for (int64_t e = 0; e < n_experts; ++e)
    weights.push_back({at::randn({32, 24}) / 5, at::randn({24, 32}) / 6});
  const auto run = [&](at::ScalarType type) {
    std::vector<ExpertWeights> own;
    for (const auto& w : weights) {
      own.push_back({w.in.to(type).detach().clone().requires_grad_(),
                     w.out.to(type).detach().clone().requires_grad_()});
    }
    const at::Tensor in = rows.to(type).detach().clone().requires_grad_();
    const at::Tensor out = apply_experts(in, own, of_expert, 0.0, training);
    out.sin().sum().backward();
    std::vector<at::Tensor> found{out.detach(), in.grad()};
    for (const auto& w : own) found.push_back(w.in.grad()), found.push_back(w.out.grad());
    return found;
  };
  const auto wide = run(at::kDouble), narrow = run(at::kFloat), again = run(at::kFloat);
  for (size_t i = 0; i < wide.size(); ++i) {
    INFO("tensor " << i);
    REQUIRE(narrow[i].defined());
    CHECK(largest(narrow[i].to(at::kDouble) - wide[i]) <= 2e-6 * std::max(1.0, largest(wide[i])));
    CHECK(at::equal(narrow[i], again[i]));
  }
}

TEST_CASE("an expert no token visits gets a zero gradient", "[model][moe]") {
  ModelConfig config;
  config.n_experts = 3;
  config.n_active = 1;
  config.expert_width = 7;
  const auto moe = make_moe(config);
  {
    const at::NoGradGuard no_gradient;
    moe->named_parameters()["router"].zero_();
  }
  // All logits equal: the stable order sends every token to expert 0.
  moe->forward(at::randn({1, 6, 12}, at::kDouble)).hidden.sum().backward();
  CHECK(largest(moe->named_parameters()["expert0.in"].grad()) > 0);
  CHECK(largest(moe->named_parameters()["expert2.in"].grad()) == 0);
}

TEST_CASE("uniform routing has the smallest balance loss, 1", "[model][moe]") {
  const at::Tensor ids = at::arange(12, at::TensorOptions(at::kLong)).remainder(4).view({6, 2});
  const at::Tensor level = at::zeros({6, 4}, at::kDouble);
  CHECK(std::abs(load_balance_loss(level, ids).item<double>() - 1.0) < 1e-12);
  dsa::testing::seed_torch(2);
  for (int trial = 0; trial < 20; ++trial) {
    const at::Tensor logits = 3 * at::randn({1, 4}, at::kDouble).expand({600, 4});
    const at::Tensor follows = logits.softmax(-1).multinomial(2);
    CHECK(load_balance_loss(logits, follows).item<double>() > 1.0);
  }
  const at::Tensor collapsed = at::tensor({30.0, 0.0, 0.0, 0.0}).expand({6, 4});
  CHECK(load_balance_loss(collapsed, at::zeros({6, 1}, at::kLong)).item<double>() > 3.99);
}

TEST_CASE("router noise is drawn in training only", "[model][moe]") {
  ModelConfig config;
  config.router_noise = 5.0;
  config.expert_width = 7;
  const auto moe = make_moe(config);
  const at::Tensor hidden = at::randn({1, 40, 12}, at::kDouble);
  CHECK(at::equal(moe->forward(hidden).hidden, moe->forward(hidden).hidden));
  moe->train();
  CHECK_FALSE(at::equal(moe->forward(hidden).hidden, moe->forward(hidden).hidden));
}
