// How `dsa-bench gate` compares two binaries (docs/gate.md). What both of them measure is said by the
// rest of the configuration.
#pragma once
#include "attention/fields.h"

#include <string>
#include <vector>

namespace dsa {

struct GateConfig {
  std::string base;
  std::string head;
  std::string budget = "10m";
  std::string min_effect = "3%";
  std::string macro_min_effect = "2%";
  double alpha = 0.01;
  int64_t rounds = 15;
  int64_t most_rounds = 60;
  std::string cores;
  std::string time_limit = "10m";
  bool time_equal = false;
  bool certificate = true;
  double certificate_slowdown = 1.10;
  std::vector<std::string> tolerances;
  std::vector<std::string> renamed;
  std::string inconclusive = "fail";
  uint64_t seed = 1;
};

template <class C, class V>
  requires is_a<C, GateConfig>
void visit_fields(C& c, V&& v) {
  auto& [base, head, budget, min_effect, macro_min_effect, alpha, rounds, most_rounds, cores,
         time_limit, time_equal, certificate, certificate_slowdown, tolerances, renamed,
         inconclusive, seed] = c;
  v("base", base, "the dsa-bench that is compared with");
  v("head", head, "the dsa-bench that is judged");
  v("budget", budget,
    "time after which no further round starts (checks not counted): 90s, 10m, 1h");
  v("min-effect", min_effect, "least slowdown of a kernel row that counts: 3% or 0.03");
  v("macro-min-effect", macro_min_effect, "the same for rows that train");
  v("alpha", alpha, "chance that one look at equal builds finds something, all rows together");
  v("rounds", rounds, "rounds before the first look; more where alpha needs them");
  v("most-rounds", most_rounds, "rounds of a row at most");
  v("cores", cores,
    "CPUs, by number, that the processes are pinned to: 0,1 or 2-5; empty = a core for each of "
    "--threads, or all if that is 0 or more than there are");
  v("time-limit", time_limit, "after which a process counts as hanging and is stopped");
  v("time-equal", time_equal, "time binaries whose machine code is equal, too");
  v("certificate", certificate,
    "time base against a copy of itself and against itself slowed: can this machine tell?");
  v("certificate-slowdown", certificate_slowdown, "factor the certificate must find");
  v("tolerances", tolerances,
    "numbers that no clock makes, and by how much head's may be worse: flops=0%, recall=0.005, "
    "peak_memory=10%+4.2e6");
  v("renamed", renamed, "rows that have another name in head: OLD=NEW");
  v("inconclusive", inconclusive, "fail: exit 2 if a row stays open or unarmed; pass: exit 0");
  v("seed", seed, "of the order in which the binaries run");
}

/// "90s", "10m", "1.5h" or plain seconds. @throws Error naming `field`
double seconds_of(const std::string& field, const std::string& text);
/// "3%" is 0.03, as is "0.03". @throws Error naming `field`
double share_of(const std::string& field, const std::string& text);

/// By how much a number may be worse: a share of base's, and an amount in its own unit beyond that.
struct Tolerance {
  std::string quantity;
  double share = 0;
  double amount = 0;
};
/// From "quantity=1%", "quantity=0.005" or "quantity=1%+2e6".
std::vector<Tolerance> tolerances_of(const GateConfig& config);

/// @throws Error naming the field, its value and what it may be.
void check(const GateConfig& config);

}  // namespace dsa
