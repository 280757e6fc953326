// NVTX ranges of the project: domain `dsa`, registered names (nsys `-c nvtx -p timed@dsa` matches
// only those), one category and colour per kind of work, payload = sequence length. Header-only and
// a no-op (about 1 ns) when no profiler is attached, in CPU builds too.
#pragma once
#include <cstdint>
#include <memory>

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
  kOther,  ///< what no range claims; StageClock only
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
  bool pushed_ = false;   ///< a profiler listens
  bool counted_ = false;  ///< a StageClock was alive at the start
};

/// Seconds spent in ranges of each category while it is alive, on this thread: how a training step
/// is split into stages. Nested ranges of another category are not counted twice, so the categories
/// (with kOther) add up to its lifetime. One at a time on a thread; a clock a step, not a run.
///
/// The backward pass is split too, with no markers in the model: an autograd node is charged to the
/// category that was open when its forward ran (both sides know its sequence number). CPU graphs
/// only, whose backward runs on the calling thread; call `backward` while the clock of its forward
/// lives, in a range of its own: sums of gradients at a fork and into leaves are charged to the node
/// before them, until a range begins or ends.
class StageClock {
 public:
  StageClock();
  ~StageClock();
  StageClock(const StageClock&) = delete;
  StageClock& operator=(const StageClock&) = delete;
  /// Up to now, the open range included.
  double seconds(Category category) const;

  /// Is one alive on this thread? Then what cannot be a range of its own, because threads do it in turns
  /// with something else, is worth telling it.
  static bool is_running();
  /// So many seconds of the open range were `category`'s; at most what the open range's own category
  /// has. No clock: nothing.
  static void reassign(Category category, double seconds);

  struct State;  ///< of nvtx.cpp

 private:
  std::unique_ptr<State> state_;
};

/// Lower-case name of a category as records and charts use it: "indexer", "topk", ...
const char* name(Category category);

}  // namespace dsa::nvtx
