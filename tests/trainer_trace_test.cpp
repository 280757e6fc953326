// Where a step's time goes: the stages add up to its wall clock, and hardly anything is unclaimed.
#include "harness/stage_trace.h"
#include "tests/trainer_fixture.h"

#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <cmath>
#include <string>

using namespace dsa;
using namespace dsa::testing;

namespace {

/// Large enough that calls of no work do not count.
ModelConfig traced_model() {
  ModelConfig model = tiny_model();
  model.vocab_size = 4000;
  model.n_experts = 4;
  model.expert_width = 128;
  return model;
}

}  // namespace

TEST_CASE("the stages of a step add up to its wall clock within 3 %", "[trainer]") {
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 64, 8, 1);
  AttentionConfig attention = tiny_attention();
  attention.d_model = 64;
  for (const char* variant : {"dense", "dsa", "dsa_as_published"}) {
    CAPTURE(variant);
    Trainer trainer(variant, attention, traced_model(), tiny_train(), *batches, 1);
    trainer.step();
    double apart = 1, unclaimed = 1;  // the least of some: a busy machine interrupts anywhere
    for (int i = 0; i < 8; ++i) {
      const StageTrace trace = traced_step(trainer);
      if (std::string(variant) != "dense") CHECK(trace.stages.contains("topk"));
      double sum = 0, claimed = 0;
      for (const auto& [stage, seconds] : trace.stages) {
        sum += seconds;
        if (stage != "other") claimed += seconds;
      }
      apart = std::min(apart, std::abs(sum - trace.seconds) / trace.seconds);
      unclaimed = std::min(unclaimed, std::abs(trace.seconds - claimed) / trace.seconds);
    }
    CHECK(apart < 0.03);
    CHECK(unclaimed < 0.03);
  }
}
