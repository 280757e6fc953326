#include "reports/comparison.h"

#include "reports/load.h"
#include "reports/text.h"
#include "reports/vocabulary.h"
#include "reports/wall_clock.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <set>

namespace dsa::report {
namespace {

namespace words = vocabulary;

/// In the order of --seeds; of a record that does not tell, those that left curves.
std::vector<std::string> seeds_asked_for(const record::Run& run) {
  std::vector<std::string> out;
  const auto config = settings_of(run);
  for (const auto& seed : config.value("seeds", nlohmann::ordered_json::array())) {
    out.push_back(seed.is_string() ? seed.get<std::string>() : seed.dump());
  }
  if (!out.empty()) return out;
  std::set<std::string> seen;
  for (const record::Series& series : run.series) {
    const std::string seed = label(series.labels, words::kSeed);
    if (!seed.empty()) seen.insert(seed);
  }
  return {seen.begin(), seen.end()};
}

/// Which variant is compared with which.
std::vector<std::pair<const Arm*, const Arm*>> pairs_of(const TrainingView& training) {
  std::vector<std::pair<const Arm*, const Arm*>> out;
  for (const Arm& arm : training.arms()) {
    if (const Arm* baseline = baseline_of(training, arm)) out.emplace_back(&arm, baseline);
  }
  for (const Arm& arm : training.arms()) {
    if (arm.variant.role != words::kCandidate) continue;
    for (const Arm& other : training.arms()) {
      const bool asked =
          other.variant.role == words::kControl || other.variant.role == words::kBoundRole;
      if (asked && baseline_of(training, other) == baseline_of(training, arm) &&
          other.top_k == arm.top_k) {
        out.emplace_back(&arm, &other);
      }
    }
  }
  return out;
}

int without_result(const TrainingView& training, const Arm& arm, double length, int seeds) {
  return std::max(0, seeds - training.summary(words::kFinalLoss, arm, length).n);
}

/// The difference at the end of the faster one's training, seed by seed.
Criterion at_equal_time(const Comparison& pair, const TrainingView& training,
                        const std::vector<std::string>& seeds) {
  Criterion out;
  std::vector<double> differences;
  double slack = 0;
  int unread = 0;
  for (const std::string& seed : seeds) {
    const LossOverTime first = loss_over_time(training, *pair.first, pair.length, seed);
    const LossOverTime second = loss_over_time(training, *pair.second, pair.length, seed);
    if (!(first.total > 0) || !(second.total > 0)) continue;
    const double budget = std::min(first.total, second.total);
    const auto a = loss_at(first, budget), b = loss_at(second, budget);
    if (!a || !b) {
      ++unread;
      continue;
    }
    differences.push_back(a->loss - b->loss);
    slack += a->error + b->error;
  }
  out.difference = mean_of(differences);
  if (out.difference.n > 0) out.slack = slack / out.difference.n;
  if (unread > 0) {
    out.doubt = "the slower of the two was not evaluated around the end of the faster one in " +
                std::to_string(unread) + " of " + std::to_string(seeds.size()) + " seeds";
  } else if (differences.empty()) {
    out.doubt = kNoTimes;
  }
  for (const Arm* arm : {pair.first, pair.second}) {
    const std::string why = time_doubt(training, *arm, pair.length, seeds);
    if (why.empty()) continue;
    out.doubt = arm->name + ": " + why;
    out.finding = Finding::kNotJudged;
  }
  if (differences.empty()) out.finding = Finding::kNotJudged;
  return out;
}

Finding finding_of(const Criterion& c, bool equivalent, bool different) {
  if (equivalent) return Finding::kEquivalent;
  if (!different) return Finding::kInconclusive;
  return c.difference.mean < 0 ? Finding::kBetter : Finding::kWorse;
}

/// One family of tests: the same pair and criterion at every length.
void judge(const std::vector<Criterion*>& family, double margin) {
  std::vector<double> equivalent, different;
  for (Criterion* c : family) {
    const bool judged = c->finding != Finding::kNotJudged && c->difference.n >= kSeedsNeeded;
    equivalent.push_back(judged ? p_equivalent(c->difference, margin, c->slack) : NAN);
    different.push_back(judged ? p_different(c->difference, c->slack) : NAN);
  }
  const std::vector<bool> holds = holm(equivalent), differs = holm(different);
  for (size_t i = 0; i < family.size(); ++i) {
    Criterion& c = *family[i];
    if (!std::isnan(equivalent[i])) {
      c.alone = finding_of(c, equivalent[i] <= kAlpha, different[i] <= kAlpha);
      c.finding = finding_of(c, holds[i], differs[i]);
    } else {
      c.alone = c.finding;
    }
  }
}

/// A run that failed is a result as well: what the others say must not favour it.
void mind_failures(Criterion& c, const Comparison& pair, int failed_first, int failed_second) {
  const bool favours_first = c.finding == Finding::kBetter || c.finding == Finding::kEquivalent;
  const bool favours_second = c.finding == Finding::kWorse || c.finding == Finding::kEquivalent;
  for (const auto& [arm, failed, favoured] :
       {std::tuple(pair.first, failed_first, favours_first),
        std::tuple(pair.second, failed_second, favours_second)}) {
    if (failed == 0) continue;
    const std::string missing = arm->name + " has no result for " + std::to_string(failed) +
                                " of " + std::to_string(pair.seeds) + " seeds";
    c.doubt = c.doubt.empty() ? missing : c.doubt + "; " + missing;
    if (favoured) c.finding = c.alone = Finding::kInconclusive;
  }
}

}  // namespace

Margin margin_of(const record::Run& run) {
  const auto config = settings_of(run);
  const auto train = config.value("train", nlohmann::json::object());
  if (!train.is_object() || !train.contains("equivalence-margin")) return {};
  const auto& value = train["equivalence-margin"];
  if (!value.is_number() || !(value.get<double>() > 0)) return {};
  return {value.get<double>(), true};
}

const Arm* baseline_of(const TrainingView& training, const Arm& arm) {
  const Arm* found = nullptr;
  for (const Arm& other : training.arms()) {
    if (other.variant.name == arm.variant.baseline && &other != &arm && !found) found = &other;
  }
  if (!arm.variant.baseline.empty()) return found;
  found = training.first(words::kBaseline);
  return found == &arm ? nullptr : found;
}

Mean loss_difference(const TrainingView& training, const Arm& first, const Arm& second,
                     double length) {
  const std::vector<double> a = training.samples(words::kFinalLoss, first, length),
                            b = training.samples(words::kFinalLoss, second, length);
  std::vector<double> differences;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) differences.push_back(a[i] - b[i]);
  return mean_of(differences);
}

