// The controls: random draws uniformly and repeatably, the oracle is exact, an untrained indexer stays
// as it was drawn, and all three keep to visible keys.
#include "bench/captured.h"
#include "harness/memory.h"
#include "tests/close_to.h"
#include "tests/model_fixture.h"
#include "tests/sanitizer.h"
#include "tests/trainer_fixture.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <cmath>
#include <map>

using namespace dsa;
using namespace dsa::testing;

namespace {

std::shared_ptr<AttentionLayer> fresh_layer(const std::string& name,
                                            const AttentionConfig& config) {
  seed_torch(9);
  return variant(name).make(config);
}

at::Tensor noise(at::IntArrayRef shape, uint64_t seed = 4) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::kFloat);
}

/// What the layer selects on `hidden`, through its capture.
AttentionCapture capture_of(AttentionLayer& layer, const at::Tensor& hidden) {
  AttentionCapture capture;
  layer.capture = &capture;
  layer.forward(hidden, position_ids(hidden.size(1)));
  layer.capture = nullptr;
  return capture;
}

/// Definition on the whole matrix.
at::Tensor whole_attention(const at::Tensor& q, const at::Tensor& k, double scale) {
  const int64_t length = q.size(1);
  const at::Tensor future = at::ones({length, length}, at::kBool).triu_(1);
  const at::Tensor wide = k.repeat_interleave(q.size(2) / k.size(2), 2);
  const at::Tensor logits = at::einsum("bthd,bshd->bhts", {q, wide}) * scale;
  return at::softmax(logits.masked_fill(future, -INFINITY), -1).mean(1);
}

}  // namespace

TEST_CASE("controls select distinct visible keys, as many as there are up to K", "[controls]") {
  const std::string name = GENERATE("random", "oracle", "dsa_untrained", "window");
  const int64_t length = GENERATE(1, 5, 6, 7, 70, 200);
  CAPTURE(name, length);
  const auto layer = fresh_layer(name, small_attention());
  const ops::Selection kept = capture_of(*layer, noise({2, length, 32})).selection;
  // checked() refuses future and repeated ids; the same tensors come back if all is in order.
  CHECK(ops::checked(kept, length).indices.is_same(kept.indices));
  const at::Tensor visible = at::arange(1, length + 1, at::kInt).clamp_max(6);
  CHECK(kept.count.equal(visible.expand({2, length})));
}

TEST_CASE("later tokens change nothing earlier in any control", "[controls]") {
  const std::string name = GENERATE("random", "oracle", "dsa_untrained");
  const auto layer = fresh_layer(name, small_attention());
  const at::Tensor hidden = noise({2, 150, 32});
  at::Tensor changed = hidden.clone();
  changed.narrow(1, 90, 60).copy_(noise({2, 60, 32}, 8));
  const at::NoGradGuard no_grad;
  const at::Tensor before = layer->forward(hidden, position_ids(150)).hidden,
                   after = layer->forward(changed, position_ids(150)).hidden;
  CHECK(before.narrow(1, 0, 90).equal(after.narrow(1, 0, 90)));
  CHECK_FALSE(before.narrow(1, 90, 60).equal(after.narrow(1, 90, 60)));
}

TEST_CASE("random draws every set of keys equally often", "[controls]") {
  // 3 of the 6 keys that query 5 sees: 20 sets, by chi-square with 19 degrees of freedom.
  constexpr int64_t kDraws = 20'000;
  const ops::Selection few = ops::random_selection(kDraws, 6, 6, 3, 77);
  std::map<std::array<int32_t, 3>, int> sets;
  const at::Tensor rows = few.indices.select(1, 5).contiguous();
  const auto* ids = rows.const_data_ptr<int32_t>();
  for (int64_t i = 0; i < kDraws; ++i) ++sets[{ids[3 * i], ids[3 * i + 1], ids[3 * i + 2]}];
  CHECK(sets.size() == 20);
  double chi = 0;
  for (const auto& [set, count] : sets) chi += std::pow(count - kDraws / 20.0, 2) / (kDraws / 20.0);
  CHECK(chi < 19 + 5 * std::sqrt(2 * 19.0));

  // 50 of 200 keys, one after the other over seeds: counts vary by 1 - K/n less than independent ones.
  at::Tensor counts = at::zeros({200}, at::kDouble);
  for (uint64_t seed = 0; seed < 500; ++seed) {
    const at::Tensor row = ops::random_selection(1, 200, 200, 50, seed).indices[0][199];
    counts.index_add_(0, row.to(at::kLong), at::ones({50}, at::kDouble));
  }
  const double expected = 500 * 50 / 200.0;
  chi = ((counts - expected).square() / (expected * 0.75)).sum().item<double>();
  CHECK(std::abs(chi - 199) < 5 * std::sqrt(2 * 199.0));
}

TEST_CASE("random depends on seed, place in the batch and position alone", "[controls]") {
  const auto ids = [](int64_t batch, int64_t queries, uint64_t seed) {
    return ops::random_selection(batch, queries, 300, 16, seed).indices;
  };
  const at::Tensor all = ids(3, 300, 5);
  CHECK(ids(2, 300, 5).equal(all.narrow(0, 0, 2)));
  CHECK(ids(3, 20, 5).equal(all.narrow(1, 280, 20)));
  CHECK_FALSE(ids(3, 300, 6).equal(all));
  CHECK_FALSE(all[0].equal(all[1]));
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor alone = ids(3, 300, 5);
  at::set_num_threads(threads == 1 ? 2 : threads);
  CHECK(ids(3, 300, 5).equal(alone));
  at::set_num_threads(threads);
}

