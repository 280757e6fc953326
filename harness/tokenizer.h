// Text -> ids. Bytes need no table; words (the seed's setting) get one built from the training part.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace dsa {

inline constexpr int64_t kByteVocabulary = 256;
inline constexpr int64_t kMaxWords = 49152;  ///< ids of the seed's tokenizer

/// End offset of every word of `text`, in order; the words joined give the text back. A word is a
/// run of letters (bytes >= 128 and ' count as letters) or of digits, each with the one space before
/// it, a run of line ends, or any other single byte. Never spans a line end.
/// @param limit  stop after so many words; 0 = all
std::vector<int64_t> word_ends(std::string_view text, int64_t limit);

/// The most frequent words get the smallest ids (ties: byte order); id 0 is every other word.
class WordVocabulary {
 public:
  /// @param words  those of the training part
  explicit WordVocabulary(const std::vector<std::string_view>& words, int64_t most = kMaxWords);
  int64_t size() const { return static_cast<int64_t>(ids_.size()) + 1; }
  int64_t id(std::string_view word) const;

 private:
  std::unordered_map<std::string, int64_t> ids_;
};

}  // namespace dsa
