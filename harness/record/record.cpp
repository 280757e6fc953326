#include "harness/record/archive.h"

namespace dsa::record {

template <class A> void fields(A& a, Metric& m) {
  a("quantity", m.quantity), a("labels", m.labels), a("samples", m.samples);
}
template <class A> void fields(A& a, Series& s) {
  a("x", s.x), a("y", s.y), a("labels", s.labels), a("xs", s.xs), a("ys", s.ys);
}
template <class A> void fields(A& a, Audit& t) {
  a("name", t.name), a("labels", t.labels), a("passed", t.passed), a("observed", t.observed);
  a("required", t.required), a("unit", t.unit), a("detail", t.detail);
}
template <class A> void fields(A& a, VariantInfo& v) {
  a("name", v.name), a("summary", v.summary), a("role", v.role), a("colour_slot", v.colour_slot);
  a("baseline", v.baseline);
}
template <class A> void fields(A& a, BackendInfo& b) {
  a("name", b.name), a("description", b.description), a("role", b.role);
}
template <class A> void fields(A& a, Failure& f) {
  a("id", f.id), a("status", f.status), a("reason", f.reason), a("labels", f.labels);
}
template <class A> void fields(A& a, Run& r) {
  a("id", r.id), a("command", r.command), a("started", r.started), a("ended", r.ended);
  a("status", r.status), a("error", r.error), a("build", r.build), a("machine", r.machine);
  a("config", r.config_json), a("variants", r.variants), a("backends", r.backends);
  a("metrics", r.metrics), a("series", r.series), a("reference_series", r.reference_series);
  a("audits", r.audits);
}

std::string to_json(const Run& run) {
  return versioned(kVersion, Writer::value(run));
}

Run from_json(const std::string& text) {
  const Json in = of_version(kVersion, "record", text);
  Run run;
  Reader::read(in, run);
  return run;
}

std::string to_json(const std::vector<Failure>& failures) {
  return strict_text(Writer::value(failures));
}

std::vector<Failure> failures_from_json(const std::string& text) {
  std::vector<Failure> failures;
  Reader::read(Json::parse(text), failures);
  return failures;
}

}  // namespace dsa::record
