// Evaluation equals a plain loop over the logits, one token at a time.
#include "attention/fields.h"
#include "tests/trainer_fixture.h"

#include <ATen/core/grad_mode.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

#include <cmath>

using namespace dsa;
using namespace dsa::testing;
using Catch::Matchers::WithinRel;

namespace {

struct Plain {
  std::vector<double> loss;  ///< by position, summed
  std::vector<int> count;
  int correct = 0;
};

void add_row(Plain& plain, const at::Tensor& logits, const at::Tensor& targets) {
  const at::Tensor scores = logits.to(at::kDouble).contiguous();
  for (int64_t t = 0; t < targets.size(0); ++t) {
    const auto target = targets[t].item<int64_t>();
    if (target == -100) continue;
    const auto* row = scores.data_ptr<double>() + t * scores.size(1);
    double sum = 0;
    int64_t best = 0;
    for (int64_t id = 0; id < scores.size(1); ++id) {
      sum += std::exp(row[id]);
      if (row[id] > row[best]) best = id;
    }
    plain.loss[static_cast<size_t>(t)] += std::log(sum) - row[target];
    ++plain.count[static_cast<size_t>(t)];
    plain.correct += best == target;
  }
}

}  // namespace

TEST_CASE("evaluation equals a plain loop over every validation token", "[trainer]") {
  const Corpus corpus = tiny_corpus(2000, 150);
  const auto batches = training_batches(corpus, 16, 3, 1);
  const auto trainer = tiny_trainer("dsa", *batches);
  for (int i = 0; i < 5; ++i) trainer->step();
  Transformer& model = trainer->model();
  const auto tiles = validation_tiles(corpus, 16, 3);
  const Evaluation found = evaluate(model, tiles, 2);
  CHECK(model.is_training());

  const at::NoGradGuard no_grad;
  model.eval();
  Plain plain{std::vector<double>(16), std::vector<int>(16)};
  for (const Batch& tile : tiles) {
    const at::Tensor logits = model.logits(tile.tokens);
    for (int64_t row = 0; row < logits.size(0); ++row)
      add_row(plain, logits[row], tile.targets[row]);
  }
  double loss = 0;
  int tokens = 0;
  for (size_t t = 0; t < 16; ++t) loss += plain.loss[t], tokens += plain.count[t];
  CHECK(found.tokens == 149);
  CHECK(tokens == 149);
  CHECK_THAT(found.loss, WithinRel(loss / tokens, 1e-6));
  CHECK(found.accuracy == static_cast<double>(plain.correct) / tokens);
  CHECK_THAT(found.bits_per_byte, WithinRel(found.loss / std::log(2.0) / 2, 1e-12));
  REQUIRE(found.loss_by_position.size() == 8);
  for (size_t bucket = 0; bucket < 8; ++bucket) {
    const size_t t = 2 * bucket;
    CHECK_THAT(found.loss_by_position[bucket], WithinRel((plain.loss[t] + plain.loss[t + 1]) /
                                                             (plain.count[t] + plain.count[t + 1]),
                                                         1e-5));
  }
}

TEST_CASE("evaluation is the same twice and leaves training untouched", "[trainer]") {
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 3, 1);
  const auto tiles = validation_tiles(corpus, 16, 3);
  const auto watched = tiny_trainer("dense", *batches), plain = tiny_trainer("dense", *batches);
  for (int i = 0; i < 3; ++i) {
    CHECK(watched->step().loss == plain->step().loss);
    const double first = evaluate(watched->model(), tiles, 0).loss;
    CHECK(evaluate(watched->model(), tiles, 0).loss == first);
  }
  CHECK(evaluate(watched->model(), tiles, 0).bits_per_byte == 0);
  CHECK_THROWS_AS(evaluate(watched->model(), {}, 0), Error);
}
