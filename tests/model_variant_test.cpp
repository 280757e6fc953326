// The variant table, its configuration checks, and what separates the indexer from the model.
#include "attention/variant.h"
#include "tests/model_fixture.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <functional>
#include <set>

using namespace dsa;
using namespace dsa::testing;
using Catch::Matchers::ContainsSubstring;

namespace {

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::shared_ptr<AttentionLayer> make_layer(const std::string& name, AttentionConfig config,
                                           uint64_t seed = 9) {
  seed_torch(seed);
  return variant(name).make(config);
}

at::Tensor random_hidden(int64_t batch, int64_t length) {
  seed_torch(13);
  return at::randn({batch, length, small_attention().d_model});
}

}  // namespace

TEST_CASE("variants have distinct names and colours and one baseline a family",
          "[model][variant]") {
  std::set<std::string> names, roles{"baseline", "candidate", "control", "bound", "flawed"};
  std::set<int> colours;
  for (const auto& row : variants()) {
    names.insert(row.name);
    colours.insert(row.colour_slot);
    CHECK((row.role == "baseline") == (row.name == row.baseline));
    CHECK(variant(row.baseline).role == "baseline");
    CHECK(roles.count(row.role) == 1);
    CHECK_FALSE(row.summary.empty());
    CHECK(row.cost(small_attention(), 2, 64).flops > 0);
    CHECK(row.training_cost(small_attention(), 2, 64).flops >
          row.cost(small_attention(), 2, 64).flops);
  }
  CHECK(names.size() == variants().size());
  CHECK(colours.size() == variants().size());
  CHECK(variant("dense").colour_slot == 0);
}

TEST_CASE("an unknown variant is refused with the known ones", "[model][variant]") {
  const std::string message = message_of([] { variant("sparse"); });
  for (const auto& row : variants()) CHECK_THAT(message, ContainsSubstring(row.name));
}

TEST_CASE("top-k is a number or a fraction of the length, at least 1", "[model][variant]") {
  AttentionConfig config;
  config.top_k = 12;
  CHECK(resolved_top_k(config, 8) == 12);
  config.top_k = 0;
  config.top_k_fraction = 0.5;
  CHECK(resolved_top_k(config, 64) == 32);
  CHECK(resolved_top_k(config, 1) == 1);
  config.top_k_fraction = 0.01;
  CHECK(resolved_top_k(config, 10) == 1);
}

TEST_CASE("every wrong attention field is named with its value", "[model][variant]") {
  const auto refused = [](const char* field, const std::function<void(AttentionConfig&)>& spoil) {
    AttentionConfig config;
    check(config);
    spoil(config);
    CHECK_THAT(message_of([&] { check(config); }), ContainsSubstring(field));
  };
  refused("n-kv-heads is 3", [](auto& c) { c.n_kv_heads = 3; });
  refused("head-width is 7", [](auto& c) { c.head_width = 7; });
  refused("rope-layout", [](auto& c) { c.rope_layout = "neox"; });
  refused("query-latent-width is -1", [](auto& c) { c.query_latent_width = -1; });
  refused("kv-latent-width is 0", [](auto& c) { c.kv_latent_width = 0; });
  refused("nope-width is 0", [](auto& c) { c.nope_width = 0; });
  refused("rope-width is 5", [](auto& c) { c.rope_width = 5; });
  refused("rope-width is 0", [](auto& c) { c.rope_width = 0; });
  refused("index-query-from is \"query\"", [](auto& c) { c.index_query_from = "query"; });
  refused("top-k is -1", [](auto& c) { c.top_k = -1; });
  refused("top-k-fraction is 1.5", [](auto& c) { c.top_k_fraction = 1.5; });
  refused("index-rope-width is 34", [](auto& c) { c.index_rope_width = 34; });
  refused("dropout is 1", [](auto& c) { c.dropout = 1; });
  refused("indexer-loss-weight", [](auto& c) { c.indexer_loss_weight = -1; });
  refused("no-such-backend", [](auto& c) { c.backend = "no-such-backend"; });
}

