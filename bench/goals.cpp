// `dsa-bench goals`: measures what the goals need and nothing else, says of each whether it is
// reached, and leaves a normal run folder: the sides as kernel rows, the verdicts as audits.
#include "bench/commands.h"
#include "bench/comparison.h"
#include "bench/reporter.h"
#include "bench/run_record.h"
#include "harness/machine.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <regex>

namespace dsa::bench {
namespace {

struct Finding {
  std::string status;  ///< reached | missed | unmeasured | failed | interrupted
  double observed = std::numeric_limits<double>::quiet_NaN(), required = 0;
  std::string sentence;
};

/// All repetitions of a row, whichever goals measured it.
struct MeasuredRow {
  Checked checked;
  std::vector<double> seconds;
};
using MeasuredRows = std::map<std::string, MeasuredRow>;

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, value < 10 ? "%.2f" : "%.1f", value);
  return text;
}

std::string times(double ratio) {
  return number(ratio) + "x";
}

std::string tokens(double length) {
  return std::isfinite(length) ? std::to_string(std::lround(length)) : "none up to the last length";
}

/// The distribution with the least ratio decides a length.
const Comparison& worst_at(const std::vector<Comparison>& all, int64_t length) {
  const Comparison* worst = nullptr;
  for (const Comparison& c : all) {
    if (c.length != length) continue;
    if (worst == nullptr || median(c.ratios) < median(worst->ratios)) worst = &c;
  }
  return *worst;
}

/// Of a missed goal: "; prototype 2.00x / 2.70x reached".
std::string prototype_note(const std::vector<double>& prototype, const std::string& unit,
                           bool is_reached) {
  std::string note;
  for (const double value : prototype)
    note += (note.empty() ? "; prototype " : " / ") +
            (unit == "x" ? times(value) : unit + std::to_string(std::lround(value)));
  return note.empty() ? "" : note + (is_reached ? " reached" : " not reached");
}

Finding speed_finding(const Goal& goal, const std::vector<Comparison>& all) {
  Finding finding{"reached", std::numeric_limits<double>::infinity(), 0, ""};
  std::string found, wanted;
  double missing = 0, worst_share = std::numeric_limits<double>::infinity();
  bool as_prototype = true;
  for (size_t i = 0; i < goal.lengths.size(); ++i) {
    const Comparison& c = worst_at(all, goal.lengths[i]);
    const double ratio = median(c.ratios), least = goal_at(goal, i);
    found += (i == 0 ? "" : " / ") + times(ratio);
    if (goal.scores.size() > 1) found += " on " + c.scores;
    if (i == 0 || goal.goal.size() > 1) wanted += (i == 0 ? "" : " / ") + times(least);
    missing = std::max(missing, 1 - ratio / least);
    as_prototype &= goal.prototype.empty() || ratio >= value_at(goal.prototype, i);
    if (ratio / least < worst_share) {
      worst_share = ratio / least;
      finding.observed = ratio, finding.required = least;
    }
  }
  finding.status = missing > 0 ? "missed" : "reached";
  char percent[32];
  std::snprintf(percent, sizeof percent, "%.3g", 100 * missing);
  finding.sentence = missing > 0
                         ? "missing by " + std::string(percent) + " % (" + found + ", goal " +
                               wanted + prototype_note(goal.prototype, "x", as_prototype) + ")"
                         : "reached " + found + " (goal " + wanted + ")";
  return finding;
}

/// The length from which on ours is faster, between neighbours on straight lines in log-log;
/// infinite if it is slower at the last.
double crossover_of(const Goal& goal, const std::vector<Comparison>& all) {
  double crossing = static_cast<double>(goal.lengths.front());
  for (size_t i = 0; i < goal.lengths.size(); ++i) {
    const double ratio = std::log(median(worst_at(all, goal.lengths[i]).ratios));
    if (ratio >= 0) continue;
    if (i + 1 == goal.lengths.size()) return std::numeric_limits<double>::infinity();
    const double next = std::log(median(worst_at(all, goal.lengths[i + 1]).ratios));
    if (next < 0) continue;
    const double here = std::log(double(goal.lengths[i]));
    const double there = std::log(double(goal.lengths[i + 1]));
    crossing = std::exp(here + (there - here) * ratio / (ratio - next));
  }
  return crossing;
}

