#include "harness/record/gate.h"

#include "harness/record/archive.h"

#include <algorithm>

namespace dsa::record {

template <class A>
void fields(A& a, Pairing& p) {
  a("rounds", p.rounds), a("ratio", p.ratio), a("low", p.low), a("high", p.high);
  a("verdict", p.verdict);
}
template <class A>
void fields(A& a, GateCheck& c) {
  a("quantity", c.quantity), a("base", c.base), a("head", c.head), a("tolerance", c.tolerance);
  a("verdict", c.verdict);
}
template <class A>
void fields(A& a, GateRow& r) {
  a("id", r.id), a("level", r.level), a("verdict", r.verdict), a("reason", r.reason);
  a("base_seconds", r.base_seconds), a("pairing", r.pairing), a("confirmation", r.confirmation);
  a("copy", r.copy), a("slowed", r.slowed), a("checks", r.checks);
}
template <class A>
void fields(A& a, GateArm& g) {
  a("name", g.name), a("path", g.path), a("git", g.git), a("text_hash", g.text_hash);
}
template <class A>
void fields(A& a, GateVerdict& v) {
  a("id", v.id), a("command", v.command), a("started", v.started), a("ended", v.ended);
  a("status", v.status), a("sentence", v.sentence), a("exit_code", v.exit_code);
  a("armed", v.armed), a("alpha", v.alpha), a("micro_effect", v.micro_effect);
  a("macro_effect", v.macro_effect), a("slowdown", v.slowdown), a("seconds", v.seconds);
  a("budget", v.budget), a("arms", v.arms), a("machine", v.machine), a("config", v.config_json);
  a("rows", v.rows);
}

int place_of_verdict(const std::string& verdict) {
  return static_cast<int>(std::find(std::begin(kGateVerdicts), std::end(kGateVerdicts), verdict) -
                          std::begin(kGateVerdicts));
}

std::string to_json(const GateVerdict& verdict) {
  return versioned(kGateVersion, Writer::value(verdict));
}

GateVerdict gate_from_json(const std::string& text) {
  const Json in = of_version(kGateVersion, "gate verdict", text);
  GateVerdict verdict;
  Reader::read(in, verdict);
  return verdict;
}

}  // namespace dsa::record
