#include "reports/verdict.h"

#include "reports/anatomy_view.h"
#include "reports/text.h"
#include "reports/vocabulary.h"

#include <algorithm>
#include <cmath>

namespace dsa::report {
namespace {

namespace words = vocabulary;

/// Comparisons of one pair, by length.
using Group = std::vector<const Comparison*>;

std::vector<Group> groups_of(const std::vector<Comparison>& all) {
  std::vector<Group> out;
  for (const Comparison& one : all) {
    const bool same = !out.empty() && out.back().front()->first == one.first &&
                      out.back().front()->second == one.second;
    if (!same) out.emplace_back();
    out.back().push_back(&one);
  }
  return out;
}

/// "L = 64, 128 and 256"
std::string at_lengths(const std::vector<double>& lengths) {
  std::string out = "L = ";
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (i > 0) out += i + 1 == lengths.size() ? " and " : ", ";
    out += length(lengths[i]);
  }
  return out;
}

/// "equivalent at L = 64 and 128, worse at L = 256"
Text findings(const Group& group, Criterion Comparison::*criterion) {
  Text out;
  for (int i = 0; i <= static_cast<int>(Finding::kNotJudged); ++i) {
    const auto finding = static_cast<Finding>(i);
    std::vector<double> lengths;
    std::string doubt;
    for (const Comparison* one : group) {
      if ((one->*criterion).finding != finding) continue;
      lengths.push_back(one->length);
      doubt = (one->*criterion).doubt;
    }
    if (lengths.empty()) continue;
    if (!out.empty()) out += ", ";
    out += bold(std::string(name(finding))) + " at " + at_lengths(lengths);
    if (finding == Finding::kNotJudged) out += " (" + doubt + ")";
  }
  return out;
}

bool has(const Group& group, Criterion Comparison::*criterion, Finding finding) {
  return std::any_of(group.begin(), group.end(),
                     [&](const Comparison* one) { return (one->*criterion).finding == finding; });
}

/// "loss +0.031 ± 0.008 nats/token at L = 256, n = 3 seeds", of the longest length that has one.
std::string numbers(const Group& group, Criterion Comparison::*criterion) {
  for (size_t i = group.size(); i-- > 0;) {
    const Criterion& c = group[i]->*criterion;
    if (c.difference.empty()) continue;
    return "loss " + signed_gap(c.difference, c.slack) +
           " nats/token at L = " + length(group[i]->length) + ", " +
           seeds_text(c.difference.n, group[i]->seeds);
  }
  return "";
}

/// The sentences of one candidate and its baseline.
std::vector<Text> against_baseline(const Group& group, const Margin& margin) {
  const Comparison& longest = *group.back();
  const Text pair = code(longest.first->name) + " against " + code(longest.second->name) + ": ";
  Text steps = Text("At equal steps, ") + pair + findings(group, &Comparison::equal_steps);
  const std::string found = numbers(group, &Comparison::equal_steps);
  if (!found.empty()) steps += "; " + found;
  if (has(group, &Comparison::equal_steps, Finding::kFewSeeds)) {
    steps += "; a verdict takes " + std::to_string(kSeedsNeeded) + " seeds";
  } else {
    steps += "; equivalent is within ±" + shortest(margin.value) +
             (margin.fixed ? ", fixed before the run" : ", which the record does not fix");
  }
  std::vector<Text> out{steps + "."};
  const bool timed = std::any_of(group.begin(), group.end(), [](const Comparison* one) {
    return one->equal_time.doubt != kNoTimes;
  });
  if (!timed) return out;
  const std::string at_end = numbers(group, &Comparison::equal_time);
  out.push_back(Text("At equal training time, ") + pair + findings(group, &Comparison::equal_time) +
                (at_end.empty() ? "" : "; " + at_end) + "; " + times(longest.speed) +
                " the speed of " + code(longest.second->name) +
                (group.size() > 1 ? " there." : "."));
  return out;
}

/// Does it matter which keys are read? Candidate against the other ways to select as many.
Text against_controls(const std::vector<Group>& groups, const Arm& candidate) {
  Text out;
  for (const Group& group : groups) {
    const Arm &first = *group.front()->first, &second = *group.front()->second;
    if (&first != &candidate || second.variant.role == words::kBaseline) continue;
    if (!out.empty()) out += "; ";
    const char* kind = second.variant.role == words::kBoundRole ? "the bound " : "";
    out += Text("against ") + kind + code(second.name) + " " +
           findings(group, &Comparison::equal_steps);
  }
  if (out.empty()) return out;
  return Text("Other selections of as many keys, at equal steps: ") + code(candidate.name) + " " +
         out + ".";
}

std::vector<Text> training_sentences(const record::Run& run, const TrainingView& training) {
  std::vector<Text> out;
  const std::vector<Comparison> all = comparisons(run, training);
  const std::vector<Group> groups = groups_of(all);
  for (const Arm& arm : training.arms()) {
    if (arm.variant.role != words::kCandidate) continue;
    const Arm* baseline = baseline_of(training, arm);
    for (const Group& group : groups) {
      if (group.front()->first != &arm || group.front()->second != baseline) continue;
      for (Text& text : against_baseline(group, margin_of(run))) out.push_back(std::move(text));
    }
    if (Text text = against_controls(groups, arm); !text.empty()) out.push_back(std::move(text));
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
    Text out = Text("As kernels (") + scenario.pass + ", " + scenario.top_k + "), whole DSA on " +
               code(sparse->backend) + " " + crossing_words(scenario.crossing(), scenario) +
               " and is " + times(speed_up) + " as fast as dense on " + code(dense->backend) +
               " at L = " + length(point.length) + " (n = " + std::to_string(speed_up.n) + ")";
    if (read(speed_up, 1, kSpeedMargin) == Side::kOpen) out += ", which decides nothing";
    return out;
  }
  return {};
}

}  // namespace