TEST_CASE("controls select the same keys with and without gradients, each layer its own",
          "[controls]") {
  const std::string name = GENERATE("random", "oracle", "dsa_untrained");
  const auto model = make_model(name);
  const at::Tensor tokens = random_tokens(2, 48, 50);
  const auto select = [&](Transformer& from) {
    std::vector<AttentionCapture> kept(2);
    for (size_t i = 0; i < 2; ++i) from.attention_layers()[i]->capture = &kept[i];
    from.forward(tokens, targets_of(tokens));
    return std::vector{kept[0].selection.indices, kept[1].selection.indices};
  };
  const auto with = select(*model);
  model->eval();
  const at::NoGradGuard no_grad;
  const auto without = select(*model), again = select(*make_model(name));
  for (size_t i = 0; i < 2; ++i) {
    CHECK(with[i].equal(without[i]));
    CHECK(with[i].equal(again[i]));
  }
  CHECK_FALSE(with[0].equal(with[1]));
}

TEST_CASE("the oracle takes the keys of largest head-mean attention", "[controls]") {
  const int64_t length = GENERATE(1, 63, 64, 65, 200), kv_heads = GENERATE(1, 2, 4);
  CAPTURE(length, kv_heads);
  const at::Tensor q = noise({2, length, 4, 8}).to(at::kDouble),
                   k = noise({2, length, kv_heads, 8}, 5).to(at::kDouble);
  const ops::Selection found = ops::oracle_selection(q, k, 12, 0.4);
  const ops::Selection exact = ops::select_top_k(whole_attention(q, k, 0.4), 12);
  CHECK(found.indices.equal(exact.indices));
  CHECK(found.count.equal(exact.count));
  const ops::Selection last =
      ops::oracle_selection(q.narrow(1, length / 2, length - length / 2), k, 12, 0.4);
  CHECK(last.indices.equal(exact.indices.narrow(1, length / 2, length - length / 2)));
}

TEST_CASE("the oracle's recall is 1, no other control's is", "[controls]") {
  const std::string name = GENERATE("random", "oracle", "dsa_untrained", "window");
  CAPTURE(name);
  const auto layer = fresh_layer(name, small_attention());
  const AttentionCapture capture = capture_of(*layer, 3 * noise({1, 300, 32}));
  const auto facts = bench::facts_of(capture);
  REQUIRE(facts);
  CHECK((facts->recall == 1) == (name == "oracle"));
}

TEST_CASE("the oracle never holds a matrix of all pairs", "[controls][memory]") {
  need_plain_heap();
  const auto peak = [](int64_t length) {
    const at::Tensor q = noise({1, length, 4, 16}), k = noise({1, length, 4, 16});
    return peak_bytes([&] { ops::oracle_selection(q, k, 16, 0.25); });
  };
  const auto small = peak(2048), large = peak(8192);
  if (!small || !large) SKIP("the high-water mark cannot be reset here");
  CAPTURE(*small, *large);
  CHECK(*large <= 8 * 64.0 * 8192 * 4);  // a few tiles of 64 rows, and the selection
  CHECK(*large < 0.1 * 8192.0 * 8192 * 4);
}

TEST_CASE("gradients of the controls are those of the float64 reference", "[controls]") {
  const std::string name = GENERATE("random", "oracle", "dsa_untrained");
  CAPTURE(name);
  AttentionConfig config = small_attention();
  config.n_kv_heads = GENERATE(1, 2);
  const auto layer = fresh_layer(name, config);
  config.backend = "reference";
  const auto oracle = fresh_layer(name, config);
  oracle->to(at::kDouble);
  const at::Tensor input = noise({2, 70, 32}), weight = noise({2, 70, 32}, 6);
  const auto run = [&](AttentionLayer& of, c10::ScalarType dtype) {
    const at::Tensor hidden = input.to(dtype).detach().requires_grad_();
    AttentionCapture capture;
    of.capture = &capture;
    (of.forward(hidden, position_ids(70)).hidden * weight.to(dtype)).sum().backward();
    std::map<std::string, at::Tensor> found{{"hidden", hidden.grad()}};
    for (const auto& p : of.named_parameters()) {
      if (p.value().grad().defined()) found[p.key()] = p.value().grad();
    }
    return std::pair{capture.selection.indices, found};
  };
  const auto [chosen, narrow] = run(*layer, at::kFloat);
  const auto [exact, wide] = run(*oracle, at::kDouble);
  REQUIRE(chosen.equal(exact));
  REQUIRE(narrow.size() == 5);  // hidden, q, k, v, out: nothing of an indexer
  REQUIRE(wide.size() == 5);
  for (const auto& [key, gradient] : narrow) {
    CAPTURE(key);
    CHECK(((gradient - wide.at(key)).norm() / wide.at(key).norm()).item<double>() <= 5e-6);
  }
}

TEST_CASE("an untrained indexer starts as dsa's and keeps its bits through training",
          "[controls]") {
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 3, 1);
  const auto control = tiny_trainer("dsa_untrained", *batches), dsa = tiny_trainer("dsa", *batches);
  const auto copies = [](Trainer& trainer) {
    std::vector<at::Tensor> all;
    for (const auto& p : trainer.model().indexer_parameters()) all.push_back(p.detach().clone());
    return all;
  };
  const auto start = copies(*control), trained = copies(*dsa);
  for (int i = 0; i < 5; ++i) {
    CHECK(std::isnan(control->step().indexer_loss));
    dsa->step();
  }
  const auto end = copies(*control), moved = copies(*dsa);
  REQUIRE(start.size() == trained.size());
  REQUIRE(start.size() == 10);
  for (size_t i = 0; i < start.size(); ++i) {
    CHECK(start[i].equal(trained[i]));
    CHECK(start[i].equal(end[i]));
    CHECK_FALSE(start[i].equal(moved[i]));
  }
}
