// Multi-query associative recall, as HazyResearch/zoology generates it: D key/value pairs, then
// every key once more at a place drawn from a power law; asked is the value. The value is never put
// behind its question, so nothing but recall gives it.
#include "harness/task.h"

#include <algorithm>
#include <cmath>

namespace dsa {
namespace {

void check_mqar(const TaskConfig& c, int64_t length) {
  require(length % 2 == 0, "the length is ", length, "; mqar lays out pairs, so it must be even");
  require(c.pairs >= 1 && 4 * c.pairs <= length, "task.pairs is ", c.pairs,
          "; mqar needs at least 1 and 4 tokens for each, so at most ", length / 4, " at length ",
          length);
  require(c.vocab_size > length, "task.vocab-size is ", c.vocab_size,
          "; mqar needs more ids than tokens, so more than ", length);
  require(c.power > 0 && std::isfinite(c.power), "task.power is ", c.power,
          "; it must be positive");
}

/// Uniform in (0, 1].
double unit(Random& random) {
  return static_cast<double>((random.next() >> 11) + 1) * 0x1p-53;
}

/// `count` of the places 1, 2, ..., `places`, drawn one after the other without replacement, place i
/// with weight a i^(a-1) among those left: the order of log(u) / weight (Efraimidis and Spirakis).
std::vector<int64_t> drawn_places(Random& random, int64_t count, int64_t places, double power) {
  std::vector<std::pair<double, int64_t>> keys;
  for (int64_t i = 1; i <= places; ++i) {
    const double weight = power * std::pow(static_cast<double>(i), power - 1);
    keys.emplace_back(std::log(unit(random)) / weight, i);
  }
  std::sort(keys.begin(), keys.end(), std::greater<>());
  std::vector<int64_t> drawn;
  for (int64_t i = 0; i < count; ++i) drawn.push_back(keys[static_cast<size_t>(i)].second);
  return drawn;
}

void fill_mqar(const TaskConfig& c, Random& random, const Example& example) {
  const auto length = static_cast<int64_t>(example.tokens.size());
  if (c.random_non_queries) {
    for (int64_t& token : example.tokens)
      token = static_cast<int64_t>(random.below(static_cast<uint64_t>(c.vocab_size)));
  }
  const int64_t half = c.vocab_size / 2, context = 2 * c.pairs;
  const auto keys = distinct(random, c.pairs, 1, half);
  const auto values = distinct(random, c.pairs, half, c.vocab_size);
  const auto places = drawn_places(random, c.pairs, (length - context) / 2, c.power);
  for (size_t j = 0; j < keys.size(); ++j) {
    example.tokens[2 * j] = keys[j];
    example.tokens[2 * j + 1] = values[j];
    const auto question = static_cast<size_t>(context + 2 * (places[j] - 1));
    example.tokens[question] = keys[j];
    example.targets[question] = values[j];
  }
}

std::vector<Guess> guesses_of_mqar(const TaskConfig& c) {
  return {{"any value of the window", 1.0 / static_cast<double>(c.pairs)},
          {"any value", 1.0 / static_cast<double>(c.vocab_size - c.vocab_size / 2)}};
}

}  // namespace

Task mqar_task() {
  Task row;
  row.name = "mqar";
  row.summary = "multi-query associative recall: the value of a key seen before";
  row.check = check_mqar;
  row.fill = fill_mqar;
  row.guesses = guesses_of_mqar;
  row.test_examples = [](const TaskConfig& c) { return c.test_examples; };
  return row;
}

}  // namespace dsa
