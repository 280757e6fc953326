#include "reports/verdict.h"

#include "reports/vocabulary.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

namespace dsa::report {
namespace {

namespace words = vocabulary;

Outcome outcome_of(Side gap, Side speed) {
  if (gap == Side::kOpen || speed == Side::kOpen) return Outcome::kUndecided;
  const int quality = gap == Side::kBelow ? 1 : gap == Side::kAbove ? -1 : 0;
  const int pace = speed == Side::kAbove ? 1 : speed == Side::kBelow ? -1 : 0;
  if (quality * pace < 0) return Outcome::kTrades;
  if (quality + pace > 0) return Outcome::kWins;
  return quality + pace < 0 ? Outcome::kLoses : Outcome::kEven;
}

const char* verb(Outcome outcome) {
  switch (outcome) {
    case Outcome::kWins:
      return "wins";
    case Outcome::kLoses:
      return "loses";
    case Outcome::kTrades:
      return "trades quality for speed or back";
    case Outcome::kEven:
      return "is even";
    case Outcome::kUndecided:
      break;
  }
  return "is undecided";
}

std::string seeds(int n) {
  return n == 1 ? "1 seed" : "n = " + std::to_string(n) + " seeds";
}

/// "(n = 3 seeds, all agree; 6 give a 95 % interval)"
std::string strength(const TrainingEvidence& e) {
  const int n = std::min(e.gap.n, e.speed.n);
  if (n < 2) return " (" + seeds(n) + ", so no interval)";
  if (e.decided) return " (" + seeds(n) + ")";
  return " (" + seeds(n) + ", [smallest, largest])";
}

std::string numbers(const TrainingEvidence& e, const std::string& baseline) {
  return "loss " + signed_gap(e.gap) + " nats/token and " + times(e.speed) + " the speed of " +
         baseline;
}

Text training_clause(const std::vector<TrainingEvidence>& all, const Arm& candidate,
                     const Arm& baseline) {
  std::vector<TrainingEvidence> mine;
  for (const TrainingEvidence& e : all) {
    if (e.arm == &candidate) mine.push_back(e);
  }
  if (mine.empty()) return {};
  const TrainingEvidence last = mine.back();
  const std::string where = "at L = " + length(last.length);
  Text out;
  if (last.outcome == Outcome::kUndecided) {
    out += Text("training data cannot decide between ") + code(candidate.name) + " and " +
           code(baseline.name) + " " + where + ": " + numbers(last, baseline.name) + strength(last);
  } else {
    const std::string against = last.outcome == Outcome::kEven ? " with " : " against ";
    out += code(candidate.name) + " " + verb(last.outcome) + against + code(baseline.name) +
           " in training " + where + ": " + numbers(last, baseline.name) + strength(last);
  }
  mine.pop_back();
  for (Outcome outcome :
       {Outcome::kWins, Outcome::kTrades, Outcome::kEven, Outcome::kLoses, Outcome::kUndecided}) {
    std::string where_else;
    for (const TrainingEvidence& e : mine) {
      if (e.outcome == outcome) where_else += (where_else.empty() ? "" : ", ") + length(e.length);
    }
    if (!where_else.empty()) out += std::string("; it ") + verb(outcome) + " at L = " + where_else;
  }
  return out;
}

std::string crossing_words(const Crossover& crossing, const Scenario& scenario) {
  const double first = scenario.points.front().length, last = scenario.points.back().length;
  const std::string range = "L = " + length(first) + (first == last ? "" : "–" + length(last));
  switch (crossing.kind) {
    case Crossover::Kind::kRises: {
      const std::string low = crossing.low ? length(*crossing.low) : "< " + length(first);
      const std::string high = crossing.high ? length(*crossing.high) : "> " + length(last);
      return "overtakes at L ≈ " + length(crossing.at) + " [" + low + ", " + high + "]";
    }
    case Crossover::Kind::kAlwaysAbove:
      return (crossing.clear ? "is ahead throughout " : "is never behind in ") + range;
    case Crossover::Kind::kAlwaysBelow:
      return (crossing.clear ? "is behind throughout " : "is never ahead in ") + range;
    case Crossover::Kind::kEven:
      return "is within the noise throughout " + range;
    case Crossover::Kind::kFallsBack:
      return "is ahead only at shorter lengths";
    case Crossover::Kind::kNoData:
      break;
  }
  return "has nothing to be compared with";
}

Text kernel_clause(const KernelView& kernels) {
  for (const Scenario& scenario : kernels.scenarios()) {
    const ScenarioPoint& point = scenario.points.back();
    const Contender *dense = point.best_dense(), *sparse = point.best_sparse();
    if (!dense || !sparse) continue;
    const Summary speed_up = point.speed_up();
    Text out = Text("as kernels (") + scenario.pass + ", " + scenario.top_k + "), whole DSA on " +
               code(sparse->backend) + " " + crossing_words(scenario.crossing(), scenario) +
               " and is " + times(speed_up) + " as fast as dense on " + code(dense->backend) +
               " at L = " + length(point.length) + " (n = " + std::to_string(speed_up.n) + ")";
    if (read(speed_up, 1, kSpeedMargin).side == Side::kOpen) out += ", which decides nothing";
    return out;
  }
  return {};
}

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
std::vector<Text> control_warnings(const TrainingView& training) {
  std::vector<Text> out;
  const Arm* candidate = training.first(words::kCandidate);
  if (!candidate) return out;
  const double longest = training.lengths().back();
  for (const Arm& arm : training.arms()) {
    if (arm.variant.role != words::kControl) continue;
    const Summary gap = paired_difference(training.samples(words::kBestLoss, arm, longest),
                                          training.samples(words::kBestLoss, *candidate, longest));
    if (gap.empty() || gap.median > kLossMargin) continue;
    out.push_back(Text("The control ") + code(arm.name) + " reaches " + signed_gap(gap) +
                  " nats/token from " + code(candidate->name) + " at L = " + length(longest) +
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
  const auto config = nlohmann::json::parse(run.config_json, nullptr, false);
  return config.is_object() && config.value("dry-run", nlohmann::json()) == true;
}

}  // namespace

std::vector<TrainingEvidence> training_evidence(const TrainingView& training) {
  std::vector<TrainingEvidence> out;
  const Arm* baseline = training.first(words::kBaseline);
  if (!baseline) return out;
  for (double length : training.lengths()) {
    for (const Arm& arm : training.arms()) {
      if (&arm == baseline) continue;
      TrainingEvidence e{&arm, length, training.top_k(arm, length), {}, {}, Outcome::kUndecided,
                         false};
      e.gap = paired_difference(training.samples(words::kBestLoss, arm, length),
                                training.samples(words::kBestLoss, *baseline, length));
      e.speed = paired_ratio(training.samples(words::kStepTime, *baseline, length),
                             training.samples(words::kStepTime, arm, length));
      if (e.gap.empty() && e.speed.empty()) continue;
      const Reading quality = read(e.gap, 0, kLossMargin), pace = read(e.speed, 1, kSpeedMargin);
      e.outcome = outcome_of(quality.side, pace.side);
      e.decided = quality.decided && pace.decided;
      out.push_back(e);
    }
  }
  return out;
}

Text reading(const TrainingEvidence& e) {
  const Side quality = read(e.gap, 0, kLossMargin).side, pace = read(e.speed, 1, kSpeedMargin).side;
  const char* loss = quality == Side::kBelow    ? "better loss"
                     : quality == Side::kAbove  ? "worse loss"
                     : quality == Side::kInside ? "same loss"
                                                : "loss open";
  const char* speed = pace == Side::kAbove    ? "faster"
                      : pace == Side::kBelow  ? "slower"
                      : pace == Side::kInside ? "same speed"
                                              : "speed open";
  return std::string(loss) + ", " + speed;
}

Text reading(const Summary& speed_up) {
  switch (read(speed_up, 1, kSpeedMargin).side) {
    case Side::kAbove:
      return "DSA faster";
    case Side::kBelow:
      return "dense faster";
    case Side::kInside:
      return "equal";
    case Side::kOpen:
      break;
  }
  return "open";
}

Text verdict_sentence(const TrainingView& training, const KernelView& kernels) {
  const std::vector<TrainingEvidence> evidence = training_evidence(training);
  const Arm *baseline = training.first(words::kBaseline),
            *candidate = training.first(words::kCandidate);
  Text out;
  if (baseline && candidate) out += training_clause(evidence, *candidate, *baseline);
  const Text kernel = kernel_clause(kernels);
  if (!out.empty() && !kernel.empty()) out += "; ";
  out += kernel;
  if (out.empty() && baseline && training.first(words::kFlawed) && !candidate) {
    return Text("This record sets ") + code(baseline->name) +
           " beside flawed variants only, so it decides nothing between sparse and dense "
           "attention.";
  }
  if (out.empty()) {
    return "This record compares nothing: it needs a baseline and a candidate trained at one "
           "length, "
           "or dense and whole-DSA kernels of one shape.";
  }
  // The sentence starts with a clause written for the middle of one.
  Text first;
  bool at_start = true;
  for (const Span& span : out.spans()) {
    std::string text = span.text;
    if (at_start && span.style == Span::Style::kPlain) {
      text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
    }
    at_start = false;
    first.add(span.style, text);
  }
  return first + ".";
}

std::vector<Text> warnings(const record::Run& run, const TrainingView& training) {
  std::vector<Text> out;
  if (const Text status = status_warning(run); !status.empty()) out.push_back(status);
  for (const Arm& arm : training.arms()) {
    if (arm.variant.role == words::kFlawed) out.push_back(flawed_warning(training, arm));
  }
  if (!training.empty()) {
    for (Text& text : control_warnings(training)) out.push_back(std::move(text));
  }
  int missing = 0, all = 0, profiled = 0, watched = 0, busy = 0;
  for (const record::Metric& metric : run.metrics) {
    watched += metric.quantity.name == words::kOtherCpus;
    busy += metric.labels.contains("busy");
    profiled += metric.labels.contains("profiled");
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
