// The loop: same seed same bits, a bad step is refused before the update, and training learns.
#include "harness/trainer.h"

#include "attention/fields.h"
#include "tests/trainer_fixture.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/rand.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <cmath>
#include <limits>

using namespace dsa;
using namespace dsa::testing;
using Catch::Matchers::ContainsSubstring;

namespace {

std::vector<double> losses(Trainer& trainer, int steps) {
  std::vector<double> all;
  for (int i = 0; i < steps; ++i) all.push_back(trainer.step().loss);
  return all;
}

std::vector<at::Tensor> weights(Trainer& trainer) {
  std::vector<at::Tensor> all;
  for (const auto& value : trainer.model().parameters()) all.push_back(value.detach().clone());
  return all;
}

bool same(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  bool equal = a.size() == b.size();
  for (size_t i = 0; equal && i < a.size(); ++i) equal = a[i].equal(b[i]);
  return equal;
}

}  // namespace

TEST_CASE("the same seed gives the same bits twice, whatever runs in between", "[trainer]") {
  const Corpus corpus = tiny_corpus();
  for (const auto& variant : variants()) {
    CAPTURE(variant.name);
    const auto batches = training_batches(corpus, 16, 3, 1);
    const auto first = tiny_trainer(variant.name, *batches);
    const auto curve = losses(*first, 6);
    const auto second = tiny_trainer(variant.name, *batches);
    const auto other = tiny_trainer(variant.name, *batches, 2);
    for (const double loss : curve) {
      CHECK(second->step().loss == loss);
      other->step();  // draws from the same global stream
      at::rand({100});
    }
    CHECK(same(weights(*first), weights(*second)));
    CHECK(!same(weights(*first), weights(*other)));
  }
}

TEST_CASE("a step reports its number, losses, norm, learning rate and time", "[trainer]") {
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 3, 1);
  const auto sparse = tiny_trainer("dsa", *batches);
  const auto dense = tiny_trainer("dense", *batches);
  const StepResult a = sparse->step(), b = dense->step();
  CHECK(a.step == 1);
  CHECK(std::abs(a.loss - std::log(40.0)) < 0.5);
  CHECK(a.indexer_loss > 0);
  CHECK(std::isnan(b.indexer_loss));
  CHECK(a.router_loss > 0);
  CHECK(b.grad_norm > 0);
  CHECK(a.learning_rate == 0.5e-3);  // step 1 of 2 of warm-up
  CHECK(a.seconds > 0);
  CHECK(dense->steps_done() == 1);
}

TEST_CASE("a non-finite loss is refused before anything changes", "[trainer]") {
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 3, 1);
  const auto trainer = tiny_trainer("dense", *batches);
  trainer->step();
  {
    const at::NoGradGuard no_grad;
    trainer->model().parameters().back().fill_(std::numeric_limits<float>::infinity());
  }
  const auto before = weights(*trainer);
  CHECK_THROWS_WITH(trainer->step(), ContainsSubstring("dense") && ContainsSubstring("seed 1") &&
                                         ContainsSubstring("step 2") &&
                                         ContainsSubstring("learning-rate"));
  CHECK(trainer->steps_done() == 1);
  CHECK(same(weights(*trainer), before));
}

TEST_CASE("a non-finite gradient of a finite loss is refused too", "[trainer]") {
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 3, 1);
  const auto trainer = tiny_trainer("dense", *batches);
  auto poison = [](const at::Tensor& gradient) {
    return gradient * std::numeric_limits<float>::quiet_NaN();
  };
  trainer->model().parameters().front().register_hook(poison);
  const auto before = weights(*trainer);
  CHECK_THROWS_WITH(trainer->step(), ContainsSubstring("gradient norm"));
  CHECK(same(weights(*trainer), before));
}

