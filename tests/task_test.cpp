// Examples of tasks: every label is right and can be recalled, nothing gives the answer away, tests are
// never trained on, and the same seed gives the same example.
#include "harness/task.h"

#include "model/head.h"
#include "tests/trainer_fixture.h"

#include <ATen/Functions.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

using namespace dsa;
using Catch::Matchers::ContainsSubstring;

namespace {

struct Row {
  std::vector<int64_t> tokens, targets;
};

std::vector<Row> rows_of(const std::vector<Batch>& tiles) {
  std::vector<Row> rows;
  for (const Batch& tile : tiles) {
    for (int64_t i = 0; i < tile.tokens.size(0); ++i) {
      const auto list = [&](const at::Tensor& all) {
        const auto* first = all.data_ptr<int64_t>() + i * all.size(1);
        return std::vector<int64_t>(first, first + all.size(1));
      };
      rows.push_back({list(tile.tokens), list(tile.targets)});
    }
  }
  return rows;
}

TaskConfig named(const std::string& name) {
  TaskConfig config;
  config.name = name;
  config.test_examples = 300;
  return config;
}

std::vector<Row> tests_of(const TaskConfig& config, int64_t length) {
  return rows_of(test_tiles(config, load_corpus(config, {}), length, 7));
}

std::string refusal(const TaskConfig& config, int64_t length) {
  try {
    check(config, {length});
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

/// Bytes that say what part they are of: 'a' to 'm' in training, 'n' to 'z' in validation.
Corpus letters() {
  Corpus corpus = testing::tiny_corpus(4000, 2000);
  auto* ids = corpus.all.data_ptr<int64_t>();
  for (int64_t i = 0; i < corpus.all.size(0); ++i) ids[i] = (i < 4000 ? 'a' : 'n') + i % 13;
  corpus.vocab_size = 256;
  corpus.tokenizer = "byte";
  return corpus;
}

std::string text_of(const std::vector<int64_t>& ids) {
  return {ids.begin(), ids.end()};
}

}  // namespace

TEST_CASE("an mqar example asks every key once and labels it with its value", "[task]") {
  for (const int64_t pairs : {1, 4, 16}) {
    TaskConfig config = named("mqar");
    config.pairs = pairs;
    for (const Row& row : tests_of(config, 64)) {
      std::map<int64_t, int64_t> value_of;
      for (size_t j = 0; j < static_cast<size_t>(pairs); ++j) {
        const int64_t key = row.tokens[2 * j], value = row.tokens[2 * j + 1];
        REQUIRE((key >= 1 && key < 128 && value >= 128 && value < 256));
        value_of[key] = value;
      }
      REQUIRE(value_of.size() == static_cast<size_t>(pairs));  // keys differ
      std::set<int64_t> values, asked;
      for (const auto& [key, value] : value_of) values.insert(value);
      REQUIRE(values.size() == value_of.size());
      for (size_t i = 0; i < row.targets.size(); ++i) {
        REQUIRE((row.tokens[i] >= 0 && row.tokens[i] < 256));
        if (row.targets[i] == kNotScored) continue;
        REQUIRE((i >= 2 * static_cast<size_t>(pairs) && i % 2 == 0));
        REQUIRE(row.targets[i] == value_of.at(row.tokens[i]));
        asked.insert(row.tokens[i]);
      }
      REQUIRE(asked.size() == value_of.size());
    }
  }
}

TEST_CASE("an mqar answer stands in the input only where its key gave it", "[task]") {
  TaskConfig config = named("mqar");
  config.random_non_queries = false;
  for (const Row& row : tests_of(config, 64)) {
    for (size_t i = 0; i < row.targets.size(); ++i) {
      if (row.targets[i] == kNotScored) continue;
      CHECK(std::count(row.tokens.begin(), row.tokens.end(), row.targets[i]) == 1);
      CHECK((i + 1 == row.tokens.size() || row.tokens[i + 1] == 0));
    }
  }
}

TEST_CASE("mqar asks at places drawn one by one, without replacement, with weights a i^(a-1)",
          "[task]") {
  // Two of four places, by hand: P(i among them) = w_i + sum over j != i of w_j w_i / (1 - w_j).
  TaskConfig config = named("mqar");
  config.pairs = 2, config.power = 0.5, config.test_examples = 20000;
  std::vector<double> weight, wanted, seen(4);
  double total = 0;
  for (int i = 1; i <= 4; ++i) weight.push_back(std::pow(i, -0.5)), total += weight.back();
  for (double& w : weight) w /= total;
  for (size_t i = 0; i < 4; ++i) {
    double p = weight[i];
    for (size_t j = 0; j < 4; ++j)
      if (j != i) p += weight[j] * weight[i] / (1 - weight[j]);
    wanted.push_back(p);
  }
  double first_key_at_first_place = 0;
  for (const Row& row : tests_of(config, 12)) {
    for (size_t place = 0; place < 4; ++place) {
      const size_t at = 4 + 2 * place;
      if (row.targets[at] == kNotScored) continue;
      seen[place] += 1.0 / 20000;
      if (place == 0 && row.tokens[at] == row.tokens[0]) first_key_at_first_place += 1.0 / 20000;
    }
  }
  // 4.5 standard deviations of 20000 draws.
  for (size_t i = 0; i < 4; ++i) CHECK(std::fabs(seen[i] - wanted[i]) < 0.016);
  CHECK(std::fabs(first_key_at_first_place - weight[0]) <
        0.016);  // the first draw is the first key's
}

TEST_CASE("selective-copy repeats its tokens in order, and blanks are all else", "[task]") {
  TaskConfig config = named("selective-copy");
  config.vocab_size = 16, config.copied_tokens = 5;
  std::set<size_t> places;
  for (const Row& row : tests_of(config, 20)) {
    std::vector<int64_t> copied, asked;
    for (size_t i = 0; i < 14; ++i) {
      CHECK(row.targets[i] == kNotScored);
      if (row.tokens[i] == 14) continue;
      REQUIRE((row.tokens[i] >= 0 && row.tokens[i] < 14));
      copied.push_back(row.tokens[i]), places.insert(i);
    }
    CHECK(row.tokens[14] == 15);
    CHECK(row.targets[14] == kNotScored);
    for (size_t i = 15; i < 20; ++i) {
      CHECK(row.tokens[i] == 14);
      asked.push_back(row.targets[i]);
    }
    CHECK(copied == asked);
  }
  CHECK(places.size() == 14);  // tokens are found everywhere before the sign
}

TEST_CASE("a needle stands at its depth and is asked for at the end", "[task]") {
  TaskConfig config = named("needle");
  config.needle_trials = 3;
  const Corpus corpus = letters();
  const auto tiles = test_tiles(config, corpus, 128, 4);
  const auto rows = rows_of(tiles);
  REQUIRE(rows.size() == 33);
  std::set<std::string> keys;
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::string text = text_of(rows[i].tokens);
    const size_t at = text.find("\nKEY "), question = text.rfind("\nKEY ");
    REQUIRE((at != std::string::npos && at < question));
    const std::string key = text.substr(at + 5, 8), value = text.substr(at + 16, 8);
    keys.insert(key);
    CHECK(text.substr(at + 13, 3) == " = ");
    CHECK(text.substr(at + 24, 1) == "\n");
    CHECK(text.substr(question) == "\nKEY " + key + " = " + value.substr(0, 7));
    const size_t filler = 128 - 25 - 23;
    CHECK(at == static_cast<size_t>(
                    std::llround(static_cast<double>(filler) * static_cast<double>(i / 3) / 10)));
    for (size_t p = 0; p + 8 < 128; ++p) CHECK(rows[i].targets[p] == kNotScored);
    CHECK(text_of({rows[i].targets.end() - 8, rows[i].targets.end()}) == value);
    // Held-out text is from 'n' on: nothing of the training text is scored.
    const std::string other = text.substr(0, at) + text.substr(at + 25, question - at - 25);
    CHECK(std::all_of(other.begin(), other.end(), [](char c) { return c >= 'n' && c <= 'z'; }));
  }
  CHECK(keys.size() == rows.size());
  const at::Tensor groups = tiles[1].groups;  // examples 4 to 7, three a depth
  CHECK(groups[1].item<int64_t>() == 1);
  CHECK(groups[2].item<int64_t>() == 2);
}

TEST_CASE("training windows of needle are text but for the share that holds one", "[task]") {
  TaskConfig config = named("needle");
  config.needle_share = 0.25;
  const auto batches = training_batches(config, letters(), 128, 400, 3);
  double needles = 0;
  for (const Row& row : rows_of({batches->at(5)})) {
    const std::string text = text_of(row.tokens);
    if (text.find("KEY") != std::string::npos) {
      ++needles;
      CHECK(std::count(row.targets.begin(), row.targets.end(), kNotScored) == 120);
      continue;
    }
    for (size_t i = 0; i + 1 < row.tokens.size(); ++i) CHECK(row.targets[i] == row.tokens[i + 1]);
    CHECK(std::all_of(text.begin(), text.end(), [](char c) { return c >= 'a' && c <= 'm'; }));
  }
  CHECK(std::fabs(needles / 400 - 0.25) < 0.1);
}

TEST_CASE("no example is both trained on and tested", "[task]") {
  for (const uint64_t seed : {0u, 1u, 0xFFFFFFFFu}) {
    for (int64_t step = 0; step < 300; ++step) {
      REQUIRE(training_example_seed(seed, step, step % 7) < uint64_t{1} << 31);
      REQUIRE(test_example_seed(step) >= uint64_t{1} << 31);
      REQUIRE(test_example_seed(step) < uint64_t{1} << 32);
    }
  }
  const TaskConfig config = named("mqar");
  std::set<std::vector<int64_t>> tested;
  for (const Row& row : tests_of(config, 32)) tested.insert(row.tokens);
  CHECK(tested.size() == 300);
  const auto batches = training_batches(config, load_corpus(config, {}), 32, 50, 1);
  for (int64_t step = 0; step < 40; ++step) {
    for (const Row& row : rows_of({batches->at(step)})) REQUIRE(!tested.contains(row.tokens));
  }
}

TEST_CASE("a batch of a task depends on seed and step alone", "[task]") {
  for (const char* name : {"mqar", "selective-copy", "needle"}) {
    INFO(name);
    const TaskConfig config = named(name);
    const Corpus corpus = config.name == "needle" ? letters() : load_corpus(config, {});
    const auto first = training_batches(config, corpus, 128, 3, 9);
    const auto again = training_batches(config, corpus, 128, 3, 9);
    const auto other = training_batches(config, corpus, 128, 3, 10);
    first->at(0);
    CHECK(at::equal(first->at(4).tokens, again->at(4).tokens));
    CHECK(at::equal(first->at(4).targets, again->at(4).targets));
    CHECK(!at::equal(first->at(4).tokens, first->at(5).tokens));
    CHECK(!at::equal(first->at(4).tokens, other->at(4).tokens));
    CHECK(at::equal(test_tiles(config, corpus, 128, 3)[0].tokens,
                    test_tiles(config, corpus, 128, 3)[0].tokens));
  }
}

TEST_CASE("an impossible task is refused in one sentence", "[task]") {
  TaskConfig config = named("mqar");
  CHECK(refusal(config, 64).empty());
  CHECK_THAT(refusal(config, 256), ContainsSubstring("task.vocab-size is 256"));
  CHECK_THAT(refusal(config, 65), ContainsSubstring("must be even"));
  config.pairs = 17;
  CHECK_THAT(refusal(config, 64),
             ContainsSubstring("task.pairs is 17") && ContainsSubstring("at most 16 at length 64"));
  config = named("selective-copy");
  config.copied_tokens = 32;
  CHECK(refusal(config, 65).empty());
  CHECK_THAT(refusal(config, 64), ContainsSubstring("takes 1 to 31"));
  config = named("needle");
  CHECK_THAT(refusal(config, 63), ContainsSubstring("the length is 63"));
  config.needle_share = 0;
  CHECK_THAT(refusal(config, 64), ContainsSubstring("task.needle-share is 0"));
  CHECK_THAT(refusal(named("chess"), 64), ContainsSubstring("text, mqar, selective-copy, needle"));
  config = named("text");
  config.top_k = {4};
  CHECK_THAT(refusal(config, 64), ContainsSubstring("attention.top-k"));
}

TEST_CASE("a whole answer counts only if every scored token is right", "[task]") {
  using namespace dsa::testing;
  // Targets are what the model says, so that every answer is right until one is changed.
  Transformer transformer("dense", tiny_attention(), tiny_model());
  Batch tile{at::zeros({4, 8}, at::kLong), at::full({4, 8}, kNotScored, at::kLong)};
  tile.groups = at::tensor({0, 0, 1, 1}, at::kLong);
  transformer.eval();
  const at::Tensor best = transformer.logits(tile.tokens).argmax(2);
  tile.targets.select(1, 5).copy_(best.select(1, 5));
  tile.targets.select(1, 6).copy_(best.select(1, 6));
  CHECK(evaluate(transformer, {tile}, 0).exact_by_group == std::vector<double>{1, 1});
  tile.targets[2][6] = (best[2][6] + 1).remainder(40);
  const Evaluation one_wrong = evaluate(transformer, {tile}, 0);
  CHECK(one_wrong.exact_by_group == std::vector<double>{1, 0.5});
  CHECK(one_wrong.accuracy == 7.0 / 8);
  CHECK(one_wrong.tokens == 8);
}
