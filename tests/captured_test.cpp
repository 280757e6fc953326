// Captured kernel inputs: a file of weights keeps its model, the facts about selections are what they
// say, and rows get the trained layer's choice or decline in words.
#include "bench/captured.h"

#include "attention/rope.h"
#include "bench/kernel_inputs.h"
#include "harness/safetensors.h"
#include "tests/temporary_folder.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <cmath>
#include <filesystem>

using namespace dsa;
using namespace dsa::bench;
using Catch::Matchers::ContainsSubstring;

namespace {

/// A small model with random weights and a text for it.
struct Fixture {
  TemporaryFolder folder;
  RunConfig settings;
  KernelConfig kernels;

  explicit Fixture(const std::string& variant = "dsa") {
    settings.attention.d_model = 32;
    settings.attention.n_heads = settings.attention.n_kv_heads = 2;
    settings.attention.head_width = 16;
    settings.attention.top_k = 8;
    settings.attention.index_heads = 2;
    settings.attention.index_width = 16;
    settings.attention.index_rope_width = 8;
    settings.model.n_experts = 0;
    settings.model.expert_width = 48;
    settings.model.vocab_size = 256;
    settings.model.embedding_std = 1;
    settings.data.path = folder.path("text.txt");
    settings.data.validation_fraction = 0.5;
    std::ofstream text(settings.data.path);
    for (int i = 0; i < 4000; ++i)
      text << static_cast<char>('a' + i * i % 23) << (i % 7 ? "" : " ");
    text.close();
    Transformer model(variant, settings.attention, settings.model);
    kernels.captured_weights = folder.path("w.safetensors");
    write_weights(kernels.captured_weights, model, {variant, settings});
  }

  KernelCase row(Op op, int64_t length, int64_t top_k) const {
    KernelCase kernel;
    kernel.op = op;
    kernel.scores = "captured";
    kernel.problem.queries = kernel.problem.keys = length;
    kernel.problem.top_k = top_k;
    kernel.problem.heads = kernel.problem.kv_heads = 2;
    kernel.problem.qk_width = kernel.problem.v_width = 8;
    kernel.problem.index_heads = 2;
    kernel.problem.index_width = 16;
    return kernel;
  }
};

/// Attention heads without a choice: facts_of is given one.
AttentionCapture random_heads(int64_t length) {
  at::Generator generator = at::detail::createCPUGenerator(4);
  const auto draw = [&](at::IntArrayRef shape) { return at::randn(shape, generator, at::kFloat); };
  return {draw({1, length, 4, 8}), draw({1, length, 2, 8}), {}, {}, 1 / std::sqrt(8.0)};
}

/// The definition, on the whole matrix.
at::Tensor dense_probabilities(const AttentionCapture& heads) {
  const int64_t length = heads.q.size(1);
  const at::Tensor future = at::ones({length, length}, at::kBool).triu_(1);
  const at::Tensor logits =
      at::einsum("bthd,bshd->bhts", {heads.q, heads.k.repeat_interleave(2, 2)}) / std::sqrt(8.0);
  return at::softmax(logits.masked_fill(future, -INFINITY), -1).mean(1);
}

}  // namespace

TEST_CASE("a file of weights gives back its model, rounded to bfloat16", "[captured]") {
  const Fixture fixture;
  Transformer model("dsa", fixture.settings.attention, fixture.settings.model);
  const std::string file = fixture.folder.path("again.safetensors");
  write_weights(file, model, {"dsa", fixture.settings});
  const LoadedWeights loaded = read_weights(file);
  CHECK(loaded.source.variant == "dsa");
  CHECK(loaded.source.config.attention.index_width == 16);
  CHECK_FALSE(loaded.model->is_training());
  const auto parameters = loaded.model->named_parameters();
  for (const auto& item : model.named_parameters()) {
    CAPTURE(item.key());
    const at::Tensor rounded = item.value().detach().to(at::kBFloat16).to(at::kFloat);
    CHECK(parameters[item.key()].detach().equal(rounded));
  }
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(file));
  CHECK(bytes < 2 * model.parameter_count() + 16384);
}

