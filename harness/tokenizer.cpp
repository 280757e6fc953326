#include "harness/tokenizer.h"

#include <algorithm>
#include <utility>

namespace dsa {
namespace {

enum class Kind { kLetter, kDigit, kLineEnd, kOther };

// Not <cctype>: its answers depend on the locale.
Kind kind(char c) {
  const auto byte = static_cast<unsigned char>(c);
  if ((byte | 32u) - 'a' < 26u || byte >= 128 || c == '\'') return Kind::kLetter;
  if (byte - unsigned{'0'} < 10u) return Kind::kDigit;
  return c == '\n' ? Kind::kLineEnd : Kind::kOther;
}

size_t end_of_word(std::string_view text, size_t at) {
  if (text[at] == ' ' && at + 1 < text.size()) {
    const Kind after = kind(text[at + 1]);
    if (after == Kind::kLetter || after == Kind::kDigit) ++at;
  }
  const Kind run = kind(text[at++]);
  if (run == Kind::kOther) return at;
  while (at < text.size() && kind(text[at]) == run) ++at;
  return at;
}

}  // namespace

std::vector<int64_t> word_ends(std::string_view text, int64_t limit) {
  std::vector<int64_t> ends;
  for (size_t at = 0; at < text.size();) {
    if (limit > 0 && static_cast<int64_t>(ends.size()) == limit) break;
    at = end_of_word(text, at);
    ends.push_back(static_cast<int64_t>(at));
  }
  return ends;
}

WordVocabulary::WordVocabulary(const std::vector<std::string_view>& words, int64_t most) {
  std::unordered_map<std::string_view, int64_t> counts;
  for (const auto& word : words) ++counts[word];
  std::vector<std::pair<std::string_view, int64_t>> ranked(counts.begin(), counts.end());
  std::sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  const size_t kept = std::min(ranked.size(), static_cast<size_t>(most - 1));
  for (size_t i = 0; i < kept; ++i) {
    ids_.emplace(std::string(ranked[i].first), static_cast<int64_t>(i) + 1);
  }
}

int64_t WordVocabulary::id(std::string_view word) const {
  const auto found = ids_.find(std::string(word));
  return found == ids_.end() ? 0 : found->second;
}

}  // namespace dsa
