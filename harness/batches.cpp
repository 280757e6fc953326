// Windows of the corpus: random ones for training, all of validation in tiles. Every variant gets
// the same batches, because nothing here knows of one.
#include "attention/random.h"
#include "harness/data.h"
#include "harness/window_split.h"
#include "model/head.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <cstring>

namespace dsa {
namespace {

void copy_window(const at::Tensor& from, int64_t start, const Batch& batch, int64_t row) {
  const int64_t length = batch.tokens.size(1);
  const auto* ids = from.data_ptr<int64_t>() + start;
  const auto bytes = static_cast<size_t>(length) * sizeof(int64_t);
  std::memcpy(batch.tokens.data_ptr<int64_t>() + row * length, ids, bytes);
  std::memcpy(batch.targets.data_ptr<int64_t>() + row * length, ids + 1, bytes);
}

Batch empty_batch(int64_t rows, int64_t length) {
  return {at::empty({rows, length}, at::kLong), at::empty({rows, length}, at::kLong)};
}

/// Rows start anywhere in `tokens`, or at one of `starts`.
class RandomBatches : public Batches {
 public:
  RandomBatches(at::Tensor tokens, std::vector<int64_t> starts, int64_t length, int64_t rows,
                uint64_t seed)
      : tokens_(std::move(tokens)),
        starts_(std::move(starts)),
        length_(length),
        rows_(rows),
        seed_(seed) {}

  Batch at(int64_t step) const override {
    const Batch batch = empty_batch(rows_, length_);
    for (int64_t row = 0; row < rows_; ++row) {
      Random random(seed_, static_cast<uint64_t>(step), static_cast<uint64_t>(row));
      copy_window(tokens_, start(random), batch, row);
    }
    return batch;
  }

 private:
  int64_t start(Random& random) const {
    if (!starts_.empty()) return starts_[random.below(starts_.size())];
    return static_cast<int64_t>(random.below(static_cast<uint64_t>(tokens_.size(0) - length_)));
  }

  at::Tensor tokens_;
  std::vector<int64_t> starts_;
  int64_t length_, rows_;
  uint64_t seed_;
};

std::vector<Batch> window_tiles(const Corpus& corpus, int64_t length, int64_t rows) {
  const auto starts = split_windows(corpus, length).validation;
  std::vector<Batch> tiles;
  for (size_t first = 0; first < starts.size(); first += static_cast<size_t>(rows)) {
    const auto now = std::min(rows, static_cast<int64_t>(starts.size() - first));
    tiles.push_back(empty_batch(now, length));
    for (int64_t row = 0; row < now; ++row) {
      copy_window(corpus.all, starts[first + static_cast<size_t>(row)], tiles.back(), row);
    }
  }
  return tiles;
}

at::Tensor scored_validation(const Corpus& corpus) {
  const int64_t count = corpus.validation.size(0);
  const int64_t most = corpus.max_validation_tokens;
  return corpus.validation.narrow(0, 0, most > 0 ? std::min(count, most + 1) : count);
}

void require_shape(int64_t length, int64_t batch) {
  require(length > 0, "the sequence length is ", length, "; it must be at least 1");
  require(batch > 0, "the batch is ", batch, "; it must be at least 1");
}

}  // namespace

std::unique_ptr<Batches> training_batches(const Corpus& corpus, int64_t length, int64_t batch,
                                          uint64_t seed) {
  require_shape(length, batch);
  if (corpus.split == "random_windows") {
    return std::make_unique<RandomBatches>(corpus.all, split_windows(corpus, length).train, length,
                                           batch, seed);
  }
  require_window(corpus, "training", corpus.train.size(0), length);
  return std::make_unique<RandomBatches>(corpus.train, std::vector<int64_t>{}, length, batch, seed);
}

std::vector<Batch> validation_tiles(const Corpus& corpus, int64_t length, int64_t batch) {
  require_shape(length, batch);
  if (corpus.split == "random_windows") return window_tiles(corpus, length, batch);
  const at::Tensor tokens = scored_validation(corpus);
  require_window(corpus, "validation", tokens.size(0), length);
  const int64_t whole = (tokens.size(0) - 1) / length;
  const int64_t rest = (tokens.size(0) - 1) % length;
  std::vector<Batch> tiles;
  for (int64_t first = 0; first < whole; first += batch) {
    const int64_t rows = std::min(batch, whole - first);
    const auto view = [&](int64_t shift) {
      return tokens.narrow(0, first * length + shift, rows * length).view({rows, length});
    };
    tiles.push_back({view(0), view(1)});
  }
  if (rest == 0) return tiles;
  const Batch last{at::full({1, length}, 0, at::kLong),
                   at::full({1, length}, kNotScored, at::kLong),
                   {},
                   /*padded=*/true};
  last.tokens[0].narrow(0, 0, rest).copy_(tokens.narrow(0, whole * length, rest));
  last.targets[0].narrow(0, 0, rest).copy_(tokens.narrow(0, whole * length + 1, rest));
  tiles.push_back(last);
  return tiles;
}

}  // namespace dsa
