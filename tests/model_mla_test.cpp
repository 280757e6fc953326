// Multi-head latent attention against its definition, written out head by head; its two modes against
// each other; DSA on it.
#include "tests/model_definition.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

using namespace dsa;
using namespace dsa::testing;
using Catch::Matchers::ContainsSubstring;

namespace {

constexpr int64_t kRows = 50;

/// Float64 layers run the reference kernels, float32 ones what training would run.
std::shared_ptr<AttentionLayer> layer_of(const std::string& name, AttentionConfig config,
                                         c10::ScalarType dtype = at::kDouble) {
  config.backend = dtype == at::kDouble ? "reference" : "auto";
  seed_torch(9);
  auto layer = variant(name).make(config);
  layer->to(dtype);
  return layer;
}

at::Tensor normalised(const at::Tensor& x, const at::Tensor& scale) {
  return x * (x.square().mean(-1, true) + 1e-6).rsqrt() * scale;
}

struct Defined {
  at::Tensor hidden, probabilities;  ///< [B, T, d_model]; [B, T, S], mean over heads
};

/// The definition [DeepSeek-V2 section 2.1], one head at a time, keys `allowed` [B, T, S].
Defined by_definition(AttentionLayer& layer, const AttentionConfig& c, const at::Tensor& hidden,
                      const at::Tensor& allowed) {
  const auto p = layer.named_parameters();
  const at::Tensor asking = c.query_latent_width > 0
                                ? normalised(at::matmul(hidden, p["q_down"].t()), p["q_norm"])
                                : hidden;
  const at::Tensor down = at::matmul(hidden, p["kv_down"].t());
  const at::Tensor latent = normalised(down.slice(-1, 0, c.kv_latent_width), p["kv_norm"]);
  const at::Tensor k_rope =
      turned_pairs(down.slice(-1, c.kv_latent_width), c.rope_width, c.rope_layout);
  const double scale = 1 / std::sqrt(static_cast<double>(c.nope_width + c.rope_width));
  const int64_t key = c.nope_width + c.rope_width;
  at::Tensor probabilities = at::zeros(allowed.sizes(), at::kDouble);
  std::vector<at::Tensor> heads;
  for (int64_t h = 0; h < c.n_heads; ++h) {
    const at::Tensor q = at::matmul(asking, p["q"].slice(0, h * key, (h + 1) * key).t());
    const at::Tensor k_up = p["k"].slice(0, h * c.nope_width, (h + 1) * c.nope_width);
    const at::Tensor v_up = p["v"].slice(0, h * c.head_width, (h + 1) * c.head_width);
    const at::Tensor logits =
        at::einsum("btn,bsn->bts", {q.slice(-1, 0, c.nope_width), at::matmul(latent, k_up.t())}) +
        at::einsum("btr,bsr->bts",
                   {turned_pairs(q.slice(-1, c.nope_width), c.rope_width, c.rope_layout), k_rope});
    const at::Tensor weights = softmax_over(logits * scale, allowed);
    probabilities = probabilities + weights.detach() / static_cast<double>(c.n_heads);
    heads.push_back(at::matmul(weights, at::matmul(latent, v_up.t())));
  }
  return {at::matmul(at::cat(heads, -1), p["out"].t()), probabilities};
}

struct Ran {
  at::Tensor hidden, indexer_loss;
  AttentionCapture capture;
  std::map<std::string, at::Tensor> gradients;  ///< of the model, from `hidden`, and of the input
};

std::map<std::string, at::Tensor> gradients_of(AttentionLayer& layer, const at::Tensor& input,
                                               const at::Tensor& output) {
  (output * normal_values(output.sizes(), 6).to(output.scalar_type())).sum().backward({}, true);
  std::map<std::string, at::Tensor> found{{"input", input.grad()}};
  for (const auto& p : layer.named_parameters()) {
    if (!is_indexer(p.key())) found[p.key()] = p.value().grad().clone();
  }
  return found;
}

at::Tensor input_of(c10::ScalarType dtype) {
  return normal_values({2, kRows, small_attention().d_model}, 4).to(dtype).requires_grad_();
}

Ran run(AttentionLayer& layer, c10::ScalarType dtype = at::kDouble) {
  Ran ran;
  const at::Tensor input = input_of(dtype);
  layer.capture = &ran.capture;
  const AttentionOutput output = layer.forward(input, position_ids(kRows));
  layer.capture = nullptr;
  ran.hidden = output.hidden;
  ran.indexer_loss = output.indexer_loss;
  ran.gradients = gradients_of(layer, input, output.hidden);
  return ran;
}

void check_same(const Ran& found, const Ran& exact, double bound) {
  CHECK(norm_error(found.hidden, exact.hidden) <= bound);
  REQUIRE(found.gradients.size() == exact.gradients.size());
  for (const auto& [name, gradient] : exact.gradients) {
    CAPTURE(name);
    CHECK(largest(gradient) > 0);
    CHECK(norm_error(found.gradients.at(name), gradient) <= bound);
  }
}

AttentionConfig drawn_config() {
  AttentionConfig config = small_attention();
  config.query_latent_width = GENERATE(0, 24);
  config.rope_layout = GENERATE("half_split", "interleaved");
  config.n_heads = GENERATE(2, 3);
  config.n_kv_heads = config.n_heads;
  return config;
}

}  // namespace

