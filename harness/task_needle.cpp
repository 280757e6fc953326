// A needle in text: somewhere in a window of the corpus stands a line with a random key and value, and
// at the end the key is asked for. Scored are the value's 8 characters, each with the right ones before
// it. Training windows come from the training text, scored ones from the held-out text.
#include "harness/task.h"

#include <algorithm>
#include <cmath>
#include <string_view>

namespace dsa {
namespace {

constexpr int64_t kHex = 8, kDepths = 11;
constexpr std::string_view kKey = "\nKEY ", kIs = " = ";
constexpr auto kNeedle = static_cast<int64_t>(kKey.size() + kIs.size()) + 2 * kHex + 1;
/// The last character of the value is asked for, never read.
constexpr auto kQuestion = static_cast<int64_t>(kKey.size() + kIs.size()) + 2 * kHex - 1;

void check_needle(const TaskConfig& c, int64_t length) {
  require(length >= kNeedle + kQuestion + 16, "the length is ", length,
          "; a needle, its question and some text around them take at least ",
          kNeedle + kQuestion + 16);
  require(c.needle_share > 0 && c.needle_share <= 1, "task.needle-share is ", c.needle_share,
          "; it must be more than 0 and at most 1");
  require(c.needle_trials >= 1, "task.needle-trials is ", c.needle_trials,
          "; it must be at least 1");
}

std::string hex(Random& random) {
  std::string text;
  for (int i = 0; i < kHex; ++i) text += "0123456789abcdef"[random.below(16)];
  return text;
}

std::string text_window(const Example& example, Random& random, int64_t length) {
  const at::Tensor& part = example.test ? example.corpus.validation : example.corpus.train;
  const int64_t room = part.size(0) - length;
  require(room > 0, "data.path: ", example.corpus.source, " has ", part.size(0),
          example.test ? " validation" : " training", " tokens, but a window of it takes ", length,
          "; choose a shorter length or bring more data");
  const auto* ids = part.data_ptr<int64_t>() + random.below(static_cast<uint64_t>(room));
  return {ids, ids + length};
}

void write_bytes(const std::string& text, std::span<int64_t> tokens) {
  std::transform(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(tokens.size()),
                 tokens.begin(), [](char c) { return static_cast<unsigned char>(c); });
}

void fill_needle(const TaskConfig& c, Random& random, const Example& example) {
  const auto length = static_cast<int64_t>(example.tokens.size());
  const bool holds_needle =
      example.test || static_cast<double>(random.next() >> 11) * 0x1p-53 < c.needle_share;
  if (!holds_needle) {
    const std::string text = text_window(example, random, length + 1);
    write_bytes(text, example.tokens);
    write_bytes(text.substr(1), example.targets);
    return;
  }
  const int64_t filler = length - kNeedle - kQuestion;
  std::string text = text_window(example, random, filler);
  const std::string key = hex(random), value = hex(random);
  const double depth =
      static_cast<double>(example.number / c.needle_trials) / static_cast<double>(kDepths - 1);
  const auto place = example.test
                         ? std::llround(depth * static_cast<double>(filler))
                         : static_cast<int64_t>(random.below(static_cast<uint64_t>(filler) + 1));
  const std::string line = std::string(kKey) + key + std::string(kIs) + value;
  text.insert(static_cast<size_t>(place), line + "\n");
  text += line;
  write_bytes(text, example.tokens);
  write_bytes(value, example.targets.last(static_cast<size_t>(kHex)));
}

}  // namespace

Task needle_task() {
  Task row;
  row.name = "needle";
  row.summary = "the value of a key hidden in text, asked for at the end of the window";
  row.reads_text = true;
  row.check = check_needle;
  row.fill = fill_needle;
  row.guesses = [](const TaskConfig&) { return std::vector<Guess>{{"any character", 1.0 / 16}}; };
  row.test_examples = [](const TaskConfig& c) { return kDepths * c.needle_trials; };
  row.group_label = "depth";
  for (int i = 0; i < kDepths; ++i) {
    row.groups.push_back(i == 0 ? "0" : i == 10 ? "1" : "0." + std::to_string(i));
  }
  return row;
}

}  // namespace dsa