std::vector<Comparison> comparisons(const record::Run& run, const TrainingView& training) {
  const std::vector<std::string> seeds = seeds_asked_for(run);
  const double margin = margin_of(run).value;
  std::vector<Comparison> out;
  for (const auto& [first, second] : pairs_of(training)) {
    std::vector<Comparison> pair;
    for (const double length : training.lengths()) {
      Comparison one{first, second, length, 0, {}, {}, {}};
      const auto a = training.samples(words::kFinalLoss, *first, length),
                 b = training.samples(words::kFinalLoss, *second, length);
      one.seeds = static_cast<int>(std::max({seeds.size(), a.size(), b.size()}));
      one.equal_steps.difference = loss_difference(training, *first, *second, length);
      one.equal_time = at_equal_time(one, training, seeds);
      one.speed = paired_ratio(training.samples(words::kStepTime, *second, length),
                               training.samples(words::kStepTime, *first, length));
      if (!a.empty() && !b.empty()) pair.push_back(one);
    }
    std::vector<Criterion*> at_steps, at_time;
    for (Comparison& one : pair) {
      at_steps.push_back(&one.equal_steps), at_time.push_back(&one.equal_time);
    }
    judge(at_steps, margin), judge(at_time, margin);
    for (Comparison& one : pair) {
      const int failed_first = without_result(training, *first, one.length, one.seeds),
                failed_second = without_result(training, *second, one.length, one.seeds);
      mind_failures(one.equal_steps, one, failed_first, failed_second);
      mind_failures(one.equal_time, one, failed_first, failed_second);
    }
    out.insert(out.end(), pair.begin(), pair.end());
  }
  return out;
}

}  // namespace dsa::report
