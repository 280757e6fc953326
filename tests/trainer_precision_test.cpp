// Training in bfloat16: as reproducible as in float32, and nearly as good; what must stay float32 does.
#include "harness/safetensors.h"
#include "model/head.h"
#include "tests/model_fixture.h"
#include "tests/temporary_folder.h"
#include "tests/trainer_fixture.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

using namespace dsa;
using namespace dsa::testing;
using Catch::Matchers::ContainsSubstring;

namespace {

TrainConfig narrow_train() {
  TrainConfig config = tiny_train();
  config.precision = "bf16";
  return config;
}

std::unique_ptr<Trainer> narrow_trainer(const std::string& variant, const Batches& batches) {
  AttentionConfig attention = tiny_attention();
  return std::make_unique<Trainer>(variant, attention, tiny_model(), narrow_train(), batches, 1);
}

std::vector<double> curve_of(const char* variant, const char* precision, const Batches& batches) {
  TrainConfig config = tiny_train();
  config.precision = precision;
  config.steps = 150;
  config.learning_rate = 3e-3;
  ModelConfig model = tiny_model();
  model.dropout = model.router_noise = 0;  // both see the same randomness: none
  Trainer trainer(variant, tiny_attention(), model, config, batches, 1);
  std::vector<double> curve;
  for (int i = 0; i < 150; ++i) curve.push_back(trainer.step().loss);
  return curve;
}

}  // namespace

TEST_CASE("bf16: every variant trains to the same bits twice, other bits than f32's", "[bf16]") {
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 3, 1);
  for (const auto& variant : variants()) {
    CAPTURE(variant.name);
    const auto first = narrow_trainer(variant.name, *batches);
    const auto second = narrow_trainer(variant.name, *batches);
    const auto wide = tiny_trainer(variant.name, *batches);
    bool differs = false;
    for (int step = 0; step < 5; ++step) {
      const double loss = first->step().loss;
      CHECK(second->step().loss == loss);
      differs = differs || wide->step().loss != loss;
    }
    CHECK(differs);
    for (const auto& weight : first->model().parameters()) {
      CHECK(weight.scalar_type() == at::kFloat);
    }
  }
}

TEST_CASE("bf16: a checkpoint continues bit for bit", "[bf16]") {
  const TemporaryFolder folder;
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 3, 1);
  for (const std::string variant : {"dense", "dsa"}) {
    CAPTURE(variant);
    const auto straight = narrow_trainer(variant, *batches);
    for (int i = 0; i < 4; ++i) straight->step();
    straight->save(folder.path("c.safetensors"));
    const auto resumed = narrow_trainer(variant, *batches);
    resumed->load(folder.path("c.safetensors"));
    for (int i = 0; i < 4; ++i) CHECK(straight->step().loss == resumed->step().loss);
    straight->save(folder.path("a.safetensors"));
    resumed->save(folder.path("b.safetensors"));
    const Safetensors a = read_safetensors(folder.path("a.safetensors"));
    const Safetensors b = read_safetensors(folder.path("b.safetensors"));
    for (const auto& [name, tensor] : a.tensors) {
      CAPTURE(name);
      CHECK(tensor.equal(b.tensors.at(name)));
    }
  }
}

TEST_CASE("bf16: the loss curve stays within 5 % of f32's start", "[bf16]") {
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 32, 8, 1);
  for (const char* variant : {"dense", "dsa"}) {
    CAPTURE(variant);
    const auto wide = curve_of(variant, "f32", *batches),
               narrow = curve_of(variant, "bf16", *batches);
    double apart = 0;
    for (size_t i = 0; i < wide.size(); ++i) apart = std::max(apart, std::abs(wide[i] - narrow[i]));
    CAPTURE(apart, wide.front(), wide.back(), narrow.back());
    CHECK(apart < 0.05 * wide.front());
    CHECK(narrow.back() < 0.5 * narrow.front());
  }
}

TEST_CASE("bf16: evaluation is float32's, to the bit", "[bf16]") {
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 3, 1);
  const auto tiles = validation_tiles(corpus, 16, 3);
  const auto narrow = narrow_trainer("dsa", *batches), wide = tiny_trainer("dsa", *batches);
  CHECK(evaluate(narrow->model(), tiles, 1).loss == evaluate(wide->model(), tiles, 1).loss);
}

TEST_CASE("bf16: the head's loss and gradients are those of the rounded inputs", "[bf16]") {
  seed_torch(6);
  const at::Tensor hidden = at::randn({70, 32}).to(at::kBFloat16).requires_grad_();
  const at::Tensor weight = at::randn({90, 32}).to(at::kBFloat16).to(at::kFloat).requires_grad_();
  const at::Tensor targets = random_tokens(1, 70, 90).flatten();
  const HeadOutput head = linear_cross_entropy(hidden, weight, targets, 32);
  const auto actual = torch::autograd::grad({head.loss}, {hidden, weight});
  const at::Tensor hidden64 = hidden.detach().to(at::kDouble).requires_grad_();
  const at::Tensor weight64 = weight.detach().to(at::kDouble).requires_grad_();
  const at::Tensor loss64 = at::cross_entropy_loss(at::linear(hidden64, weight64), targets);
  const auto wanted = torch::autograd::grad({loss64}, {hidden64, weight64});
  CHECK(head.loss.scalar_type() == at::kFloat);
  CHECK(actual[1].scalar_type() == at::kFloat);
  CHECK(relative_error(head.loss, loss64) < 4e-3);
  CHECK(relative_error(actual[0], wanted[0]) < 2e-2);
  CHECK(relative_error(actual[1], wanted[1]) < 2e-2);
}

TEST_CASE("float32 gradients of the whole model are float64's, embedding and head tied", "[bf16]") {
  for (const char* variant : {"dense", "window", "dsa_untrained"}) {
    CAPTURE(variant);
    const auto model = make_model(variant), exact = make_model(variant);
    exact->to(at::kDouble);
    const at::Tensor tokens = random_tokens(3, 24, 50), targets = targets_of(tokens);
    const auto gradients = [&](Transformer& m) {
      m.zero_grad();
      const ModelOutput output = m.forward(tokens, targets);
      const at::Tensor loss = m.training_loss(output);
      loss.backward({}, /*retain_graph=*/true);
      const at::Tensor once = m.parameters()[0].grad().clone();
      m.zero_grad();
      loss.backward();  // the first pass must not have written into what the graph keeps
      CHECK(relative_error(m.parameters()[0].grad(), once) < 1e-12);
      std::map<std::string, at::Tensor> all;
      for (const auto& p : m.named_parameters()) {
        if (p.value().grad().defined()) all[p.key()] = p.value().grad().clone();
      }
      return all;
    };
    const auto actual = gradients(*model), wanted = gradients(*exact);
    REQUIRE(actual.size() == wanted.size());
    for (const auto& [name, gradient] : wanted) {
      CAPTURE(name);
      CHECK(relative_error(actual.at(name), gradient) < 2e-5);
    }
  }
}

TEST_CASE("an unknown precision is refused by name", "[bf16]") {
  TrainConfig config;
  config.precision = "fp8";
  CHECK_THROWS_WITH(check(config),
                    ContainsSubstring("train.precision") && ContainsSubstring("bf16"));
}