TEST_CASE("a file of weights that does not fit is refused by the tensor's name", "[captured]") {
  const Fixture fixture;
  const std::string file = fixture.folder.path("broken.safetensors");
  const auto refused = [&](auto change, const std::string& part) {
    Safetensors contents = read_safetensors(fixture.kernels.captured_weights);
    change(contents);
    write_safetensors(file, contents);
    CHECK_THROWS_WITH(read_weights(file), ContainsSubstring(part));
  };
  refused([](Safetensors& c) { c.tensors.erase("embedding"); }, "embedding");
  refused([](Safetensors& c) { c.tensors["embedding"] = at::zeros({2, 2}); }, "embedding");
  refused([](Safetensors& c) { c.tensors["extra"] = at::zeros({2}); }, "tensors");
  refused([](Safetensors& c) { c.metadata["format"] = "dsa-checkpoint-1"; }, "dsa-checkpoint-1");
  refused([](Safetensors& c) { c.metadata.erase("variant"); }, "variant");
}

TEST_CASE("the best selection has recall 1, the window is all recent", "[captured]") {
  const int64_t length = 200, top_k = 24;
  AttentionCapture layer = random_heads(length);
  layer.selection = ops::select_top_k(dense_probabilities(layer), top_k);
  const auto best = facts_of(layer);
  REQUIRE(best);
  CHECK(best->recall == 1);
  CHECK(best->recent < 0.5);
  CHECK(best->union16 > 3);
  layer.selection = ops::window_selection(1, length, length, top_k);
  const auto window = facts_of(layer);
  CHECK(window->recent == 1);
  CHECK(std::abs(window->union16 - (24 + 15) / 24.0) < 1e-12);
  CHECK(window->recall < 0.5);
  layer.selection = ops::window_selection(1, length, length, length - 15);
  CHECK_FALSE(facts_of(layer));
}

TEST_CASE("a captured row selects what the model's layer scores highest", "[captured]") {
  const Fixture fixture;
  const int64_t length = 96, top_k = 12;
  InputCache cache;
  const auto inputs = cache.get(fixture.row(Op::kIndexerSelect, length, top_k), fixture.kernels);
  const InputSet& set = inputs->sets.front();
  const ops::Selection wanted = ops::indexer_select(set.q, set.k, set.weight, top_k);
  const auto attention = cache.get(fixture.row(Op::kSparse, length, top_k), fixture.kernels);
  CHECK(attention->sets.front().selection.indices.equal(wanted.indices));
  REQUIRE(attention->sets.size() > 1);
  CHECK_FALSE(attention->sets[1].selection.indices.equal(wanted.indices));  // another window
  REQUIRE(attention->facts);
  CHECK(attention->facts->union16 >= 1);

  // The indexer of that layer, of that model, on that text.
  const LoadedWeights loaded = read_weights(fixture.kernels.captured_weights);
  const Corpus corpus = load_corpus(fixture.settings.data);
  const at::Tensor tokens = corpus.validation.narrow(0, 0, length).unsqueeze(0);
  AttentionCapture captured;
  loaded.model->attention_layers().at(0)->capture = &captured;
  const at::NoGradGuard no_grad;
  loaded.model->forward(tokens, tokens);
  CHECK(captured.index.q.equal(set.q));
  CHECK(captured.index.weight.equal(set.weight));
}

TEST_CASE("captured rows that cannot be made decline in words", "[captured]") {
  const Fixture fixture;
  KernelConfig kernels = fixture.kernels;
  KernelCase row = fixture.row(Op::kIndexerSelect, 96, 8);
  CHECK(captured_declines(row, kernels).empty());
  row.problem.index_width = 64;
  CHECK_THAT(captured_declines(row, kernels), ContainsSubstring("J = 16"));
  CHECK(captured_declines(fixture.row(Op::kSparse, 96, 8), kernels).empty());
  CHECK_THAT(captured_declines(fixture.row(Op::kSparse, 8192, 8), kernels),
             ContainsSubstring("held-out text"));
  kernels.captured_weights = fixture.folder.path("none");
  CHECK_THAT(captured_declines(row, kernels), ContainsSubstring("captured-weights"));
  kernels = fixture.kernels;
  kernels.captured_layer = 2;
  InputCache cache;
  CHECK_THROWS_WITH(cache.get(fixture.row(Op::kSparse, 96, 8), kernels),
                    ContainsSubstring("captured-layer is 2"));
  const Fixture dense("dense");
  CHECK_THROWS_WITH(cache.get(dense.row(Op::kSparse, 96, 8), dense.kernels),
                    ContainsSubstring("dense"));
}

