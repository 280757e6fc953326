#include "harness/task.h"

#include "model/head.h"

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>

namespace dsa {
namespace {

constexpr uint64_t kFirstTestSeed = uint64_t{1} << 31;

Batch empty_examples(int64_t rows, int64_t length) {
  return {at::zeros({rows, length}, at::kLong), at::full({rows, length}, kNotScored, at::kLong)};
}

Example row_of(const Batch& batch, int64_t row, const Corpus& corpus) {
  const int64_t length = batch.tokens.size(1);
  const auto size = static_cast<size_t>(length);
  return {{batch.tokens.data_ptr<int64_t>() + row * length, size},
          {batch.targets.data_ptr<int64_t>() + row * length, size},
          corpus};
}

/// Every example is new: training sees as many as it has steps and rows.
class ExampleBatches : public Batches {
 public:
  ExampleBatches(TaskConfig config, const Corpus& corpus, int64_t length, int64_t rows,
                 uint64_t seed)
      : config_(std::move(config)), corpus_(corpus), length_(length), rows_(rows), seed_(seed) {}

  Batch at(int64_t step) const override {
    const Batch batch = empty_examples(rows_, length_);
    for (int64_t row = 0; row < rows_; ++row) {
      Random random(training_example_seed(seed_, step, row));
      task(config_.name).fill(config_, random, row_of(batch, row, corpus_));
    }
    return batch;
  }

 private:
  TaskConfig config_;
  Corpus corpus_;  ///< shares the text's memory
  int64_t length_, rows_;
  uint64_t seed_;
};

Task text_task() {
  Task row;
  row.name = "text";
  row.summary = "the next token of a text (--data)";
  row.reads_text = true;
  return row;
}

}  // namespace

const std::vector<Task>& tasks() {
  static const std::vector<Task> all = {text_task(), mqar_task(), selective_copy_task(),
                                        needle_task()};
  return all;
}

const Task& task(const std::string& name) {
  std::string known;
  for (const Task& row : tasks()) {
    if (row.name == name) return row;
    known += (known.empty() ? "" : ", ") + row.name;
  }
  throw Error("task.name is '" + name + "'; it may be " + known);
}

void check(const TaskConfig& config, const std::vector<int64_t>& lengths) {
  const Task& row = task(config.name);
  require(config.top_k.empty() || row.fill != nullptr, "task.top-k is for tasks; task.name is ",
          config.name, ", which takes attention.top-k");
  for (const int64_t top_k : config.top_k) {
    require(top_k >= 1, "task.top-k is ", top_k, "; it must be at least 1");
  }
  require(config.test_examples >= 1, "task.test-examples is ", config.test_examples,
          "; it must be at least 1");
  for (const int64_t length : lengths) {
    if (row.check != nullptr) row.check(config, length);
  }
}

uint64_t training_example_seed(uint64_t seed, int64_t step, int64_t row) {
  Random random(seed, static_cast<uint64_t>(step), static_cast<uint64_t>(row));
  return random.next() % kFirstTestSeed;
}

uint64_t test_example_seed(int64_t number) {
  return kFirstTestSeed + static_cast<uint64_t>(number) % kFirstTestSeed;
}

Corpus load_corpus(const TaskConfig& config, const DataConfig& data) {
  const Task& row = task(config.name);
  if (!row.reads_text) {
    Corpus corpus;
    corpus.vocab_size = config.vocab_size;
    corpus.source = "task " + row.name;
    corpus.tokenizer = "none";
    corpus.split = "seeds";
    return corpus;
  }
  Corpus corpus = load_corpus(data);
  if (row.fill == nullptr) return corpus;
  require(corpus.tokenizer == "byte" && corpus.split == "contiguous", "task.name is ", row.name,
          ", which hides bytes in bytes held out whole, but data.tokenizer is ", corpus.tokenizer,
          " and data.split ", corpus.split, "; give byte and contiguous");
  corpus.bytes_per_token = 0;  // scored are answers, not text
  return corpus;
}

std::unique_ptr<Batches> training_batches(const TaskConfig& config, const Corpus& corpus,
                                          int64_t length, int64_t batch, uint64_t seed) {
  const Task& row = task(config.name);
  if (row.fill == nullptr) return training_batches(corpus, length, batch, seed);
  row.check(config, length);
  return std::make_unique<ExampleBatches>(config, corpus, length, batch, seed);
}

std::vector<Batch> test_tiles(const TaskConfig& config, const Corpus& corpus, int64_t length,
                              int64_t batch) {
  const Task& row = task(config.name);
  if (row.fill == nullptr) return validation_tiles(corpus, length, batch);
  row.check(config, length);
  const int64_t count = row.test_examples(config);
  std::vector<Batch> tiles;
  for (int64_t first = 0; first < count; first += batch) {
    const int64_t rows = std::min(batch, count - first);
    Batch tile = empty_examples(rows, length);
    if (!row.groups.empty()) tile.groups = at::zeros({rows}, at::kLong);
    for (int64_t i = 0; i < rows; ++i) {
      Random random(test_example_seed(first + i));
      Example example = row_of(tile, i, corpus);
      example.test = true, example.number = first + i;
      row.fill(config, random, example);
      if (row.groups.empty()) continue;
      const auto groups = static_cast<int64_t>(row.groups.size());
      tile.groups.data_ptr<int64_t>()[i] = example.number * groups / count;
    }
    tiles.push_back(std::move(tile));
  }
  return tiles;
}

std::vector<int64_t> distinct(Random& random, int64_t count, int64_t first, int64_t end) {
  std::vector<int64_t> all(static_cast<size_t>(end - first));
  std::iota(all.begin(), all.end(), first);
  for (int64_t i = 0; i < count; ++i) {
    const auto left = static_cast<uint64_t>(end - first - i);
    std::swap(all[static_cast<size_t>(i)], all[static_cast<size_t>(i) + random.below(left)]);
  }
  all.resize(static_cast<size_t>(count));
  return all;
}

}  // namespace dsa
