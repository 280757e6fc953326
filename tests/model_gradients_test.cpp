// NamedGradients of the whole dsa layer, of its language-model output and of its indexer's loss, against
// torch's autograd on the float64 definition, in both stages and with grouped heads.
#include "tests/model_definition.h"
#include "tests/trainer_fixture.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

using namespace dsa;
using namespace dsa::testing;

namespace {

constexpr int64_t kGradientRows = 70;
using NamedGradients = std::map<std::string, at::Tensor>;

AttentionConfig grouped_attention(int64_t kv_heads) {
  AttentionConfig config = small_attention();
  config.n_heads = 4, config.n_kv_heads = kv_heads;
  return config;
}

std::shared_ptr<AttentionLayer> dsa_layer(AttentionConfig config, c10::ScalarType dtype) {
  config.backend = dtype == at::kDouble ? "reference" : "auto";
  seed_torch(17);
  auto layer = variant("dsa").make(config);
  layer->to(dtype);
  return layer;
}

NamedGradients backward_of(AttentionLayer& layer, const at::Tensor& output,
                           const at::Tensor& indexer_loss) {
  const at::Tensor weight = normal_values(output.sizes(), 6).to(output.scalar_type());
  ((output * weight).sum() + indexer_loss).backward();
  NamedGradients found;
  for (const auto& p : layer.named_parameters()) found[p.key()] = p.value().grad();
  return found;
}

struct DefinedDsa {
  at::Tensor output, indexer_loss;
};

/// The layer on whole matrices; attention and loss over `allowed`, the indexer's input detached.
DefinedDsa defined_dsa(AttentionLayer& layer, const AttentionConfig& c, const at::Tensor& hidden,
                       const at::Tensor& allowed) {
  const auto p = layer.named_parameters();
  const auto heads = [&](const char* name) {
    return at::matmul(hidden, p[name].t()).unflatten(-1, {-1, c.head_width});
  };
  const int64_t group = c.n_heads / c.n_kv_heads;
  const at::Tensor q = turned_pairs(heads("q"), c.head_width, c.rope_layout);
  const at::Tensor k =
      turned_pairs(heads("k"), c.head_width, c.rope_layout).repeat_interleave(group, 2);
  const at::Tensor v = heads("v").repeat_interleave(group, 2);
  const at::Tensor logits =
      at::einsum("bthd,bshd->bhts", {q, k}) / std::sqrt(static_cast<double>(c.head_width));
  const at::Tensor attention = softmax_over(logits, allowed.unsqueeze(1));
  const at::Tensor read = at::einsum("bhts,bshd->bthd", {attention, v}).flatten(2);

  const at::Tensor input = hidden.detach();
  const at::Tensor index_q =
      at::matmul(input, p["indexer.q"].t()).unflatten(-1, {c.index_heads, -1});
  const at::Tensor plain = at::matmul(input, p["indexer.k"].t());
  const at::Tensor centred = plain - plain.mean(-1, true);
  const at::Tensor index_k =
      centred * (centred.square().mean(-1, true) + 1e-6).rsqrt() * p["indexer.norm_scale"] +
      p["indexer.norm_bias"];
  const at::Tensor weight = at::matmul(input, p["indexer.weight"].t()) /
                            std::sqrt(static_cast<double>(c.index_heads * c.index_width));
  const at::Tensor scores =
      whole_scores(turned_pairs(index_q, c.index_rope_width, c.index_rope_layout),
                   turned_pairs(index_k, c.index_rope_width, c.index_rope_layout), weight);
  return {at::matmul(read, p["out"].t()), whole_kl(scores, attention.detach().mean(1), allowed)};
}

}  // namespace

TEST_CASE("gradients of the dsa layer are those of autograd on its float64 definition",
          "[model][gradients]") {
  const AttentionConfig config = grouped_attention(GENERATE(1, 2, 4));
  const auto stage = GENERATE(TrainingStage::kIndexer, TrainingStage::kSparse);
  const auto dtype = GENERATE(at::kDouble, at::kFloat);
  CAPTURE(config.n_kv_heads, static_cast<int>(stage), dtype);
  const at::Tensor input = normal_values({2, kGradientRows, config.d_model}, 4);
  const auto layer = dsa_layer(config, dtype), oracle = dsa_layer(config, at::kDouble);
  layer->stage = stage;
  AttentionCapture capture;
  layer->capture = &capture;
  const AttentionOutput output = layer->forward(input.to(dtype), position_ids(kGradientRows));
  const at::Tensor allowed = stage == TrainingStage::kSparse ? pairs_in(capture.selection)
                                                             : visible_pairs_of(2, kGradientRows);
  const DefinedDsa exact = defined_dsa(*oracle, config, input, allowed);
  const double bound = dtype == at::kDouble ? 1e-10 : 5e-6;
  CHECK(norm_error(output.hidden, exact.output) <= bound);
  CHECK(norm_error(output.indexer_loss, exact.indexer_loss) <= bound);
  const NamedGradients found = backward_of(*layer, output.hidden, output.indexer_loss),
                       wanted = backward_of(*oracle, exact.output, exact.indexer_loss);
  for (const auto& [name, gradient] : wanted) {
    CAPTURE(name);
    CHECK(largest(gradient) > 0);
    CHECK(norm_error(found.at(name), gradient) <= bound);
  }
}

