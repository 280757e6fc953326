// The windows of the seed's split, for what draws them and for what says how far they leak.
#pragma once
#include "harness/data.h"

namespace dsa {

/// @throws Error if `tokens` are too few for one window of `length` and its target.
void require_window(const Corpus& corpus, const char* part, int64_t tokens, int64_t length);

/// Starts of the stride-1 windows of `random_windows`, shuffled once: the last ones are validation.
struct WindowSplit {
  std::vector<int64_t> train, validation;
};
WindowSplit split_windows(const Corpus& corpus, int64_t length);

}  // namespace dsa
