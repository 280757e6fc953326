// gate.jsonl: a line a round, so that an interrupted gate goes on.
#pragma once
#include "harness/gate/plan.h"
#include "harness/recorder.h"

#include <memory>

namespace dsa::bench {

/// An arm that times a row no more, and why.
struct Exclusion {
  size_t row = 0;
  gate::Arm arm = gate::Arm::kHead;
  std::string verdict, reason;
};

/// One round as it happened.
struct PlayedRound {
  gate::Times times;
  std::vector<Exclusion> excluded;
  double seconds = 0;
};

class GateLog {
 public:
  GateLog(const std::filesystem::path& folder, std::vector<std::string> ids);

  /// Rounds of an earlier process. @throws Error if they are of other rows, or timed in another way.
  std::vector<PlayedRound> earlier() const;
  void add(const PlayedRound& round);

 private:
  std::filesystem::path file_;
  std::vector<std::string> ids_;
  std::unique_ptr<JsonLines> lines_;
};

}  // namespace dsa::bench
