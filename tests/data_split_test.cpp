// Training and validation never share a token, every variant sees the same batches, and every
// validation token is scored exactly once.
#include "attention/fields.h"
#include "attention/random.h"
#include "harness/corpus_facts.h"
#include "harness/data.h"
#include "harness/sha256.h"
#include "harness/tokenizer.h"
#include "tests/temporary_folder.h"

#include <ATen/ops/arange.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <algorithm>
#include <map>
#include <set>

using namespace dsa;
using Catch::Matchers::ContainsSubstring;

namespace {

std::vector<int64_t> values(const at::Tensor& ids) {
  const at::Tensor flat = ids.contiguous();
  return {flat.data_ptr<int64_t>(), flat.data_ptr<int64_t>() + flat.numel()};
}

int64_t count(const at::Tensor& ids, int64_t id) {
  const auto list = values(ids);
  return std::count(list.begin(), list.end(), id);
}

/// Ids are their own positions, so that a test sees where a token came from.
Corpus positions(int64_t train, int64_t validation, const std::string& split = "contiguous") {
  Corpus corpus;
  corpus.all = at::arange(train + validation, at::kLong);
  corpus.train = corpus.all.narrow(0, 0, train);
  corpus.validation = corpus.all.narrow(0, train, validation);
  corpus.vocab_size = train + validation;
  corpus.split = split;
  corpus.source = "positions";
  corpus.validation_fraction = 0.1;
  return corpus;
}

std::map<int64_t, int> times_scored(const std::vector<Batch>& tiles) {
  std::map<int64_t, int> times;
  for (const auto& tile : tiles) {
    const auto targets = values(tile.targets), tokens = values(tile.tokens);
    for (size_t i = 0; i < targets.size(); ++i) {
      if (targets[i] == -100) continue;
      ++times[targets[i]];
      CHECK(tokens[i] == targets[i] - 1);
    }
  }
  return times;
}

std::string play(char letter, int lines) {
  std::string text;
  for (int i = 0; i < lines; ++i) text += std::string(9, letter) + "\n" + (i % 10 == 9 ? "\n" : "");
  return text;
}

}  // namespace

