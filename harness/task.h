// What a model is trained and scored on, as one row of a table: text, or examples drawn from a seed.
// Adding a task = writing a function that fills one example and adding a row to task.cpp. What each
// task asks: docs/tasks.md.
#pragma once
#include "attention/random.h"
#include "harness/data.h"

#include <span>

namespace dsa {

struct TaskConfig {
  std::string name = "text";
  std::vector<int64_t> top_k;
  int64_t test_examples = 1000;
  int64_t vocab_size = 256;
  int64_t pairs = 4;
  double power = 0.01;
  bool random_non_queries = true;
  int64_t copied_tokens = 16;
  double needle_share = 0.05;
  int64_t needle_trials = 20;
};

template <class C, class V>
  requires is_a<C, TaskConfig>
void visit_fields(C& c, V&& v) {
  auto& [name, top_k, test_examples, vocab_size, pairs, power, random_non_queries, copied_tokens,
         needle_share, needle_trials] = c;
  v("name", name, "what is trained: text, mqar, selective-copy or needle");
  v("top-k", top_k,
    "keys per query, one training row for each (variants that read all keys: one row); empty = "
    "attention.top-k alone");
  v("test-examples", test_examples, "examples of mqar and selective-copy that are scored");
  v("vocab-size", vocab_size, "ids of mqar (half keys, half values) and selective-copy");
  v("pairs", pairs, "key/value pairs of an mqar example, each asked for once");
  v("power", power, "a of mqar: a question lies i places behind the pairs with weight a i^(a-1)");
  v("random-non-queries", random_non_queries,
    "mqar: what is neither pair nor question is a random id; false = id 0");
  v("copied-tokens", copied_tokens, "tokens of selective-copy between the blanks");
  v("needle-share", needle_share, "share of training windows that hold a needle and its question");
  v("needle-trials", needle_trials, "scored needles at each of 11 depths");
}

/// @throws Error for an unknown task, and where examples of one of `lengths` are impossible.
void check(const TaskConfig& config, const std::vector<int64_t>& lengths);

/// Where one example is written. Tokens not scored keep the target kNotScored they come with.
struct Example {
  std::span<int64_t> tokens, targets;  ///< of one length
  const Corpus& corpus;
  bool test = false;
  int64_t number = 0;  ///< of a test example, from 0
};

/// An accuracy that needs no recall.
struct Guess {
  std::string words;
  double accuracy = 0;
};

struct Task {
  std::string name, summary;
  bool reads_text = false;  ///< needs the corpus; else its ids are 0 to task.vocab-size - 1
  /// @throws Error in one sentence if no example of `length` tokens can be made
  void (*check)(const TaskConfig&, int64_t length) = nullptr;
  void (*fill)(const TaskConfig&, Random&, const Example&) = nullptr;  ///< null: windows of text
  std::vector<Guess> (*guesses)(const TaskConfig&) = nullptr;
  int64_t (*test_examples)(const TaskConfig&) = nullptr;
  /// Test examples come in so many equal runs, each also scored by whole answers; none: empty.
  std::string group_label;          ///< "depth"
  std::vector<std::string> groups;  ///< "0", "0.1", ...
};

const std::vector<Task>& tasks();
const Task& task(const std::string& name);  ///< @throws Error listing known names

/// Seeds of examples: of training below 2^31, of tests from there to 2^32, so none is in both.
uint64_t training_example_seed(uint64_t seed, int64_t step, int64_t row);
uint64_t test_example_seed(int64_t number);

/// The corpus of a task: the text, or an empty one that knows the vocabulary.
/// @throws Error as load_corpus, and for ids that the task cannot use.
Corpus load_corpus(const TaskConfig& config, const DataConfig& data);

/// As training_batches and validation_tiles of harness/data.h, which they are for text.
std::unique_ptr<Batches> training_batches(const TaskConfig& config, const Corpus& corpus,
                                          int64_t length, int64_t batch, uint64_t seed);
std::vector<Batch> test_tiles(const TaskConfig& config, const Corpus& corpus, int64_t length,
                              int64_t batch);

// Rows of the table, each in a file of its own.
Task mqar_task();
Task selective_copy_task();
Task needle_task();

/// `count` different numbers of [first, end), in the order drawn.
std::vector<int64_t> distinct(Random& random, int64_t count, int64_t first, int64_t end);

}  // namespace dsa
