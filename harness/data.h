// Token data: what is on disk -> ids, split before windowing. Formats and their traps: docs/data.md.
#pragma once
#include "attention/fields.h"

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

namespace dsa {

struct DataConfig {
  std::string path;  ///< empty: the plays of Shakespeare fetched at set-up
  std::string tokenizer = "byte";
  int64_t vocab_size = 0;
  int64_t max_tokens = 0;
  double validation_fraction = 0.1;
  int64_t max_validation_tokens = 0;
  std::string split = "contiguous";
};

template <class C, class V>
  requires is_a<C, DataConfig>
void visit_fields(C& c, V&& v) {
  auto& [path, tokenizer, vocab_size, max_tokens, validation_fraction, max_validation_tokens,
         split] = c;
  v("path", path, "UTF-8 text, folder of texts, nanoGPT .bin, llm.c shard or glob; empty = the plays of Shakespeare");
  v("tokenizer", tokenizer, "of texts: byte, or word (at most 49152 ids)");
  v("vocab-size", vocab_size, "number of ids in a headerless .bin file (required there)");
  v("max-tokens", max_tokens, "use only the first so many tokens; 0 = all");
  v("validation-fraction", validation_fraction, "last part of the tokens, held out");
  v("max-validation-tokens", max_validation_tokens, "score only the first so many held-out tokens; 0 = all");
  v("split", split, "contiguous (by document, with a gap), or random_windows (the seed's leaky way)");
}

/// @throws Error naming the field, its value and what it may be.
void check(const DataConfig& config);

struct Batch {
  at::Tensor tokens;   ///< int64 [B, T]
  at::Tensor targets;  ///< int64 [B, T], tokens shifted left by one; -100 = not scored
  at::Tensor groups = {};  ///< int64 [B], of a task's test examples; see Task::groups
  bool padded = false;     ///< a row ends in tokens that are none
};

/// Tokens in memory, already split. Documents are never cut between the two parts.
struct Corpus {
  at::Tensor train;       ///< int64 [n]
  at::Tensor validation;  ///< int64 [m], after the train part
  at::Tensor all;         ///< int64, both and the gap: what `random_windows` draws from
  int64_t vocab_size = 0;
  double bytes_per_token = 0;  ///< of the validation text, for bits/byte; 0 = unknown
  std::string source, sha256, tokenizer;
  std::string split;
  double validation_fraction = 0;     ///< of the windows of `random_windows`
  int64_t max_validation_tokens = 0;  ///< 0 = all
};

/// @throws Error naming file, offset and value of the first mistake.
Corpus load_corpus(const DataConfig& config);

/// Deterministic in (seed, step): step n yields the same batch whatever ran before it.
class Batches {
 public:
  virtual ~Batches() = default;
  virtual Batch at(int64_t step) const = 0;
};
std::unique_ptr<Batches> training_batches(const Corpus& corpus, int64_t length, int64_t batch,
                                          uint64_t seed);

/// All of validation in deterministic tiles of `length` tokens, the last one padded with targets of
/// -100: every validation token but the first is scored once. With `random_windows` the tiles are the
/// held-out windows. Batches may share memory with the corpus: do not write into them.
std::vector<Batch> validation_tiles(const Corpus& corpus, int64_t length, int64_t batch);

}  // namespace dsa
