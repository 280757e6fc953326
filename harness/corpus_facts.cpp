#include "harness/corpus_facts.h"

#include "attention/random.h"
#include "harness/window_split.h"
#include "model/head.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dsa {
namespace {

/// Hashes of the n-grams that `tokens` begins at each position; 2^-64 a pair to be wrong.
std::vector<uint64_t> ngram_hashes(const at::Tensor& tokens, int64_t ngram) {
  const int64_t count = tokens.size(0) - ngram + 1;
  std::vector<uint64_t> hashes(static_cast<size_t>(std::max<int64_t>(count, 0)));
  const at::Tensor own = tokens.contiguous();
  const auto* ids = own.data_ptr<int64_t>();
  constexpr uint64_t kBase = 0x9e3779b97f4a7c15u;  // odd
  uint64_t leaving = 1, hash = 0;
  for (int64_t i = 0; i < ngram; ++i) leaving *= kBase;
  for (int64_t i = 0; i < tokens.size(0); ++i) {
    hash = hash * kBase + mixed(static_cast<uint64_t>(ids[i]));
    if (i >= ngram) hash -= leaving * mixed(static_cast<uint64_t>(ids[i - ngram]));
    if (i >= ngram - 1) hashes[static_cast<size_t>(i - ngram + 1)] = mixed(hash);
  }
  return hashes;
}

/// Sorted hashes of what training can see.
std::vector<uint64_t> trained_ngrams(const Corpus& corpus, int64_t length, int64_t ngram) {
  std::vector<uint64_t> known;
  if (corpus.split != "random_windows") {
    known = ngram_hashes(corpus.train, ngram);
  } else {
    const std::vector<uint64_t> all = ngram_hashes(corpus.all, ngram);
    // reach[i]: the last training window that starts at or before i.
    std::vector<int64_t> reach(all.size(), -1);
    for (const int64_t start : split_windows(corpus, length).train) {
      if (static_cast<size_t>(start) < reach.size()) reach[static_cast<size_t>(start)] = start;
    }
    int64_t last = std::numeric_limits<int64_t>::min() / 2;
    for (size_t i = 0; i < all.size(); ++i) {
      if (reach[i] >= 0) last = reach[i];
      if (static_cast<int64_t>(i) + ngram <= last + length + 1) known.push_back(all[i]);
    }
  }
  std::sort(known.begin(), known.end());
  return known;
}

/// Counts of pairs of neighbours and of single tokens in the training text.
class Bigrams {
 public:
  Bigrams(const at::Tensor& text, int64_t vocabulary)
      : total_(text.size(0)), vocabulary_(vocabulary) {
    const at::Tensor own = text.contiguous();
    const auto* ids = own.data_ptr<int64_t>();
    first_.resize(static_cast<size_t>(vocabulary));
    kinds_.resize(first_.size());
    count_.resize(first_.size());
    for (int64_t i = 0; i < total_; ++i) ++count_[static_cast<size_t>(ids[i])];
    for (int64_t i = 1; i < total_; ++i) {
      ++first_[static_cast<size_t>(ids[i - 1])];
      pairs_.push_back(key(ids[i - 1], ids[i]));
    }
    std::sort(pairs_.begin(), pairs_.end());
    for (size_t i = 0; i < pairs_.size(); ++i) {
      if (i == 0 || pairs_[i] != pairs_[i - 1]) ++kinds_[static_cast<size_t>(pairs_[i] >> 32)];
    }
  }

  /// Witten and Bell: what was seen, and for each kind of successor one share of the unigrams.
  double nats(int64_t before, int64_t next) const {
    const auto a = static_cast<size_t>(before), b = static_cast<size_t>(next);
    const double alone =
        (static_cast<double>(count_[b]) + 1) / static_cast<double>(total_ + vocabulary_);
    const auto kinds = static_cast<double>(kinds_[a]);
    if (first_[a] == 0) return -std::log(alone);
    const auto range = std::equal_range(pairs_.begin(), pairs_.end(), key(before, next));
    const auto seen = static_cast<double>(range.second - range.first);
    return -std::log((seen + kinds * alone) / (static_cast<double>(first_[a]) + kinds));
  }

 private:
  static uint64_t key(int64_t before, int64_t next) {
    return static_cast<uint64_t>(before) << 32 | static_cast<uint64_t>(next);
  }
  int64_t total_, vocabulary_;
  std::vector<uint64_t> pairs_;
  std::vector<int64_t> first_, kinds_, count_;
};

}  // namespace

double validation_overlap(const Corpus& corpus, int64_t length) {
  if (corpus.split != "random_windows") return 0;
  const WindowSplit split = split_windows(corpus, length);
  // covered[i]: how many training windows hold token i, by differences; then a prefix sum of "some".
  std::vector<int64_t> covered(static_cast<size_t>(corpus.all.size(0)) + 1, 0);
  for (const int64_t start : split.train) {
    ++covered[static_cast<size_t>(start)];
    --covered[static_cast<size_t>(start + length + 1)];
  }
  int64_t open = 0, sum = 0;
  for (auto& value : covered) {
    open += value;
    value = sum;
    sum += open > 0 ? 1 : 0;
  }
  int64_t seen = 0;
  for (const int64_t start : split.validation) {
    seen +=
        covered[static_cast<size_t>(start + length + 1)] - covered[static_cast<size_t>(start + 1)];
  }
  return static_cast<double>(seen) /
         static_cast<double>(static_cast<int64_t>(split.validation.size()) * length);
}

int64_t leak_ngram(const Corpus& corpus) {
  return corpus.tokenizer == "byte" ? 32 : 8;
}

double ngram_overlap(const Corpus& corpus, int64_t length, int64_t ngram) {
  const std::vector<uint64_t> known = trained_ngrams(corpus, length, ngram);
  int64_t all = 0, found = 0;
  for (const Batch& tile : validation_tiles(corpus, length, 64)) {
    for (const auto& row : tile.tokens.unbind()) {
      for (const uint64_t hash : ngram_hashes(row, ngram)) {
        ++all;
        found += std::binary_search(known.begin(), known.end(), hash);
      }
    }
  }
  return all == 0 ? std::numeric_limits<double>::quiet_NaN()
                  : static_cast<double>(found) / static_cast<double>(all);
}

double bigram_loss(const Corpus& corpus, int64_t length) {
  const bool windows = corpus.split == "random_windows";
  const Bigrams model(windows ? corpus.all : corpus.train, corpus.vocab_size);
  double sum = 0;
  int64_t scored = 0;
  for (const Batch& tile : validation_tiles(corpus, length, 64)) {
    const at::Tensor tokens = tile.tokens.contiguous(), targets = tile.targets.contiguous();
    const auto* token = tokens.data_ptr<int64_t>();
    const auto* target = targets.data_ptr<int64_t>();
    for (int64_t i = 0; i < tokens.numel(); ++i) {
      if (target[i] == kNotScored) continue;
      sum += model.nats(token[i], target[i]);
      ++scored;
    }
  }
  return sum / static_cast<double>(scored);
}

}  // namespace dsa
