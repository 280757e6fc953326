// Selective copy, as athms/mad-lab defines it: tokens scattered among blanks, then a sign, after which
// the tokens are asked for in their order.
#include "harness/task.h"

#include <algorithm>

namespace dsa {
namespace {

void check_copy(const TaskConfig& c, int64_t length) {
  require(c.vocab_size >= 4, "task.vocab-size is ", c.vocab_size,
          "; selective-copy needs blank, sign and two ids to copy, so at least 4");
  require(c.copied_tokens >= 1 && 2 * c.copied_tokens + 1 <= length, "task.copied-tokens is ",
          c.copied_tokens, "; at length ", length, " selective-copy takes 1 to ", (length - 1) / 2);
}

void fill_copy(const TaskConfig& c, Random& random, const Example& example) {
  const auto length = static_cast<int64_t>(example.tokens.size());
  const int64_t sign = c.vocab_size - 1, blank = c.vocab_size - 2;
  const int64_t before = length - c.copied_tokens - 1;
  auto places = distinct(random, c.copied_tokens, 0, before);
  std::sort(places.begin(), places.end());
  std::fill(example.tokens.begin(), example.tokens.end(), blank);
  example.tokens[static_cast<size_t>(before)] = sign;
  for (size_t i = 0; i < places.size(); ++i) {
    const auto token = static_cast<int64_t>(random.below(static_cast<uint64_t>(blank)));
    example.tokens[static_cast<size_t>(places[i])] = token;
    example.targets[static_cast<size_t>(before) + 1 + i] = token;
  }
}

std::vector<Guess> guesses_of_copy(const TaskConfig& c) {
  return {{"any token", 1.0 / static_cast<double>(c.vocab_size - 2)}};
}

}  // namespace

Task selective_copy_task() {
  Task row;
  row.name = "selective-copy";
  row.summary = "tokens scattered among blanks, repeated in their order";
  row.check = check_copy;
  row.fill = fill_copy;
  row.guesses = guesses_of_copy;
  row.test_examples = [](const TaskConfig& c) { return c.test_examples; };
  return row;
}

}  // namespace dsa
