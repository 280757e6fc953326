// Schedule, clipping and the update against formulas written out here in float64.
#include "harness/optimizer.h"
#include "tests/trainer_fixture.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/randn_like.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

#include <algorithm>
#include <cmath>

using namespace dsa;
using namespace dsa::testing;
using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;

namespace {

/// AdamW (or Adam: no decay, beta2 0.999) of one scalar.
struct Scalar {
  double value, mean = 0, square = 0;
  int updates = 0;
  void update(double gradient, double rate, double beta2, double decay) {
    ++updates;
    mean = 0.9 * mean + 0.1 * gradient;
    square = beta2 * square + (1 - beta2) * gradient * gradient;
    const double m = mean / (1 - std::pow(0.9, updates));
    const double v = square / (1 - std::pow(beta2, updates));
    value -= rate * decay * value + rate * m / (std::sqrt(v) + 1e-8);
  }
};

}  // namespace

TEST_CASE("the learning rate warms up linearly, then follows a cosine to its floor", "[trainer]") {
  TrainConfig config;
  config.steps = 110;
  config.warmup_steps = 10;
  config.min_learning_rate_fraction = 0.1;
  CHECK_THAT(schedule_factor(config, 0), WithinAbs(0.1, 1e-12));
  CHECK_THAT(schedule_factor(config, 4), WithinAbs(0.5, 1e-12));
  CHECK_THAT(schedule_factor(config, 9), WithinAbs(1, 1e-12));
  CHECK_THAT(schedule_factor(config, 10), WithinAbs(1, 1e-12));
  CHECK_THAT(schedule_factor(config, 10 + 33), WithinAbs(0.1 + 0.9 * 0.75, 1e-12));
  CHECK_THAT(schedule_factor(config, 109), WithinAbs(0.1, 1e-12));
  CHECK_THAT(schedule_factor(config, 500), WithinAbs(0.1, 1e-12));
  for (int64_t step = 11; step < 110; ++step) {
    CHECK(schedule_factor(config, step) < schedule_factor(config, step - 1));
  }
  config.schedule = "constant";
  CHECK(schedule_factor(config, 4) == 0.5);
  CHECK(schedule_factor(config, 60) == 1);
  config.warmup_steps = 0;
  CHECK(schedule_factor(config, 0) == 1);
  config.schedule = "cosine";
  CHECK(schedule_factor(config, 0) == 1);
  config.steps = 1;
  CHECK(std::isfinite(schedule_factor(config, 0)));
}

TEST_CASE("updates follow the formula, and only matrices decay", "[trainer]") {
  for (const std::string kind : {"adamw", "adam"}) {
    CAPTURE(kind);
    Transformer model("dsa", tiny_attention(), tiny_model());
    TrainConfig config;
    config.optimizer = kind;
    config.weight_decay = 0.5;
    Optimizer optimizer(model, config);
    const auto indexer = model.indexer_parameters();
    std::vector<Scalar> expected;
    for (const auto& value : model.parameters()) {
      expected.push_back({value.detach().flatten()[0].item<double>()});
    }
    const double beta2 = kind == "adam" ? 0.999 : 0.95;
    for (int step = 1; step <= 3; ++step) {
      size_t at = 0;
      for (auto& value : model.parameters()) {
        const double gradient = 0.1 * step * (at % 2 == 0 ? 1 : -1);
        value.mutable_grad() = at::full_like(value.detach(), gradient);
        const bool learns = std::any_of(indexer.begin(), indexer.end(),
                                        [&](const at::Tensor& own) { return own.is_same(value); });
        expected[at].update(gradient, 0.5 * (learns ? 0.002 : 0.01), beta2,
                            kind == "adamw" && value.dim() >= 2 ? 0.5 : 0);
        ++at;
      }
      optimizer.update(0.005, 0.001);
    }
    size_t at = 0;
    for (const auto& item : model.named_parameters()) {
      CAPTURE(item.key());
      CHECK_THAT(item.value().detach().flatten()[0].item<double>(),
                 WithinAbs(expected[at++].value, 2e-6));
    }
  }
}

TEST_CASE("a parameter without a gradient is left alone", "[trainer]") {
  Transformer model("dense", tiny_attention(), tiny_model());
  Optimizer optimizer(model, {});
  auto parameters = model.parameters();
  const at::Tensor before = parameters[1].detach().clone();
  parameters[0].mutable_grad() = at::full_like(parameters[0].detach(), 1);
  const at::Tensor moved = parameters[0].detach().clone();
  optimizer.update(1e-3, 1e-3);
  CHECK(parameters[1].detach().equal(before));
  CHECK(!parameters[0].detach().equal(moved));
  optimizer.forget_gradients();
  CHECK(!parameters[0].grad().defined());
}

TEST_CASE("each group is clipped by its own norm", "[trainer]") {
  Transformer model("dsa", tiny_attention(), tiny_model());
  TrainConfig config;
  config.grad_clip = 1;
  Optimizer optimizer(model, config);
  const auto indexer = model.indexer_parameters();
  REQUIRE(!indexer.empty());
  for (auto& value : model.parameters()) value.mutable_grad() = at::full_like(value.detach(), 1e-4);
  for (auto value : indexer) value.mutable_grad() = at::full_like(value.detach(), 100);
  const Optimizer::Norms before = optimizer.gradient_norms();
  int64_t of_indexer = 0;
  for (const auto& value : indexer) of_indexer += value.numel();
  const auto of_model = static_cast<double>(model.parameter_count() - of_indexer);
  CHECK_THAT(before.model, WithinRel(1e-4 * std::sqrt(of_model), 1e-5));
  CHECK_THAT(before.indexer, WithinRel(100 * std::sqrt(static_cast<double>(of_indexer)), 1e-5));
  REQUIRE(before.model < 1);
  optimizer.clip(before);
  const Optimizer::Norms after = optimizer.gradient_norms();
  CHECK(after.model == before.model);
  CHECK_THAT(after.indexer, WithinRel(1.0, 1e-5));
}

TEST_CASE("a gradient clip of 0 clips nothing", "[trainer]") {
  Transformer model("dense", tiny_attention(), tiny_model());
  TrainConfig config;
  config.grad_clip = 0;
  Optimizer optimizer(model, config);
  for (auto& value : model.parameters()) value.mutable_grad() = at::full_like(value.detach(), 7);
  const auto before = optimizer.gradient_norms();
  optimizer.clip(before);
  CHECK(optimizer.gradient_norms().model == before.model);
}