TEST_CASE("in stage 1 as in stage 2, micro-batches average to the whole batch's gradients",
          "[model][gradients]") {
  const std::string name = GENERATE("dsa", "mla_dsa");
  const auto stage = GENERATE(TrainingStage::kIndexer, TrainingStage::kSparse);
  CAPTURE(name, static_cast<int>(stage));
  const auto model = make_model(name);
  model->set_stage(stage);
  const at::Tensor tokens = random_tokens(6, 40, 50);
  const auto gradients = [&](int64_t first, int64_t count) {
    model->zero_grad(/*set_to_none=*/true);
    const at::Tensor part = tokens.narrow(0, first, count);
    const ModelOutput output = model->forward(part, targets_of(part));
    (output.loss + output.indexer_loss).backward();
    NamedGradients found;
    for (const auto& p : model->named_parameters()) {
      if (p.value().grad().defined()) found[p.key()] = p.value().grad().clone();
    }
    return found;
  };
  const NamedGradients whole = gradients(0, 6);
  std::vector<NamedGradients> parts;
  for (int64_t first = 0; first < 6; first += 2) parts.push_back(gradients(first, 2));
  CHECK(whole.size() ==
        (stage == TrainingStage::kIndexer ? model->indexer_parameters() : model->parameters())
            .size());
  for (const auto& [key, expected] : whole) {
    CAPTURE(key);
    CHECK(largest(expected) > 0);
    at::Tensor mean = at::zeros_like(expected);
    for (const NamedGradients& part : parts) mean += part.at(key) / 3.0;
    CHECK(norm_error(mean, expected) < 1e-5);
  }
}

TEST_CASE("an indexer's loss of weight 0 leaves zero gradients in either stage",
          "[model][gradients]") {
  AttentionConfig attention = small_attention();
  attention.indexer_loss_weight = 0;
  const auto model = make_model(GENERATE("dsa", "mla_dsa"), attention);
  model->set_stage(GENERATE(TrainingStage::kIndexer, TrainingStage::kSparse));
  const at::Tensor tokens = random_tokens(2, 48, 50);
  model->training_loss(model->forward(tokens, targets_of(tokens))).backward();
  for (const auto& p : model->indexer_parameters()) {
    REQUIRE(p.grad().defined());
    CHECK(largest(p.grad()) == 0);
  }
}

TEST_CASE("every variant trains with fewer key heads than query heads", "[model][gqa]") {
  const int64_t kv_heads = GENERATE(1, 2);
  AttentionConfig attention = tiny_attention();
  attention.n_heads = 4, attention.n_kv_heads = kv_heads;
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 24, 3, 1);
  TrainConfig config = tiny_train();
  config.steps = 30, config.schedule = "constant";
  for (const auto& row : variants()) {
    CAPTURE(row.name, kv_heads);
    Trainer trainer(row.name, attention, tiny_model(), config, *batches, 1);
    const double first = trainer.step().loss;
    double last = first;
    for (int i = 1; i < 30; ++i) last = trainer.step().loss;
    CHECK(last < 0.9 * first);
  }
}

TEST_CASE("with grouped heads and K at least L, every sound variant equals dense, backward too",
          "[model][gqa]") {
  AttentionConfig config = grouped_attention(GENERATE(1, 2));
  config.top_k = 80;
  const at::Tensor input = normal_values({2, kGradientRows, config.d_model}, 4).to(at::kFloat);
  const auto run = [&](const std::string& name) {
    seed_torch(17);
    const auto layer = variant(name).make(config);
    const at::Tensor output = layer->forward(input, position_ids(kGradientRows)).hidden;
    NamedGradients found = backward_of(*layer, output, at::zeros({}));
    found["output"] = output.detach();
    return found;
  };
  const NamedGradients dense = run("dense");
  for (const char* name : {"dsa", "window", "random", "oracle", "dsa_untrained"}) {
    CAPTURE(name);
    const NamedGradients found = run(name);
    for (const auto& [key, expected] : dense) {
      CAPTURE(key);
      CHECK(norm_error(found.at(key), expected) <= 5e-6);
    }
  }
}
