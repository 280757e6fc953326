// The rungs of the anatomy: cumulative, one repair each, and honest about what does not change.
#include "harness/anatomy.h"

#include "harness/config_cli.h"
#include "model/causality.h"
#include "tests/model_fixture.h"
#include "tests/process.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <csignal>

using namespace dsa;
using namespace dsa::testing;
using Catch::Matchers::ContainsSubstring;
using dsa::tests::Bench;
using dsa::tests::Outcome;
using Json = nlohmann::json;

namespace {

RunConfig published() {
  RunConfig config;
  config.data.split = "random_windows";
  config.attention.dropout = 0.1;
  config.attention.index_rope_width = 0;
  config.attention.indexer_loss_weight = 0;
  config.model.embedding_std = 1;
  config.train.optimizer = "adam";
  config.train.warmup_steps = 0;
  return config;
}

std::vector<std::string> tiny_anatomy() {
  return {"--suites",
          "anatomy",
          "--seeds",
          "1,2",
          "--data.split",
          "random_windows",
          "--attention.dropout",
          "0.1",
          "--attention.indexer-loss-weight",
          "0",
          "--model.embedding-std",
          "1",
          "--train.steps",
          "4"};
}

}  // namespace

TEST_CASE("rungs change one thing at a time, and dense knows when it does not change",
          "[anatomy]") {
  const RunConfig base = published();
  const std::vector<size_t> dense_same = {0, 0, 2, 3, 3, 3}, sparse_same = {0, 1, 2, 3, 4, 5};
  REQUIRE(rungs().size() == dense_same.size());
  std::optional<RungSetting> before;
  for (size_t i = 0; i < rungs().size(); ++i) {
    const RungSetting dense = rung_setting(i, false, base), sparse = rung_setting(i, true, base);
    INFO(rungs()[i].name);
    CHECK(dense.variant == "dense");
    CHECK(dense.same_as == dense_same[i]);
    CHECK(sparse.same_as == sparse_same[i]);
    CHECK_NOTHROW(check(sparse.config));
    // What both models have changes for both at once.
    CHECK(to_json(dense.config).find("\"split\":\"" + sparse.config.data.split) !=
          std::string::npos);
    CHECK(dense.config.model.embedding_std == sparse.config.model.embedding_std);
    CHECK(dense.config.train.learning_rate == sparse.config.train.learning_rate);
    if (before) {
      const bool other =
          to_json(before->config) != to_json(sparse.config) || before->variant != sparse.variant;
      CHECK(other);
    }
    before = sparse;
  }
  CHECK(to_json(rung_setting(0, true, base).config) == to_json(base));
  CHECK(before->variant == "dsa");
  CHECK(before->config.attention.sparse_backend == "auto");
  CHECK(rung_setting(4, true, base).config.attention.sparse_backend == "torch-mask");
}

TEST_CASE("the masked experiment never sees the future, and reads what is left of its selection",
          "[anatomy][variant]") {
  AttentionConfig attention = small_attention();
  attention.top_k = 16;
  const auto model = make_model("dsa_masked", attention);
  CHECK(positions_that_see_the_future(*model, random_tokens(1, 32, 50), false) == 0);
  const auto layer = model->attention_layers().front();
  layer->keep_selection = true;
  const AttentionOutput out =
      layer->forward(at::randn({1, 32, attention.d_model}), position_ids(32));
  for (int64_t t = 0; t < 32; ++t) {
    const at::Tensor ids = out.selection.indices[0][t];
    const int64_t count = out.selection.count[0][t].item<int64_t>();
    CHECK(count == std::min<int64_t>(t + 1, 16));
    CHECK((ids.narrow(0, 0, count) <= t).all().item<bool>());
    CHECK((ids.narrow(0, count, 16 - count) == -1).all().item<bool>());
  }
}

TEST_CASE("a mask and our kernels train dsa alike", "[anatomy][variant]") {
  AttentionConfig masked = small_attention();
  masked.sparse_backend = "torch-mask";
  const at::Tensor tokens = random_tokens(2, 24, 50);
  const auto a = make_model("dsa", small_attention()), b = make_model("dsa", masked);
  const ModelOutput x = a->forward(tokens, targets_of(tokens));
  const ModelOutput y = b->forward(tokens, targets_of(tokens));
  CHECK(relative_error(x.loss, y.loss) < 1e-5);
  a->training_loss(x).backward(), b->training_loss(y).backward();
  const auto ours = a->named_parameters(), theirs = b->named_parameters();
  for (const auto& item : ours) {
    INFO(item.key());
    CHECK(relative_error(item.value().grad(), theirs[item.key()].grad()) < 1e-4);
  }
  masked.sparse_backend = "torch-sdpa";
  CHECK_THROWS_WITH(check(masked), ContainsSubstring("has no sparse attention"));
}

TEST_CASE("the anatomy suite trains every rung once and takes over what does not change",
          "[cli][anatomy]") {
  Bench bench;
  const Outcome outcome = bench.run(tiny_anatomy());
  INFO(outcome.out << outcome.err);
  REQUIRE(outcome.code == 0);
  const Json record = bench.json("record.json");
  std::map<std::string, Json> losses;
  for (const auto& metric : record["metrics"]) {
    const auto& labels = metric["labels"];
    CHECK(labels["level"] == "anatomy");
    if (metric["quantity"]["name"] != "best_validation_loss") continue;
    losses[labels["rung"].get<std::string>() + labels["arm"].get<std::string>()] =
        metric["samples"];
  }
  REQUIRE(losses.size() == 12);
  CHECK(losses["0dense"].size() == 2);
  CHECK(losses["1dense"] == losses["0dense"]);
  CHECK(losses["5dense"] == losses["3dense"]);
  CHECK(losses["3dense"] != losses["0dense"]);
  CHECK(losses["0dense"][0].get<double>() > 10);  // N(0, 1) embeddings start far above ln V
  CHECK(losses["3dense"][0].get<double>() < 6);
  size_t checkpoints = 0, curves = 0;
  for (const auto& file : std::filesystem::directory_iterator(bench.folder() / "anatomy")) {
    checkpoints += file.path().extension() == ".safetensors";
    curves += file.path().extension() == ".jsonl";
  }
  CHECK(checkpoints == 0);
  CHECK(curves == 18);  // 3 dense and 6 sparse trainings of two seeds
}

TEST_CASE("an interrupted anatomy goes on where it stopped", "[cli][anatomy]") {
  Bench bench;
  auto arguments = tiny_anatomy();
  arguments.insert(arguments.end(), {"--train.steps", "40"});
  const pid_t child = bench.start(arguments);
  REQUIRE(bench.wait_for_lines("samples.jsonl", 2));
  const int code = bench.end(child, SIGINT);
  CHECK((code == 130 || code == 0));
  const Outcome outcome = bench.plain({"--resume", bench.folder().string()});
  INFO(outcome.out << outcome.err);
  CHECK(outcome.code == 0);
  CHECK(bench.json("record.json")["status"] == "done");
  Bench whole;
  REQUIRE(whole.run(arguments).code == 0);
  const auto results = [](const Json& record) {
    Json found = Json::object();
    for (const auto& metric : record["metrics"]) {
      const std::string name = metric["quantity"]["name"];
      if (name == "step_time" || name == "missing_cpus" || name == "resumed_steps") continue;
      found[metric["labels"]["id"].get<std::string>() +
            metric["quantity"]["name"].get<std::string>()] = metric["samples"];
    }
    return found;
  };
  CHECK(results(bench.json("record.json")) == results(whole.json("record.json")));
}
