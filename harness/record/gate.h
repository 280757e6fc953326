// What `dsa-bench gate` leaves behind in verdict.json: base against head, row by row. Standard library
// only, as record.h, so that reports and the history read it without torch.
#pragma once
#include "harness/record/record.h"

namespace dsa::record {

inline constexpr int kGateVersion = 1;

/// Two binaries on one benchmark, round by round. Every ratio is time of the second over time of the
/// first, so that above 1 the second is slower.
struct Pairing {
  int rounds = 0;
  double ratio = 0, low = 0, high = 0;  ///< median and its sign-test interval; NaN before it exists
  std::string verdict;  ///< regression | improvement | same | inconclusive; empty = not measured
};

/// A number that does not depend on the clock: FLOPs, bytes, peak memory, recall, loss, ...
struct GateCheck {
  Quantity quantity;
  double base = 0, head = 0;
  double tolerance = 0;  ///< of |head - base|, in the quantity's unit
  std::string verdict;   ///< same | better | worse; without a direction more is worse
};

/// What a row can come to, most pressing first; those from kFirstQuietVerdict on need nobody.
inline constexpr const char* kGateVerdicts[] = {
    "regression", "worse", "crashed", "hung",        "failed",  "missing", "inconclusive",
    "unarmed",    "new",   "renamed", "improvement", "skipped", "same",    "same-build"};
inline constexpr int kFirstQuietVerdict = 10;

/// Its place in kGateVerdicts, or one past the end.
int place_of_verdict(const std::string& verdict);

struct GateRow {
  std::string id, level;
  std::string verdict;      ///< one of kGateVerdicts
  std::string reason;       ///< one sentence
  double base_seconds = 0;  ///< median of base's rounds; NaN = not timed
  Pairing pairing;          ///< base against head
  Pairing confirmation;     ///< the same again, only if the first said regression
  Pairing copy, slowed;     ///< the certificate: base against itself, and against itself slowed
  std::vector<GateCheck> checks;
};

struct GateArm {
  std::string name;  ///< base | head
  std::string path, git, text_hash;
};

struct GateVerdict {
  std::string id, command, started, ended;  ///< as in Run
  std::string status = "running";           ///< running | done | interrupted | failed
  std::string sentence;                     ///< what came out, as the terminal showed it
  int exit_code = 0;
  bool armed = false;  ///< the certificate holds for every timed row
  double alpha = 0;    ///< of all timed rows together
  double micro_effect = 0, macro_effect = 0, slowdown = 0;  ///< 0.03, 0.02, 1.10
  double seconds = 0, budget = 0;                           ///< spent, and allowed
  std::vector<GateArm> arms;
  std::map<std::string, std::string> machine;
  std::string config_json;
  std::vector<GateRow> rows;
};

std::string to_json(const GateVerdict& verdict);
GateVerdict gate_from_json(const std::string& text);  ///< a newer kGateVersion throws

}  // namespace dsa::record