TEST_CASE("SHA-256 agrees with the standard's examples", "[data]") {
  const auto hex = [](const std::string& text) {
    Sha256 hash;
    for (const char c : text) hash.add(&c, 1);
    return hash.hex();
  };
  CHECK(hex("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST_CASE("random draws have the bits written here, on every platform", "[data]") {
  CHECK(mixed(0) == 0xe220a8397b1dcdafu);  // first output of SplitMix64 seeded with 0
  Random a(1, 2, 3), b(1, 2, 3), other(1, 3, 2);
  const uint64_t first = a.next();
  CHECK(first == b.next());
  CHECK(first != other.next());
  std::vector<int> seen(7, 0);
  Random random(5);
  for (int i = 0; i < 7000; ++i) ++seen[random.below(7)];
  for (const int count : seen) CHECK(std::abs(count - 1000) < 150);
}

TEST_CASE("words joined give the text back, and rare words share id 0", "[data]") {
  const std::string text = "The king, 'tis 1599!\n\n  O'er the caf\xc3\xa9 the the\tend";
  int64_t start = 0;
  std::vector<std::string_view> words;
  for (const int64_t end : word_ends(text, 0)) {
    REQUIRE(end > start);
    words.push_back(std::string_view(text).substr(static_cast<size_t>(start),
                                                  static_cast<size_t>(end - start)));
    start = end;
  }
  CHECK(start == static_cast<int64_t>(text.size()));
  CHECK(std::find(words.begin(), words.end(), " the") != words.end());
  CHECK(std::find(words.begin(), words.end(), "\n\n") != words.end());
  CHECK(std::find(words.begin(), words.end(), " caf\xc3\xa9") != words.end());
  CHECK(word_ends(text, 3).size() == 3);
  const WordVocabulary vocabulary(words, 3);
  CHECK(vocabulary.size() == 3);
  CHECK(vocabulary.id(" the") == 1);  // three times
  CHECK(vocabulary.id("never seen") == 0);
}

TEST_CASE("a folder of texts is split between two files", "[data]") {
  const TemporaryFolder folder;
  for (char letter = 'a'; letter < 'k'; ++letter) {
    folder.write(std::string(1, letter) + ".txt", play(letter, 100));
  }
  DataConfig config;
  config.path = folder.path("");
  const Corpus corpus = load_corpus(config);
  CHECK(corpus.vocab_size == 256);
  CHECK(corpus.bytes_per_token == 1);
  CHECK(corpus.train.size(0) + corpus.validation.size(0) == corpus.all.size(0));
  CHECK(corpus.train.max().item<int64_t>() == 'i');
  CHECK(count(corpus.validation, 'j') == 900);
}

TEST_CASE("a single text is split after a blank line, with a gap before it", "[data]") {
  const TemporaryFolder folder;
  DataConfig config;
  config.path = folder.write("one.txt", play('a', 1000));
  const Corpus corpus = load_corpus(config);
  const int64_t start = corpus.all.size(0) - corpus.validation.size(0);
  CHECK(corpus.all[start - 1].item<int64_t>() == '\n');
  CHECK(corpus.all[start - 2].item<int64_t>() == '\n');
  CHECK(corpus.all[start].item<int64_t>() == 'a');
  CHECK(start - corpus.train.size(0) == corpus.all.size(0) / 100);
  CHECK(std::abs(start - corpus.all.size(0) * 9 / 10) <= 55);
}

TEST_CASE("the word vocabulary is made from the training part alone", "[data]") {
  const TemporaryFolder folder;
  DataConfig config;
  config.tokenizer = "word";
  config.path = folder.write("w.txt", play('a', 900) + play('z', 100));
  const Corpus corpus = load_corpus(config);
  CHECK(corpus.vocab_size == 4);  // unknown, nine a's, one line end, two line ends
  CHECK(count(corpus.validation, 0) > 0);
  CHECK(count(corpus.train, 0) == 0);
  CHECK(corpus.bytes_per_token > 5.0);
  CHECK(corpus.bytes_per_token < 5.2);
  config.max_tokens = 100;
  CHECK(load_corpus(config).all.size(0) == 100);
}

TEST_CASE("training windows stay in the training part and depend on seed and step alone",
          "[data]") {
  const Corpus corpus = positions(1000, 200);
  const auto batches = training_batches(corpus, 16, 4, 7);
  const auto again = training_batches(corpus, 16, 4, 7);
  const Batch late = again->at(50);
  std::set<int64_t> starts;
  for (int64_t step = 0; step <= 50; ++step) {
    const Batch batch = batches->at(step);
    REQUIRE(batch.tokens.sizes() == at::IntArrayRef({4, 16}));
    CHECK(batch.targets.max().item<int64_t>() < 1000);
    const auto tokens = values(batch.tokens), targets = values(batch.targets);
    for (size_t i = 0; i < tokens.size(); ++i) CHECK(targets[i] == tokens[i] + 1);
    for (int64_t row = 0; row < 4; ++row) starts.insert(batch.tokens[row][0].item<int64_t>());
    if (step == 50) CHECK(batch.tokens.equal(late.tokens));
  }
  CHECK(starts.size() > 150);  // of 204 draws out of 984 starts
  CHECK(!training_batches(corpus, 16, 4, 8)->at(50).tokens.equal(late.tokens));
}

TEST_CASE("the last possible window is drawn and none beyond it", "[data]") {
  const Corpus corpus = positions(18, 20);
  const auto batches = training_batches(corpus, 16, 1, 3);
  std::set<int64_t> starts;
  for (int64_t step = 0; step < 40; ++step)
    starts.insert(batches->at(step).tokens[0][0].item<int64_t>());
  CHECK(starts == std::set<int64_t>{0, 1});
}

TEST_CASE("every validation token but the first is scored exactly once", "[data]") {
  for (const int64_t validation : {17, 32, 33, 100, 129, 200}) {
    for (const int64_t batch : {1, 3, 8}) {
      CAPTURE(validation, batch);
      const auto times = times_scored(validation_tiles(positions(50, validation), 16, batch));
      CHECK(static_cast<int64_t>(times.size()) == validation - 1);
      CHECK(times.begin()->first == 51);
      CHECK(times.rbegin()->first == 50 + validation - 1);
      for (const auto& [token, count] : times) CHECK(count == 1);
    }
  }
}

TEST_CASE("max-validation-tokens scores just so many", "[data]") {
  Corpus corpus = positions(50, 200);
  corpus.max_validation_tokens = 40;
  CHECK(times_scored(validation_tiles(corpus, 16, 2)).size() == 40);
}

TEST_CASE("random windows leak, and the overlap says how much", "[data]") {
  const Corpus leaky = positions(900, 100, "random_windows");
  const auto tiles = validation_tiles(leaky, 16, 8);
  std::set<int64_t> held;
  for (const auto& tile : tiles) {
    for (int64_t row = 0; row < tile.tokens.size(0); ++row) {
      held.insert(tile.tokens[row][0].item<int64_t>());
    }
  }
  CHECK(held.size() == 98);  // a tenth of 984 windows
  const auto batches = training_batches(leaky, 16, 8, 1);
  for (int64_t step = 0; step < 100; ++step) {
    const at::Tensor tokens = batches->at(step).tokens;
    for (int64_t row = 0; row < 8; ++row) CHECK(!held.contains(tokens[row][0].item<int64_t>()));
  }
  CHECK(validation_overlap(leaky, 16) > 0.99);
  CHECK(validation_overlap(positions(900, 100), 16) == 0);
}

TEST_CASE("fewer tokens than one window is refused for either part", "[data]") {
  const auto refused = [](const Corpus& corpus) {
    CHECK_THROWS_WITH(training_batches(corpus, 64, 1, 1),
                      ContainsSubstring("positions") && ContainsSubstring("64 training tokens") &&
                          ContainsSubstring("needs 65"));
  };
  refused(positions(64, 100));
  CHECK_THROWS_WITH(validation_tiles(positions(100, 64), 64, 1),
                    ContainsSubstring("64 validation tokens"));
  CHECK_NOTHROW(validation_tiles(positions(100, 65), 64, 1));
}

TEST_CASE("wrong data settings are refused by name", "[data]") {
  const auto refused = [](auto change, const char* field) {
    DataConfig config;
    change(config);
    CHECK_THROWS_WITH(check(config), ContainsSubstring(field));
  };
  refused([](DataConfig& c) { c.tokenizer = "bpe"; }, "data.tokenizer");
  refused([](DataConfig& c) { c.split = "random"; }, "data.split");
  refused([](DataConfig& c) { c.validation_fraction = 1; }, "data.validation-fraction");
  refused([](DataConfig& c) { c.validation_fraction = 0; }, "data.validation-fraction");
  refused([](DataConfig& c) { c.max_tokens = -1; }, "data.max-tokens");
  refused([](DataConfig& c) { c.max_validation_tokens = -1; }, "data.max-validation-tokens");
  refused([](DataConfig& c) { c.vocab_size = -1; }, "data.vocab-size");
}

TEST_CASE("the plays of Shakespeare are split by play", "[data]") {
  Corpus corpus;
  try {
    corpus = load_corpus({});
  } catch (const Error&) {
    SKIP("data/shakespeare is not fetched");
  }
  CHECK(corpus.sha256 == "da68ca4e8201d41a12c1d5e82d967bda85105f1dabe823d5735138bccabdd387");
  CHECK(corpus.all.size(0) == 5057198);
  CHECK(corpus.train.size(0) + corpus.validation.size(0) == corpus.all.size(0));
  const double share = static_cast<double>(corpus.validation.size(0)) / 5057198;
  CHECK(share > 0.05);
  CHECK(share < 0.15);
}
