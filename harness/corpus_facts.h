// What a corpus says about the experiment before anything is trained: how far validation is known from
// training, and what loss a model reaches that looks at one token only.
#pragma once
#include "harness/data.h"

namespace dsa {

/// Share of the scored validation tokens that also lie in the span of some training window: 0 for
/// `contiguous`, nearly 1 for `random_windows`.
double validation_overlap(const Corpus& corpus, int64_t length);

/// Tokens of an n-gram long enough that natural text seldom repeats it: 32 bytes, or 8 tokens of
/// larger units.
int64_t leak_ngram(const Corpus& corpus);

/// Share of the n-grams in validation windows of `length` that also stand inside some training
/// window; NaN if no window holds one.
double ngram_overlap(const Corpus& corpus, int64_t length, int64_t ngram);

/// Mean nats over the scored validation tokens under a bigram model of the training tokens
/// (Witten-Bell smoothing, unigrams add-one): what the last token alone tells of the next.
double bigram_loss(const Corpus& corpus, int64_t length);

}  // namespace dsa
