// The chunked linear cross-entropy against the plain one that keeps all logits.
#include "model/head.h"
#include "tests/model_fixture.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <torch/csrc/autograd/autograd.h>

using namespace dsa;
using dsa::testing::relative_error;

namespace {

struct HeadInputs {
  at::Tensor hidden, weight, targets;
};

HeadInputs head_inputs(int64_t tokens, int64_t width, int64_t vocab) {
  dsa::testing::seed_torch(11);
  HeadInputs inputs{at::randn({tokens, width}, at::kDouble), at::randn({vocab, width}, at::kDouble),
                    dsa::testing::random_tokens(1, tokens, vocab).flatten()};
  inputs.hidden.set_requires_grad(true);
  inputs.weight.set_requires_grad(true);
  return inputs;
}

std::vector<at::Tensor> gradients(const at::Tensor& loss, const HeadInputs& inputs) {
  return torch::autograd::grad({loss}, {inputs.hidden, inputs.weight});
}

}  // namespace

TEST_CASE("the chunked head equals plain cross-entropy for any chunk", "[model][head]") {
  HeadInputs inputs = head_inputs(37, 12, 29);
  inputs.targets.index_put_({at::indexing::Slice(0, 37, 5)}, kNotScored);
  const at::Tensor logits = at::linear(inputs.hidden, inputs.weight);
  const at::Tensor plain = at::cross_entropy_loss(logits, inputs.targets);
  const auto expected = gradients(plain, inputs);

  const int64_t chunk = GENERATE(0, 1, 7, 16, 37, 1000);
  const HeadOutput output =
      linear_cross_entropy(inputs.hidden, inputs.weight, inputs.targets, chunk);
  const auto actual = gradients(output.loss, inputs);
  CHECK(relative_error(output.loss, plain) < 1e-6);
  CHECK(relative_error(actual[0], expected[0]) < 1e-12);
  CHECK(relative_error(actual[1], expected[1]) < 1e-12);
  const at::Tensor scored = inputs.targets != kNotScored;
  CHECK(at::equal(output.correct, (logits.argmax(1) == inputs.targets) & scored));
  const at::Tensor each = at::cross_entropy_loss(logits, inputs.targets, {}, at::Reduction::None);
  CHECK(relative_error(output.token_losses, each) < 1e-6);
  CHECK_FALSE(output.token_losses.requires_grad());
}

TEST_CASE("the head scales its gradients by what comes from above", "[model][head]") {
  const HeadInputs inputs = head_inputs(9, 4, 6);
  const HeadOutput output = linear_cross_entropy(inputs.hidden, inputs.weight, inputs.targets, 4);
  const auto once = torch::autograd::grad({output.loss}, {inputs.hidden, inputs.weight}, {}, true);
  const auto scaled = gradients(output.loss * -3.0, inputs);
  CHECK(relative_error(scaled[0], -3.0 * once[0]) < 1e-14);
  CHECK(relative_error(scaled[1], -3.0 * once[1]) < 1e-14);
}

TEST_CASE("with no scored token the loss and its gradients are zero", "[model][head]") {
  const HeadInputs inputs = head_inputs(5, 4, 6);
  const at::Tensor targets = at::full_like(inputs.targets, kNotScored);
  const HeadOutput output = linear_cross_entropy(inputs.hidden, inputs.weight, targets, 2);
  CHECK(output.loss.item<double>() == 0.0);
  CHECK(dsa::testing::largest(gradients(output.loss, inputs)[1]) == 0.0);
  CHECK_FALSE(output.correct.any().item<bool>());
}

TEST_CASE("equal logits are no hit for a later id", "[model][head]") {
  const at::Tensor hidden = at::ones({3, 4}), weight = at::zeros({5, 4});
  const at::Tensor targets = at::arange(3, at::TensorOptions(at::kLong));
  const HeadOutput output = linear_cross_entropy(hidden, weight, targets, 0);
  CHECK(output.correct[0].item<bool>());
  CHECK_FALSE(output.correct[1].item<bool>());
  CHECK_FALSE(output.correct[2].item<bool>());
}

TEST_CASE("huge logits do not overflow the head", "[model][head]") {
  const at::Tensor hidden = at::full({1, 1}, 300.0),
                   weight = at::arange(3, at::kFloat).unsqueeze(1);
  const auto output = linear_cross_entropy(hidden, weight, at::zeros({1}, at::kLong), 0);
  CHECK(output.loss.item<double>() == 600.0);
}

TEST_CASE("a target outside the vocabulary is named", "[model][head]") {
  const HeadInputs inputs = head_inputs(5, 4, 6);
  inputs.targets[3] = 6;
  CHECK_THROWS_AS(linear_cross_entropy(inputs.hidden, inputs.weight, inputs.targets, 2), Error);
}
