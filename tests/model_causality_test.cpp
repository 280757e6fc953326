// Who sees the future: nobody but the published experiment, by exactly the counts it was caught with.
#include "model/causality.h"
#include "tests/model_fixture.h"

#include <ATen/CPUGeneratorImpl.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

using namespace dsa;
using namespace dsa::testing;

namespace {

constexpr int64_t kLength = 64, kVocabulary = 512;

/// The seed's shape at a quarter of its widths: what leaks is decided by L and K, not by width.
std::shared_ptr<Transformer> seed_like_model(const std::string& variant, int64_t layers) {
  AttentionConfig attention = seed_attention();
  attention.d_model = 64;
  attention.n_heads = attention.n_kv_heads = 4;
  attention.head_width = attention.index_width = 16;
  attention.index_rope_width = 8;
  ModelConfig config = seed_model();
  config.n_layers = layers;
  config.vocab_size = kVocabulary;
  config.expert_width = 128;
  return make_model(variant, attention, config, 42);
}

int64_t reacting(Transformer& model, bool only_next) {
  return positions_that_see_the_future(model, random_tokens(1, kLength, kVocabulary), only_next);
}

}  // namespace

TEST_CASE("sound variants never see the future", "[model][leak]") {
  const std::string name = GENERATE("dense", "dsa", "window", "random", "oracle", "dsa_untrained",
                                    "mla_dense", "mla_dsa");
  const auto model = seed_like_model(name, 4);
  INFO(name);
  CHECK(reacting(*model, false) == 0);
}

TEST_CASE("one published layer sees later tokens from 31 of 63 positions", "[model][leak]") {
  CHECK(reacting(*seed_like_model("dsa_as_published", 1), false) == 31);
}

TEST_CASE("two published layers see the next token from almost all positions", "[model][leak]") {
  // 61 in the original; which tied future keys torch::topk takes depends on tokens and weights:
  // over eight seeds and scales here it was 62 or 63. One layer: none, its ties go to far keys.
  const int64_t next = reacting(*seed_like_model("dsa_as_published", 2), true);
  CHECK(next >= 61);
  CHECK(reacting(*seed_like_model("dsa_as_published", 1), true) < 31);
}

TEST_CASE("four published layers see the next token from all 63 positions", "[model][leak]") {
  const auto model = seed_like_model("dsa_as_published", 4);
  CHECK(reacting(*model, true) == 63);
  CHECK(reacting(*model, false) == 63);
}

TEST_CASE("the leak audit leaves the model in the mode it found", "[model][leak]") {
  const auto model = make_model("dense");
  model->train();
  positions_that_see_the_future(*model, random_tokens(1, 8, 50), false);
  CHECK(model->is_training());
}
