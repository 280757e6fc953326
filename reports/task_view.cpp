#include "reports/task_view.h"

#include "reports/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace dsa::report {
namespace {

namespace words = vocabulary;

/// Two points of a hundred: below that, K is said to make no difference.
constexpr double kSameAccuracy = 0.02;

/// Metrics of one arm as one list of samples: those by layer are averaged seed by seed.
std::vector<double> samples_over_layers(const record::Run& run, const std::string& quantity,
                                        const Arm& arm, double length) {
  std::vector<double> sum;
  double count = 0;
  for (const record::Metric& metric : run.metrics) {
    if (metric.quantity.name != quantity) continue;
    if (!TrainingView::is_of(metric.labels, arm, length)) continue;
    sum.resize(std::max(sum.size(), metric.samples.size()));
    for (size_t i = 0; i < metric.samples.size(); ++i) sum[i] += metric.samples[i];
    ++count;
  }
  for (double& value : sum) value /= count;
  return sum;
}

const TaskLine* first_of(const std::vector<TaskLine>& lines, const char* role) {
  for (const TaskLine& line : lines) {
    if (line.variant.role == role) return &line;
  }
  return nullptr;
}

/// The smallest K from which on the line stays within two points of `goal`.
std::optional<double> enough(const TaskLine& line, double goal) {
  std::optional<double> out;
  for (auto at = line.by_top_k.rbegin(); at != line.by_top_k.rend(); ++at) {
    if (!(at->second.median >= goal - kSameAccuracy)) break;
    out = at->first;
  }
  return out;
}

/// `joint` and "random has 40 %": the best control at that K.
std::string best_control(const std::vector<TaskLine>& lines, double top_k, const char* joint) {
  std::string name;
  double best = -1;
  for (const TaskLine& line : lines) {
    if (line.variant.role != words::kControl) continue;
    for (const auto& [k, accuracy] : line.by_top_k) {
      if (k == top_k && accuracy.median > best) best = accuracy.median, name = line.variant.name;
    }
  }
  return name.empty() ? "" : joint + name + " has " + percent(best);
}

}  // namespace

std::vector<TaskLine> TaskView::lines(const std::string& quantity, double length) const {
  std::vector<TaskLine> out;
  for (const Arm& arm : training.arms()) {
    const Summary value = summarise(samples_over_layers(run, quantity, arm, length));
    if (value.empty()) continue;
    if (out.empty() || out.back().variant.name != arm.variant.name) {
      out.push_back({arm.variant, {}, {}});
    }
    const std::string top_k = training.top_k(arm, length);
    if (top_k.empty()) {
      out.back().all_keys = value;
    } else {
      out.back().by_top_k.emplace_back(std::stod(top_k), value);
    }
  }
  return out;
}

std::vector<double> TaskView::top_ks(double length) const {
  std::set<double> all;
  for (const TaskLine& line : lines(words::kFinalAccuracy, length)) {
    for (const auto& [top_k, accuracy] : line.by_top_k) all.insert(top_k);
  }
  return {all.begin(), all.end()};
}

std::vector<TaskView> task_views(const record::Run& run) {
  std::vector<TaskView> out;
  std::set<std::string> seen;
  for (const record::Metric& metric : run.metrics) {
    const std::string name = label(metric.labels, words::kTask);
    if (name.empty() || !seen.insert(name).second) continue;
    TrainingView training(run, name);
    if (!training.empty()) out.push_back({run, name, "", std::move(training), {}});
  }
  for (const record::Metric& metric : run.metrics) {
    if (metric.quantity.name != words::kGuess || metric.samples.empty()) continue;
    for (TaskView& task : out) {
      if (task.name != label(metric.labels, words::kTask)) continue;
      task.summary = label(metric.labels, words::kSummary);
      task.guesses.emplace_back(label(metric.labels, words::kGuess), metric.samples.front());
    }
  }
  return out;
}

std::string task_finding(const TaskView& task, double length) {
  const auto lines = task.lines(words::kFinalAccuracy, length);
  const std::string where = task.name + " at L = " + report::length(length) + ": ";
  const TaskLine *baseline = first_of(lines, words::kBaseline),
                 *candidate = first_of(lines, words::kCandidate);
  if (!baseline || !candidate || !baseline->all_keys || candidate->by_top_k.empty()) {
    return where + "accuracy against K";
  }
  const double goal = baseline->all_keys->median;
  const double guess = task.guesses.empty() ? 0 : task.guesses.front().second;
  const std::string &dense = baseline->variant.name, &dsa = candidate->variant.name;
  // Half way from guessing to knowing: below it, what a selection misses cannot show.
  if (goal < (1 + guess) / 2) {
    return where + dense + " itself has not learnt it (" + percent(goal) +
           "), so K decides nothing";
  }
  if (const auto top_k = enough(*candidate, goal)) {
    return where + dsa + " is within 2 points of " + dense + " (" + percent(goal) +
           ") from K = " + count(*top_k) + " on" + best_control(lines, *top_k, ", where ");
  }
  const auto& [largest, accuracy] = candidate->by_top_k.back();
  return where + dsa + " at K = " + count(largest) + " has " + percent(accuracy.median) + ", " +
         dense + " has " + percent(goal) + best_control(lines, largest, ", ");
}

Text task_sentence(const std::vector<TaskView>& tasks) {
  std::string out;
  for (const TaskView& task : tasks) {
    for (const double length : task.training.lengths()) {
      out += (out.empty() ? "" : "; ") + task_finding(task, length);
    }
  }
  if (!out.empty()) out[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(out[0])));
  return out + ".";
}

}  // namespace dsa::report
