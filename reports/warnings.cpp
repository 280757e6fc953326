// What a reader must know before he believes the verdict: flawed variants, controls that do as well,
// runs that did not end, samples that are no numbers, busy machines.
#include "reports/comparison.h"
#include "reports/load.h"
#include "reports/text.h"
#include "reports/verdict.h"
#include "reports/vocabulary.h"

#include <nlohmann/json.hpp>

namespace dsa::report {
namespace {

namespace words = vocabulary;

Text flawed_warning(const TrainingView& training, const Arm& arm) {
  Text out = code(arm.name) + " is marked flawed (" + arm.variant.summary +
             "): it is shown for the record and takes part in no verdict";
  const Arm* baseline = training.first(words::kBaseline);
  for (size_t i = training.lengths().size(); baseline && i-- > 0;) {
    const double at = training.lengths()[i];
    const Summary theirs = training.summary(words::kBestLoss, arm, at);
    const Summary sound = training.summary(words::kBestLoss, *baseline, at);
    if (theirs.empty() || sound.empty() || theirs.median >= sound.median) continue;
    return out + "; its loss of " + significant(theirs.median) +
           " nats/token at L = " + length(at) + ", below the " + significant(sound.median) +
           " of " + code(baseline->name) + ", must not be believed.";
  }
  return out + ".";
}

/// A control that does as well says that selecting well is not what helped.
std::vector<Text> control_warnings(const record::Run& run, const TrainingView& training) {
  std::vector<Text> out;
  for (const Comparison& one : comparisons(run, training)) {
    const Criterion& c = one.equal_steps;
    const bool asked = one.second->variant.role == words::kControl &&
                       one.length == training.lengths().back() && !c.difference.empty();
    if (!asked || c.finding == Finding::kBetter) continue;
    if (c.difference.mean < -margin_of(run).value) continue;
    out.push_back(code(one.first->name) + " ends " + signed_gap(c.difference) +
                  " nats/token from the control " + code(one.second->name) +
                  " at L = " + length(one.length) +
                  ": this run does not show that it matters which keys are selected.");
  }
  return out;
}

Text status_warning(const record::Run& run) {
  if (run.status == "done") return {};
  if (run.status == "running") {
    return Text(
        "This run did not end: it is still going or was killed. What follows is what it had "
        "recorded by then.");
  }
  return Text("This run ended as ") + code(run.status) +
         (run.error.empty() ? "." : ": " + run.error);
}

bool is_dry_run(const record::Run& run) {
  return settings_of(run).value("dry-run", nlohmann::ordered_json()) == true;
}

}  // namespace

std::vector<Text> warnings(const record::Run& run, const TrainingView& training) {
  std::vector<Text> out;
  if (const Text status = status_warning(run); !status.empty()) out.push_back(status);
  for (const Arm& arm : training.arms()) {
    if (arm.variant.role == words::kFlawed) out.push_back(flawed_warning(training, arm));
  }
  if (!training.empty()) {
    for (Text& text : control_warnings(run, training)) out.push_back(std::move(text));
  }
  int missing = 0, all = 0, profiled = 0, slowed = 0, watched = 0, busy = 0;
  for (const record::Metric& metric : run.metrics) {
    watched += metric.quantity.name == words::kOtherCpus;
    busy += metric.labels.contains("busy");
    profiled += metric.labels.contains("profiled");
    slowed += metric.labels.contains("slowed");
    const Summary s = summarise(metric.samples);
    missing += s.missing;
    all += s.missing + s.n;
  }
  if (missing > 0) {
    out.push_back(std::to_string(missing) + " of " + std::to_string(all) +
                  " samples are not finite; they are counted, not averaged (see n).");
  }
  if (profiled > 0) {
    out.push_back(
        "This run was made with --profile: its times carry the profiler and are no result.");
  }
  if (slowed > 0) {
    out.push_back("This run was slowed on purpose (--inject-slowdown): its times are no result.");
  }
  if (busy > 0) {
    out.push_back(
        std::to_string(busy) + " of " + std::to_string(watched) +
        " kernel rows were timed while other processes had CPUs they needed: their times, "
        "and what is concluded from them, may be wrong. Run again on a quiet machine.");
  }
  if (is_dry_run(run)) {
    out.push_back(
        "This was a --dry-run: every benchmark ran once, without warm-up, on a sliver of the data. "
        "Its times and losses are no result.");
  }
  return out;
}

}  // namespace dsa::report