TEST_CASE("mla_dense is latent attention as it is defined, forward and backward", "[model][mla]") {
  const AttentionConfig config = drawn_config();
  const auto layer = layer_of("mla_dense", config), other = layer_of("mla_dense", config);
  const at::Tensor input = input_of(at::kDouble);
  Ran exact;
  exact.hidden = by_definition(*other, config, input, visible_pairs_of(2, kRows)).hidden;
  exact.gradients = gradients_of(*other, input, exact.hidden);
  check_same(run(*layer), exact, 1e-12);
}

TEST_CASE("MHA mode and MQA mode agree: mla_dsa with K at least L is mla_dense", "[model][mla]") {
  AttentionConfig config = drawn_config();
  config.top_k = GENERATE(50, 90);
  const Ran mha = run(*layer_of("mla_dense", config)), mqa = run(*layer_of("mla_dsa", config));
  CHECK(mqa.capture.k.size(2) == 1);
  CHECK(mqa.capture.k.size(3) == config.kv_latent_width + config.rope_width);
  check_same(mqa, mha, 1e-10);
  const auto narrow = layer_of("mla_dsa", config, at::kFloat);
  check_same(run(*narrow, at::kFloat), mha, 5e-6);
  check_same(run(*layer_of("mla_dense", config, at::kFloat), at::kFloat), mha, 5e-6);
}

TEST_CASE("mla_dsa reads its selection and nothing else, in every head alike", "[model][mla]") {
  const AttentionConfig config = drawn_config();
  const auto layer = layer_of("mla_dsa", config), other = layer_of("mla_dsa", config);
  const Ran found = run(*layer);
  const at::Tensor input = input_of(at::kDouble);
  Ran exact;
  exact.hidden = by_definition(*other, config, input, pairs_in(found.capture.selection)).hidden;
  exact.gradients = gradients_of(*other, input, exact.hidden);
  check_same(found, exact, 1e-10);
  CHECK(norm_error(found.hidden, run(*layer_of("mla_dense", config)).hidden) > 1e-2);
}

TEST_CASE("mla_dsa's indexer learns what the heads themselves read, in both stages",
          "[model][mla]") {
  AttentionConfig config = small_attention();
  config.index_query_from = GENERATE("hidden", "latent");
  const auto stage = GENERATE(TrainingStage::kIndexer, TrainingStage::kSparse);
  CAPTURE(config.index_query_from, static_cast<int>(stage));
  const auto layer = layer_of("mla_dsa", config);
  layer->stage = stage;
  const Ran found = run(*layer);
  REQUIRE(found.indexer_loss.defined());
  const at::Tensor allowed = stage == TrainingStage::kSparse ? pairs_in(found.capture.selection)
                                                             : visible_pairs_of(2, kRows);
  const at::Tensor target =
      by_definition(*layer, config, input_of(at::kDouble), allowed).probabilities;
  const ops::IndexTensors& index = found.capture.index;
  const at::Tensor exact = whole_kl(whole_scores(index.q, index.k, index.weight), target, allowed);
  CHECK(std::abs(found.indexer_loss.item<double>() - exact.item<double>()) < 1e-12);

  // Nothing of the model moves, every part of the indexer does.
  layer->zero_grad(/*set_to_none=*/true);
  found.indexer_loss.backward();
  for (const auto& p : layer->named_parameters()) {
    INFO(p.key());
    CHECK(p.value().grad().defined() == is_indexer(p.key()));
    if (is_indexer(p.key())) CHECK(largest(p.value().grad()) > 0);
  }
}

