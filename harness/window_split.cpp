#include "harness/window_split.h"

#include "attention/random.h"

#include <algorithm>

namespace dsa {
namespace {

constexpr uint64_t kSplitSeed = 42;  // the seed's; every run must hold out the same windows

}  // namespace

void require_window(const Corpus& corpus, const char* part, int64_t tokens, int64_t length) {
  require(tokens > length, "data.path: ", corpus.source, " has ", tokens, " ", part,
          " tokens, but one window of length ", length, " needs ", length + 1,
          "; choose a shorter length or bring more data");
}

WindowSplit split_windows(const Corpus& corpus, int64_t length) {
  require_window(corpus, "", corpus.all.size(0), length);
  const int64_t count = corpus.all.size(0) - length;
  WindowSplit split;
  auto& starts = split.train;
  starts.resize(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) starts[static_cast<size_t>(i)] = i;
  Random random(kSplitSeed);
  for (size_t i = starts.size(); i > 1; --i) std::swap(starts[i - 1], starts[random.below(i)]);
  const auto held = static_cast<int64_t>(static_cast<double>(count) * corpus.validation_fraction);
  require(held > 0 && held < count, "data.validation-fraction is ", corpus.validation_fraction,
          ", which leaves one part of ", count, " windows empty; bring more data");
  split.validation.assign(starts.end() - held, starts.end());
  starts.resize(static_cast<size_t>(count - held));
  if (corpus.max_validation_tokens > 0) {
    const int64_t kept = std::max<int64_t>(1, corpus.max_validation_tokens / length);
    split.validation.resize(static_cast<size_t>(std::min(held, kept)));
  }
  return split;
}

}  // namespace dsa