Finding crossover_finding(const Goal& goal, const std::vector<Comparison>& all) {
  const double crossing = crossover_of(goal, all), most = goal.goal.front();
  const bool first = crossing <= static_cast<double>(goal.lengths.front());
  const std::string found = "L = " + tokens(crossing) + (first ? " or below" : "");
  const bool as_prototype = !goal.prototype.empty() && crossing <= goal.prototype.front();
  const bool is_missed = crossing > most;
  const std::string wanted =
      "goal L = " + tokens(most) +
      (is_missed ? prototype_note(goal.prototype, "L = ", as_prototype) : "") + ")";
  char percent[32];
  std::snprintf(percent, sizeof percent, "%.3g", 100 * (crossing / most - 1));
  if (!is_missed) return {"reached", crossing, most, "reached " + found + " (" + wanted};
  if (!std::isfinite(crossing)) {
    return {
        "missed", crossing, most,
        "missed: no crossover up to L = " + tokens(double(goal.lengths.back())) + " (" + wanted};
  }
  return {"missed", crossing, most,
          "missing by " + std::string(percent) + " % (" + found + ", " + wanted};
}

/// "  (heads together)": which kernel of ours ran, where there was a choice.
std::string ways_of(const std::vector<Part>& parts) {
  std::string ways;
  for (const Part& part : parts)
    if (!part.note.empty()) ways += "  (" + part.note + ")";
  return ways;
}

/// Samples and metrics of both sides, and the ratios of their pairs.
void record_comparison(const Goal& goal, Comparison& c, Session& session, MeasuredRows& rows) {
  const std::optional<SelectionFacts> facts = c.ours.front().inputs->facts;
  for (auto* side : {&c.ours, &c.theirs}) {
    for (Part& part : *side) {
      MeasuredRow& row = rows[id_of(part.kernel)];
      row.checked = part.checked();
      for (const Repetition& repetition : part.repetitions) {
        const auto place = static_cast<int64_t>(row.seconds.size());
        session.recorder->add(sample_of(session, row.checked, place, repetition));
        row.seconds.push_back(repetition.seconds);
      }
      if (!row.seconds.empty()) put_metrics(session, row.checked, row.seconds);
      part.inputs.reset();
    }
  }
  const record::Quantity ratio{"goal_ratio", "1", record::Quantity::Better::kHigher};
  const std::map<std::string, std::string> labels = {
      {"level", "goal"}, {"id", goal.name}, {"L", std::to_string(c.length)}, {"scores", c.scores}};
  session.recorder->put(record::Metric{ratio, labels, c.ratios});
  const std::string ways = ways_of(c.ours);
  if (goal.lengths.size() * goal.scores.size() == 1 && !facts && ways.empty()) return;
  session.progress.print("    " + goal.name + " at L = " + std::to_string(c.length) + ", " +
                         c.scores + ": " + times(median(c.ratios)) +
                         "  n=" + std::to_string(c.ratios.size()) + shown(facts) + ways);
}

Finding finding_on(const Goal& goal, Session& session, MeasuredRows& rows) {
  std::vector<Comparison> all = comparisons(goal);
  const std::string reason = not_measurable(goal, all, session.config.kernels);
  if (!reason.empty()) {
    session.recorder->put(record::Failure{goal.name, "skipped", reason, {{"level", "goal"}}});
    return {"unmeasured", std::numeric_limits<double>::quiet_NaN(), goal_at(goal, 0),
            "cannot be measured here: " + reason};
  }
  for (Comparison& c : all) {
    const std::string wrong = measure(c, goal, session);
    if (!wrong.empty()) {
      session.gate_failed = true;
      session.recorder->put(record::Failure{goal.name, "failed", wrong, {{"level", "goal"}}});
      return {"failed", std::numeric_limits<double>::quiet_NaN(), goal_at(goal, 0),
              "no result: " + wrong};
    }
    if (stop_requested()) {
      session.recorder->put(record::Failure{
          goal.name, "interrupted", "stopped before it was measured", {{"level", "goal"}}});
      return {"interrupted", std::numeric_limits<double>::quiet_NaN(), goal_at(goal, 0),
              "no result: interrupted"};
    }
    record_comparison(goal, c, session, rows);
  }
  return goal.measure == "crossover" ? crossover_finding(goal, all) : speed_finding(goal, all);
}

