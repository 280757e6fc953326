// A history as a page: changes of level first, then a chart a benchmark.
#include "reports/gate_report.h"
#include "reports/history.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace dsa::report {
namespace {

struct ToldChange {
  const HistoryBenchmark* benchmark;
  const HistorySeries* series;
  const Change* change;
};

/// Newest first.
std::vector<ToldChange> told_changes(const History& history) {
  std::vector<ToldChange> out;
  for (const HistoryBenchmark& benchmark : history.benchmarks) {
    for (const HistorySeries& series : benchmark.series) {
      for (const Change& change : series.found.changes)
        out.push_back({&benchmark, &series, &change});
    }
  }
  const auto date = [](const ToldChange& c) { return c.series->points[c.change->after]->date; };
  std::stable_sort(out.begin(), out.end(),
                   [&](const auto& a, const auto& b) { return date(a) > date(b); });
  return out;
}

Table change_table(const std::vector<ToldChange>& changes) {
  Table table;
  table.columns = {{"benchmark"},
                   {"last of the old level"},
                   {"first of the new"},
                   {"change", true},
                   {"95 % interval", true}};
  for (const ToldChange& one : changes) {
    const HistoryEntry& before = *one.series->points[one.change->before];
    const HistoryEntry& after = *one.series->points[one.change->after];
    const std::string change = change_percent(one.change->shift);
    table.rows.push_back(
        {code(one.benchmark->name),
         code(short_commit(before.commit)) + " " + before.date.substr(0, 10),
         code(short_commit(after.commit)) + " " + after.date.substr(0, 10),
         one.change->shift > 0 ? bold(change) : Text(change),
         "[" + change_percent(one.change->low) + ", " + change_percent(one.change->high) + "]"});
  }
  return table;
}

Table benchmark_table(const History& history) {
  Table table;
  table.columns = {{"benchmark"},          {"commits", true}, {"set aside", true},
                   {"left out", true}, {"changes", true}, {"newest ratio", true}};
  for (const HistoryBenchmark& one : history.benchmarks) {
    size_t aside = 0, left_out = 0;
    const HistoryEntry* newest = nullptr;
    for (const HistorySeries& series : one.series) {
      for (size_t i = 0; i < series.points.size(); ++i) {
        const bool measured = counts(*series.points[i]);
        left_out += !measured;
        aside += measured && series.found.set_aside[i];
        if (measured && (!newest || series.points[i]->date >= newest->date))
          newest = series.points[i];
      }
    }
    table.rows.push_back({code(one.name), std::to_string(one.measured()), std::to_string(aside),
                          std::to_string(left_out), std::to_string(one.changes()),
                          newest ? factor(std::exp(newest->log_ratio)) : "–"});
  }
  return table;
}

std::string plural(size_t n, const std::string& noun) {
  return std::to_string(n) + " " + noun + (n == 1 ? "" : "s");
}

std::vector<Text> segment_lines(const History& history) {
  std::vector<Text> out;
  for (const HistorySegment& one : history.segments) {
    Text line = Text("anchor ") + code(one.anchor);
    if (!one.anchor_git.empty()) line += Text(", commit ") + code(short_commit(one.anchor_git));
    line += Text(", on ") + code(one.cpu) +
            Text(": " + plural(one.commits.size(), "commit") + ", " +
                 one.commits.front().first.substr(0, 10) + " to " +
                 one.commits.back().first.substr(0, 10));
    out.push_back(line);
  }
  return out;
}

}  // namespace

Document build(const StoredHistory& stored, const History& history) {
  Document out;
  out.stem = "history";
  out.id = "history";
  std::set<std::string> commits;
  for (const HistoryEntry& entry : stored.entries) commits.insert(entry.commit);
  out.title = "History of " + plural(history.benchmarks.size(), "benchmark") + " over " +
              plural(commits.size(), "commit");
  const std::vector<ToldChange> changes = told_changes(history);
  const auto slower = std::count_if(changes.begin(), changes.end(),
                                    [](const auto& one) { return one.change->shift > 0; });
  out.blocks.push_back({Verdict{
      {changes.empty()
           ? bold(Text("No change of level was found."))
           : bold(plural(changes.size(), "change") + " of level: " + std::to_string(slower) +
                  " slower, " + std::to_string(changes.size() - static_cast<size_t>(slower)) +
                  " faster.")}}});
  if (history.segments.size() > 1) {
    out.blocks.push_back(
        {Alert{"The anchor or the machine changed: values of different ones are not "
               "comparable, and are never joined. There are " +
               std::to_string(history.segments.size()) + " segments."}});
  }
  if (stored.cut_off > 0) {
    out.blocks.push_back(
        {Alert{plural(stored.cut_off, "line") +
               " that a crash cut off is ignored: add the folder of that gate again."}});
  }
  if (!changes.empty()) out.blocks.push_back({change_table(changes)});
  for (bool changed : {true, false}) {
    for (size_t i = 0; i < history.benchmarks.size(); ++i) {
      if ((history.benchmarks[i].changes() > 0) != changed) continue;
      const Chart chart = history_chart(history, history.benchmarks[i], i + 1);
      if (!chart.id.empty()) out.blocks.push_back({Figure{chart}});
    }
  }
  out.blocks.push_back({Heading{2, "Every benchmark"}});
  out.blocks.push_back({benchmark_table(history)});
  out.blocks.push_back({Heading{2, "What is compared with what"}});
  out.blocks.push_back({List{segment_lines(history)}});
  return out;
}

}  // namespace dsa::report