TEST_CASE("weights or a layer that do not exist are refused before rows are made", "[captured]") {
  const Fixture fixture;
  const auto refused = [&](auto change, const std::string& part) {
    KernelConfig kernels = fixture.kernels;
    kernels.scores = {"uniform", "captured"};
    CHECK_NOTHROW(check_captured(kernels));
    change(kernels);
    CHECK_THROWS_WITH(check_captured(kernels), ContainsSubstring(part));
    kernels.scores = {"uniform"};
    CHECK_NOTHROW(check_captured(kernels));
  };
  refused([](KernelConfig& k) { k.captured_weights += "x"; }, "there are no weights at");
  refused([](KernelConfig& k) { k.captured_layer = 2; }, "captured-layer is 2");
  refused([](KernelConfig& k) { k.captured_layer = -1; }, "has layers 0 to 1");
}

namespace {

/// The committed model on the first window of so many bytes, K = 512.
void check_committed_model(int64_t length) {
  KernelConfig kernels;
  kernels.captured_weights = DSA_PRESETS "/captured.safetensors";
  CHECK(std::filesystem::file_size(kernels.captured_weights) <= 1'000'000);
  KernelCase row;
  row.op = Op::kSparse;
  row.scores = "captured";
  row.problem.queries = row.problem.keys = length;
  row.problem.top_k = 512;
  const std::string reason = captured_declines(row, kernels);
  if (reason.find("fetch-text") != std::string::npos) SKIP(reason);
  REQUIRE(reason.empty());
  CapturedModel model;
  const auto facts = facts_of(model.layer(row, kernels, 0));
  REQUIRE(facts);
  CAPTURE(facts->union16, facts->recall, facts->recent);
  CHECK(facts->recall >= 0.5);
  CHECK(facts->recent <= 0.7);
}

}  // namespace

TEST_CASE("the committed model's indexer selects well, and not only what is near", "[captured]") {
  check_committed_model(8192);
}

TEST_CASE("past its length the committed model reads with stretched RoPE, and selects well still",
          "[captured][slow]") {
  check_committed_model(32768);  // recall 0.27 with the base it was trained with
}

TEST_CASE("the model of a shorter row is not that of a longer one before it", "[captured]") {
  Fixture fixture;
  fixture.settings.lengths = {64};
  Transformer model("dsa", fixture.settings.attention, fixture.settings.model);
  write_weights(fixture.kernels.captured_weights, model, {"dsa", fixture.settings});
  const auto queries = [&](CapturedModel& of, int64_t length) {
    return of.layer(fixture.row(Op::kIndexerSelect, length, 8), fixture.kernels, 0).index.q;
  };
  CapturedModel one, other;
  const at::Tensor before = queries(one, 64), stretched = queries(one, 256);
  CHECK(queries(one, 64).equal(before));
  CHECK(queries(other, 256).equal(stretched));
  CHECK((stretched.narrow(1, 0, 64) - before).abs().max().item<double>() > 1e-2);

  const double base = stretched_rope_base(fixture.settings.attention.rope_base, 16, 4);
  const LoadedWeights loaded = read_weights(fixture.kernels.captured_weights, base);
  AttentionCapture captured;
  loaded.model->attention_layers().at(0)->capture = &captured;
  const at::NoGradGuard no_grad;
  const Corpus corpus = load_corpus(fixture.settings.data);
  const at::Tensor tokens = corpus.validation.narrow(0, 0, 256).unsqueeze(0);
  loaded.model->forward(tokens, tokens);
  CHECK(captured.index.q.equal(stretched));
}