TEST_CASE("the indexer's queries come from the hidden state or the query latent, as told",
          "[model][mla][indexer]") {
  AttentionConfig config = small_attention();
  config.index_rope_width = 0;
  const bool from_latent = GENERATE(false, true);
  config.index_query_from = from_latent ? "latent" : "hidden";
  const auto layer = layer_of("mla_dsa", config);
  const Ran found = run(*layer);
  const auto p = layer->named_parameters();
  const at::Tensor hidden = input_of(at::kDouble);
  const at::Tensor latent = normalised(at::matmul(hidden, p["q_down"].t()), p["q_norm"]);
  const at::Tensor q = at::matmul(from_latent ? latent : hidden, p["indexer.q"].t());
  CHECK(norm_error(found.capture.index.q.flatten(2), q) < 1e-12);
  CHECK(norm_error(found.capture.index.weight,
                   at::matmul(hidden, p["indexer.weight"].t()) / std::sqrt(2.0 * 16)) < 1e-12);
}

TEST_CASE("a query latent that there is not is refused in words", "[model][mla][indexer]") {
  AttentionConfig config = small_attention();
  config.index_query_from = "latent";
  const std::string name = GENERATE("dsa", "dsa_untrained", "dsa_as_published");
  CHECK_THROWS_WITH(layer_of(name, config), ContainsSubstring("index-query-from is latent") &&
                                                ContainsSubstring("no query latent"));
  layer_of("mla_dsa", config);
  layer_of("window", config);  // no indexer, nothing to refuse
  config.query_latent_width = 0;
  CHECK_THROWS_WITH(layer_of("mla_dsa", config), ContainsSubstring("query-latent-width"));
}

TEST_CASE("before the sparse stage mla_dsa is mla_dense to the bit", "[model][mla]") {
  const AttentionConfig config = small_attention();
  const auto dense = layer_of("mla_dense", config, at::kFloat);
  const auto sparse = layer_of("mla_dsa", config, at::kFloat);
  const Ran expected = run(*dense, at::kFloat);
  for (const auto stage : {TrainingStage::kDense, TrainingStage::kIndexer}) {
    sparse->stage = stage;
    const Ran found = run(*sparse, at::kFloat);
    CHECK(found.hidden.equal(expected.hidden));
    for (const auto& [name, gradient] : expected.gradients) {
      if (name != "input") CHECK(sparse->named_parameters()[name].grad().defined());
    }
    CHECK(found.gradients.at("input").equal(expected.gradients.at("input")));
    CHECK(found.capture.selection.indices.defined());
  }
}

TEST_CASE("latent attention has the parameters that its widths say", "[model][mla]") {
  AttentionConfig c = small_attention();
  const auto count = [&](const char* name) {
    int64_t sum = 0;
    for (const auto& p : layer_of(name, c)->parameters()) sum += p.numel();
    return sum;
  };
  // q down, its norm, q up; kv down, its norm, k and v up; out.
  const int64_t latents = 24 * 32 + 24 + 2 * 20 * 24 + (20 + 8) * 32 + 20 + 2 * (12 + 16) * 20,
                out = 32 * 32, indexer = 2 * 16 * 32 + 16 * 32 + 2 * 32 + 2 * 16;
  CHECK(count("mla_dense") == latents + out);
  CHECK(count("mla_dsa") == latents + out + indexer);
  c.index_query_from = "latent";
  CHECK(count("mla_dsa") == latents + out + indexer - 2 * 16 * (32 - 24));
  c.index_query_from = "hidden", c.query_latent_width = 0;
  CHECK(count("mla_dense") == latents + out - 24 * 32 - 24 + 2 * 20 * (32 - 24));
}

TEST_CASE("the FLOP ratio of DeepSeek-V3.2's variants is the published one", "[model][mla][cost]") {
  AttentionConfig c;
  c.n_heads = c.n_kv_heads = 128, c.head_width = 128;
  c.kv_latent_width = 512, c.nope_width = 128, c.rope_width = 64;
  c.index_heads = 64, c.index_width = 128, c.top_k = 2048;
  const AttentionVariant& dsa = variant("mla_dsa");
  const AttentionVariant& dense = variant(dsa.baseline);
  CHECK(dense.name == "mla_dense");
  const auto ratio = [&](int64_t length) {
    return dense.cost(c, 1, length).flops / dsa.cost(c, 1, length).flops;
  };
  CHECK(ratio(8 << 10) == Catch::Approx(0.59).margin(0.005));
  CHECK(ratio(16 << 10) == Catch::Approx(1.00).margin(0.005));
  CHECK(ratio(32 << 10) == Catch::Approx(1.63).margin(0.005));
  CHECK(ratio(128 << 10) == Catch::Approx(3.27).margin(0.005));
  // A key is read once for all heads, and its value with it.
  const double keys = 8192, queries = 8192;
  const double read =
      4 * (queries * 128 * 576 + keys * 576 + queries * 64 * 129 + keys * 128) + 4 * queries * 2049;
  CHECK(dsa.cost(c, 1, 8192).bytes_read == read);
}