TEST_CASE("the indexer's loss cannot change the model's update", "[trainer]") {
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 3, 1);
  AttentionConfig loud = tiny_attention();
  loud.indexer_loss_weight = 1e4;
  TrainConfig frozen_indexer = tiny_train();  // else a better indexer selects other keys
  frozen_indexer.indexer_learning_rate = 0;
  frozen_indexer.weight_decay = 0;
  Trainer quiet("dsa", tiny_attention(), tiny_model(), frozen_indexer, *batches, 1);
  Trainer noisy("dsa", loud, tiny_model(), frozen_indexer, *batches, 1);
  for (int i = 0; i < 4; ++i) {
    const StepResult a = quiet.step(), b = noisy.step();
    CHECK(a.loss == b.loss);
    CHECK(a.grad_norm == b.grad_norm);
  }
  CHECK(same(weights(quiet), weights(noisy)));
}

TEST_CASE("every variant is given the same batches in the same order", "[trainer]") {
  struct Watched : Batches {
    Batch at(int64_t step) const override {
      seen.push_back(ours->at(step).tokens);
      return ours->at(step);
    }
    std::unique_ptr<Batches> ours = training_batches(tiny_corpus(), 16, 3, 7);
    mutable std::vector<at::Tensor> seen;
  };
  std::vector<at::Tensor> first;
  for (const AttentionVariant& row : variants()) {
    CAPTURE(row.name);
    const Watched batches;
    const auto trainer = tiny_trainer(row.name, batches, 7);
    for (int i = 0; i < 4; ++i) trainer->step();
    REQUIRE(batches.seen.size() == 4);
    if (first.empty()) first = batches.seen;
    for (size_t i = 0; i < 4; ++i) CHECK(batches.seen[i].equal(first[i]));
    CHECK(!first[0].equal(first[1]));
  }
}

TEST_CASE("training learns a periodic text", "[trainer]") {
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 8, 1);
  TrainConfig config = tiny_train();
  config.steps = 150;
  config.learning_rate = 1e-2;
  for (const char* variant : {"dense", "dsa"}) {
    CAPTURE(variant);
    Trainer trainer(variant, tiny_attention(), tiny_model(), config, *batches, 1);
    const auto curve = losses(trainer, 150);
    CHECK(curve.front() > 3);
    CHECK(curve.back() < 0.5);
  }
}

TEST_CASE("wrong training settings are refused by name", "[trainer]") {
  const auto refused = [](auto change, const char* field) {
    TrainConfig config;
    REQUIRE_NOTHROW(check(config));
    change(config);
    CHECK_THROWS_WITH(check(config), ContainsSubstring(field));
  };
  refused([](TrainConfig& c) { c.steps = 0; }, "train.steps");
  refused([](TrainConfig& c) { c.batch = 0; }, "train.batch");
  refused([](TrainConfig& c) { c.warmup_steps = -1; }, "train.warmup-steps");
  refused([](TrainConfig& c) { c.optimizer = "sgd"; }, "train.optimizer");
  refused([](TrainConfig& c) { c.schedule = "linear"; }, "train.schedule");
  refused([](TrainConfig& c) { c.learning_rate = -1; }, "train.learning-rate");
  refused([](TrainConfig& c) { c.learning_rate = NAN; }, "train.learning-rate");
  refused([](TrainConfig& c) { c.indexer_learning_rate = -1; }, "train.indexer-learning-rate");
  refused([](TrainConfig& c) { c.min_learning_rate_fraction = 2; }, "min-learning-rate-fraction");
  refused([](TrainConfig& c) { c.weight_decay = -1; }, "train.weight-decay");
  refused([](TrainConfig& c) { c.grad_clip = -1; }, "train.grad-clip");
  refused([](TrainConfig& c) { c.evaluate_every = -1; }, "train.evaluate-every");
  refused([](TrainConfig& c) { c.checkpoint_every = -1; }, "train.checkpoint-every");
  for (const double margin : {0.0, -0.02, double(NAN), double(INFINITY)}) {
    refused([=](TrainConfig& c) { c.equivalence_margin = margin; }, "train.equivalence-margin");
  }
}