TEST_CASE("variants that use sparse kernels refuse attention dropout", "[model][variant]") {
  AttentionConfig config = small_attention();
  config.dropout = 0.1;
  const std::string name =
      GENERATE("dsa", "window", "random", "oracle", "dsa_untrained", "mla_dense", "mla_dsa");
  const std::string message = message_of([&] { make_layer(name, config); });
  CHECK_THAT(message, ContainsSubstring("dropout is 0.1") && ContainsSubstring(name));
  make_layer("dense", config);
  make_layer("dsa_as_published", config);
}

TEST_CASE("with K at least L, every sound variant equals dense", "[model][variant]") {
  AttentionConfig config = small_attention();
  config.n_kv_heads = GENERATE(1, 2);
  config.rope_layout = GENERATE("half_split", "interleaved");
  config.top_k = GENERATE(40, 100);
  const at::Tensor hidden = random_hidden(2, 40);
  const at::Tensor expected = make_layer("dense", config)->forward(hidden, position_ids(40)).hidden;
  for (const char* name : {"dsa", "window", "random", "oracle", "dsa_untrained"}) {
    INFO(name);
    const at::Tensor actual = make_layer(name, config)->forward(hidden, position_ids(40)).hidden;
    CHECK(relative_error(actual, expected) < 1e-5);
  }
}

TEST_CASE("with K below L, dsa and window differ from dense and each other", "[model][variant]") {
  const at::Tensor hidden = random_hidden(2, 40);
  const auto run = [&](const char* name) {
    return make_layer(name, small_attention())->forward(hidden, position_ids(40)).hidden;
  };
  const at::Tensor dense = run("dense"), dsa = run("dsa"), window = run("window");
  CHECK(relative_error(dsa, dense) > 1e-2);
  CHECK(relative_error(window, dense) > 1e-2);
  CHECK(relative_error(dsa, window) > 1e-2);
}

TEST_CASE("dense attention drops probabilities in training only", "[model][variant]") {
  AttentionConfig config = small_attention();
  config.dropout = 0.5;
  const at::Tensor hidden = random_hidden(1, 20);
  const auto layer = make_layer("dense", config);
  const auto run = [&] { return layer->forward(hidden, position_ids(20)).hidden; };
  CHECK_FALSE(at::equal(run(), run()));
  layer->eval();
  CHECK(at::equal(run(), run()));
  config.dropout = 0;
  CHECK(relative_error(
            run(), make_layer("dense", config)->forward(hidden, position_ids(20)).hidden) < 1e-5);
}

TEST_CASE("the LM loss gives the indexer no gradient, the KL loss the model none",
          "[model][variant][detach]") {
  const auto layer = make_layer("dsa", small_attention());
  const at::Tensor hidden = random_hidden(2, 40).set_requires_grad(true);
  const AttentionOutput output = layer->forward(hidden, position_ids(40));
  REQUIRE(output.indexer_loss.defined());
  CHECK(output.indexer_loss.item<double>() > 1e-4);
  const auto parameters = layer->named_parameters();

  output.hidden.pow(2).sum().backward({}, /*retain_graph=*/true);
  for (const auto& p : parameters) {
    INFO("LM: " << p.key());
    if (is_indexer(p.key())) {
      CHECK((!p.value().grad().defined() || largest(p.value().grad()) == 0));
    } else {
      CHECK(largest(p.value().grad()) > 0);
    }
  }
  layer->zero_grad(/*set_to_none=*/true);
  hidden.mutable_grad() = at::Tensor();
  output.indexer_loss.backward();
  for (const auto& p : parameters) {
    INFO("KL: " << p.key());
    if (is_indexer(p.key())) {
      CHECK(largest(p.value().grad()) > 0);
    } else {
      CHECK((!p.value().grad().defined() || largest(p.value().grad()) == 0));
    }
  }
  CHECK((!hidden.grad().defined() || largest(hidden.grad()) == 0));
}

