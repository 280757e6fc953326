#include "harness/stage_trace.h"

#include "attention/nvtx.h"

namespace dsa {

StageTrace traced_step(Trainer& trainer) {
  using nvtx::Category;
  StageTrace trace;
  const nvtx::StageClock clock;
  trace.seconds = trainer.step().seconds;
  for (auto id = static_cast<int>(Category::kSetup); id <= static_cast<int>(Category::kOther);
       ++id) {
    const auto category = static_cast<Category>(id);
    const double seconds = clock.seconds(category);
    if (seconds > 0) trace.stages[nvtx::name(category)] = seconds;
  }
  return trace;
}

}  // namespace dsa
