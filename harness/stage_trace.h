// One training step, split into the stages of attention/nvtx.h.
#pragma once
#include "harness/trainer.h"

#include <map>
#include <string>

namespace dsa {

struct StageTrace {
  double seconds = 0;                    ///< wall clock of the step
  std::map<std::string, double> stages;  ///< seconds; "other" is what no stage claims
};

StageTrace traced_step(Trainer& trainer);

}  // namespace dsa
