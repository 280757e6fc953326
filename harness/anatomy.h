// The anatomy of a headline: the published experiment, then one repair at a time, cumulative, for the
// dense and the sparse model. How much of the published gap each fault made is the difference between
// two neighbouring rungs. docs/anatomy.md.
#pragma once
#include "harness/run_config.h"

namespace dsa {

struct Rung {
  const char* name;            ///< snake_case, stable, stored in records
  const char* repair;          ///< one line: what is mended here
  void (*both)(RunConfig&);    ///< what changes for both models; nullptr: nothing
  void (*sparse)(RunConfig&);  ///< what changes for the sparse one alone; nullptr: nothing
  const char* sparse_variant;
};
const std::vector<Rung>& rungs();

/// One training: variant and settings of an arm at a rung. `base` is the published setting.
struct RungSetting {
  std::string variant;
  RunConfig config;
  size_t same_as = 0;  ///< the first rung at which this arm has just these settings
};
RungSetting rung_setting(size_t rung, bool sparse, const RunConfig& base);

}  // namespace dsa
