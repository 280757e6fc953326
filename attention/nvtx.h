// NVTX ranges of the project: domain `dsa`, registered names (nsys `-c nvtx -p timed@dsa` matches
// only those), one category and colour per kind of work, payload = sequence length. Header-only and
// a no-op (about 1 ns) when no profiler is attached, in CPU builds too.
#pragma once
#include <cstdint>

namespace dsa::nvtx {

/// What a range is about. The values are NVTX category ids; names and colours are in nvtx.cpp.
enum class Category : uint32_t {
  kSetup = 1,
  kWarmup,
  kCorrectness,
  kTimed,
  kIndexer,
  kTopK,
  kAttention,
  kMoe,
  kHead,
  kOptimizer,
  kData,
};

/// Opens a range for the current scope. `name` must outlive the process (a string literal): it is
/// registered once per pointer.
class Range {
 public:
  Range(const char* name, Category category, int64_t length = 0);
  ~Range();
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

 private:
  const char* name_;
  Category category_;
  double start_seconds_ = 0;
};

/// Seconds spent in ranges of each category while it is alive, on this thread: how a training step
/// is split into stages. Nested ranges of another category are not counted twice. One at a time.
class StageClock {
 public:
  StageClock();
  ~StageClock();
  StageClock(const StageClock&) = delete;
  StageClock& operator=(const StageClock&) = delete;
  double seconds(Category category) const;
};

/// Lower-case name of a category as records and charts use it: "indexer", "topk", ...
const char* name(Category category);

}  // namespace dsa::nvtx