TEST_CASE("one step down the KL gradient lowers the KL loss", "[model][variant]") {
  const auto layer = make_layer("dsa", small_attention());
  const at::Tensor hidden = random_hidden(2, 40);
  const auto loss = [&] { return layer->forward(hidden, position_ids(40)).indexer_loss; };
  const at::Tensor before = loss();
  before.backward();
  {
    const at::NoGradGuard no_gradient;
    for (const auto& p : layer->named_parameters()) {
      if (is_indexer(p.key())) p.value().sub_(p.value().grad(), 1e-2);
    }
  }
  const double after = loss().item<double>();
  CHECK(after < before.item<double>());
  CHECK(after >= 0);
}

TEST_CASE("without gradients dsa selects the same keys and makes no indexer loss",
          "[model][variant]") {
  const auto layer = make_layer("dsa", small_attention());
  layer->keep_selection = true;
  const at::Tensor hidden = random_hidden(2, 40);
  const AttentionOutput with_gradient = layer->forward(hidden, position_ids(40));
  const at::NoGradGuard no_gradient;
  const AttentionOutput without = layer->forward(hidden, position_ids(40));
  CHECK_FALSE(without.indexer_loss.defined());
  CHECK(at::equal(without.selection.indices, with_gradient.selection.indices));
  CHECK(at::equal(without.hidden, with_gradient.hidden));
}

TEST_CASE("selections are kept on request, and only as published hold future keys",
          "[model][variant]") {
  const std::string name = GENERATE("dsa", "window", "dsa_as_published");
  AttentionConfig config = small_attention();
  config.top_k = 0;
  config.top_k_fraction = 0.5;
  const auto layer = make_layer(name, config);
  CHECK_FALSE(layer->forward(random_hidden(2, 64), position_ids(64)).selection.indices.defined());
  layer->keep_selection = true;
  const auto kept = layer->forward(random_hidden(2, 64), position_ids(64)).selection;
  REQUIRE(kept.indices.sizes() == at::IntArrayRef({2, 64, 32}));
  REQUIRE(kept.count.sizes() == at::IntArrayRef({2, 64}));
  const at::Tensor query = at::arange(64, at::kInt).view({1, 64, 1});
  const at::Tensor holds_future = (kept.indices > query).any(-1);
  const int64_t rows = holds_future.sum().item<int64_t>();
  CHECK(rows == (name == "dsa_as_published" ? 2 * 31 : 0));
}

TEST_CASE("the as-published indexer never gets a gradient", "[model][variant]") {
  const auto layer = make_layer("dsa_as_published", small_attention());
  const AttentionOutput output = layer->forward(random_hidden(2, 40), position_ids(40));
  CHECK_FALSE(output.indexer_loss.defined());
  output.hidden.pow(2).sum().backward();
  for (const auto& p : layer->named_parameters()) {
    CHECK(p.value().grad().defined() != is_indexer(p.key()));
  }
}

TEST_CASE("the indexer knows the order of keys when K is far below S", "[model][variant]") {
  // The same token everywhere: only RoPE can tell keys apart. Without it all scores tie and the
  // first keys win; the rotation makes some later key win somewhere.
  AttentionConfig config = small_attention();
  config.index_heads = 8;  // with few, ReLU may silence all of them and leave nothing but ties
  const auto layer = make_layer("dsa", config);
  layer->keep_selection = true;
  const at::Tensor hidden = random_hidden(1, 1).expand({1, 200, small_attention().d_model});
  const auto kept = layer->forward(hidden.contiguous(), position_ids(200)).selection;
  const at::Tensor first_keys = at::arange(6, at::kInt);
  CHECK_FALSE((kept.indices.slice(1, 10) == first_keys).all().item<bool>());
}