const char* name(Finding finding) {
  switch (finding) {
    case Finding::kEquivalent:
      return "equivalent";
    case Finding::kBetter:
      return "better";
    case Finding::kWorse:
      return "worse";
    case Finding::kInconclusive:
      return "inconclusive";
    case Finding::kFewSeeds:
      return "too few seeds";
    case Finding::kNotJudged:
      break;
  }
  return "not judged";
}

std::string seeds_text(int n, int asked) {
  const std::string of = n == asked ? "" : " of " + std::to_string(asked);
  return "n = " + std::to_string(n) + of + (asked == 1 ? " seed" : " seeds");
}

Text reading(const Summary& speed_up) {
  switch (read(speed_up, 1, kSpeedMargin)) {
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

std::vector<Text> verdict_sentences(const record::Run& run, const TrainingView& training,
                                    const KernelView& kernels) {
  std::vector<Text> out = training_sentences(run, training);
  if (Text kernel = kernel_clause(kernels); !kernel.empty()) out.push_back(kernel + ".");
  for (const double length : anatomy_lengths(run)) {
    const auto rungs = anatomy_of(run, length);
    if (rungs.empty()) continue;
    const Summary first = rungs.front().gap(), last = rungs.back().gap();
    out.push_back("The published experiment repaired, L = " + report::length(length) +
                  ": dense minus sparse is " + signed_gap(first) + " nats/token at rung " +
                  spoken(rungs.front().name) + " and " + signed_gap(last) + " at rung " +
                  spoken(rungs.back().name) + ", n = " + std::to_string(last.n) + " seeds.");
  }
  if (!out.empty()) return out;
  const Arm* baseline = training.first(words::kBaseline);
  if (baseline && training.first(words::kFlawed) && !training.first(words::kCandidate)) {
    return {Text("This record sets ") + code(baseline->name) +
            " beside flawed variants only, so it decides nothing between sparse and dense "
            "attention."};
  }
  return {
      "This record compares nothing: it needs a baseline and a candidate trained at one length, or "
      "dense and whole-DSA kernels of one shape."};
}

}  // namespace dsa::report