std::vector<Goal> selected_goals(const RunConfig& config) {
  std::vector<Goal> goals = goals_from(config.goals);
  if (config.filter.empty()) return goals;
  try {
    const std::regex wanted(config.filter);
    std::erase_if(goals, [&](const Goal& goal) {
      return !std::regex_search(goal.name + " " + goal.operation, wanted);
    });
  } catch (const std::regex_error&) {
    throw Error("--filter " + config.filter + " is no regular expression");
  }
  return goals;
}

void put_audit(const Goal& goal, const Finding& finding, Session& session) {
  const bool crossover = goal.measure == "crossover";
  session.recorder->run().audits.push_back({goal.name,
                                            {{"level", "goal"},
                                             {"status", finding.status},
                                             {"operation", goal.operation},
                                             {"against", goal.against}},
                                            finding.status == "reached",
                                            finding.observed,
                                            finding.required,
                                            crossover ? "tokens" : "x",
                                            finding.sentence});
}

int finish(Session& session, const std::map<std::string, int>& count, int64_t goals) {
  const auto number_of = [&](const char* status) {
    const auto found = count.find(status);
    return found == count.end() ? 0 : found->second;
  };
  int code = kFine;
  std::string status = "done", error;
  if (stop_requested()) {
    status = "interrupted", error = "interrupted by the user", code = kInterrupted;
  } else if (session.gate_failed) {
    status = "failed", error = "some results are wrong, see failures.json", code = kGateFailed;
  } else if (number_of("missed") > 0 && session.config.strict) {
    code = kGoalMissed;
  }
  session.recorder->finish(status, error);
  if (!error.empty()) std::fprintf(stderr, "dsa-bench: %s\n", error.c_str());
  if (session.config.quiet) return code;
  const std::string folder = session.recorder->folder().string();
  std::printf("%d of %lld goals reached, %d missed, %d cannot be measured here\n",
              number_of("reached"), static_cast<long long>(goals), number_of("missed"),
              number_of("unmeasured"));
  std::printf("%s: files in %s; report: dsa-report make %s\n", status.c_str(), folder.c_str(),
              folder.c_str());
  return code;
}

}  // namespace

int goals(const CommandLine& line, const std::string& command) {
  Session session;
  session.config = line.config;
  session.config.suites = {"kernels"};
  const RunConfig& config = session.config;
  check(config);
  require(config.resume.empty(), "goals cannot be resumed: both sides of a goal belong to one run");
  require(config.select.empty(), "--select chooses benchmarks; goals are chosen by --filter");
  require(line.benchmark_flags.empty(), "goals are not run by Google Benchmark; ",
          line.benchmark_flags.empty() ? "" : line.benchmark_flags.front(), " means nothing here");
  refuse_unfit_build(config);
  const std::vector<Goal> wanted = selected_goals(config);
  if (wanted.empty()) {
    std::fprintf(stderr, "dsa-bench: nothing is selected: no goal matches --filter %s\n",
                 config.filter.c_str());
    return kNothingSelected;
  }
  for (const Goal& goal : wanted) comparisons(goal);  // refuses what is no benchmark
  if (config.threads > 0) at::set_num_threads(static_cast<int>(config.threads));
  pin_isa(config.isa);
  session.recorder =
      std::make_unique<Recorder>(config.out, new_run(config, command), machine_context());
  session.progress = Progress(config.quiet);
  session.progress.start(static_cast<int64_t>(wanted.size()));
  measure_ceilings(session);
  catch_interrupts();
  MeasuredRows rows;
  std::map<std::string, int> count;
  for (const Goal& goal : wanted) {
    session.progress.begin(goal.name);
    const Finding finding = finding_on(goal, session, rows);
    put_audit(goal, finding, session);
    ++count[finding.status];
    session.progress.end();
    session.progress.print("  " + goal.name + ", " + goal.operation + ": " + finding.sentence);
    session.recorder->write();
    if (stop_requested()) break;
  }
  return finish(session, count, static_cast<int64_t>(wanted.size()));
}

}  // namespace dsa::bench
