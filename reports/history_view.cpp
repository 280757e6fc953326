// Entries in order: segments that may not be joined, series of one benchmark, what changed in them,
// and the same as CSV.
#include "reports/gate_report.h"
#include "reports/history.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <optional>
#include <ranges>
#include <set>

namespace dsa::report {
namespace {

size_t segment_index(std::vector<HistorySegment>& segments, const HistoryEntry& entry) {
  for (size_t i = 0; i < segments.size(); ++i) {
    if (segments[i].anchor == entry.anchor && segments[i].cpu == entry.cpu) return i;
  }
  segments.push_back({entry.anchor, entry.anchor_git, entry.cpu, {}});
  return segments.size() - 1;
}

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
  std::string out = "\"";
  for (char c : text) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + "\"";
}

/// The newest date's segment.
size_t newest_segment(const History& history) {
  size_t newest = 0;
  for (size_t i = 0; i < history.segments.size(); ++i) {
    if (history.segments[i].commits.back().first >= history.segments[newest].commits.back().first)
      newest = i;
  }
  return newest;
}

/// A value for each commit of the segment. Otava's CSV importer takes no empty cell; its others
/// fill a gap with the value before it, or the first one after it, and so does this.
std::vector<double> filled_column(const HistorySegment& segment, const HistorySeries& series) {
  std::map<std::string, double> known;
  for (const HistoryEntry* point : series.points) {
    if (counts(*point)) known[point->commit] = std::exp(point->log_ratio);
  }
  if (known.empty()) return {};
  std::vector<std::optional<double>> column;
  for (const auto& [date, commit] : segment.commits) {
    const auto found = known.find(commit);
    column.push_back(found == known.end() ? std::nullopt : std::optional(found->second));
  }
  double last = known.begin()->second;
  for (const auto& value : std::views::reverse(column)) last = value.value_or(last);
  std::vector<double> out;
  for (const auto& value : column) {
    last = value.value_or(last);
    out.push_back(last);
  }
  return out;
}

}  // namespace

size_t HistoryBenchmark::measured() const {
  size_t out = 0;
  for (const HistorySeries& one : series) {
    for (const HistoryEntry* point : one.points) out += counts(*point);
  }
  return out;
}

size_t HistoryBenchmark::changes() const {
  size_t out = 0;
  for (const HistorySeries& one : series) out += one.found.changes.size();
  return out;
}

bool counts(const HistoryEntry& entry) {
  // Without an interval there were too few rounds; a row that broke was not timed to its end.
  const bool whole = std::isfinite(entry.low) && std::isfinite(entry.high);
  const std::set<std::string> left_out = {"unarmed", "failed", "crashed", "hung"};
  return std::isfinite(entry.log_ratio) && whole && !left_out.contains(entry.verdict);
}

History history_of(const StoredHistory& stored, const ChangeOptions& options) {
  History out;
  std::map<std::string, size_t> place;
  std::vector<std::map<size_t, std::vector<const HistoryEntry*>>> points;
  std::set<std::pair<size_t, std::string>> seen;
  for (const HistoryEntry& entry : stored.entries) {
    const size_t segment = segment_index(out.segments, entry);
    const auto [found, is_new] = place.emplace(entry.benchmark, out.benchmarks.size());
    if (is_new) {
      out.benchmarks.push_back({entry.benchmark, {}});
      points.emplace_back();
    }
    points[found->second][segment].push_back(&entry);
    if (seen.emplace(segment, entry.commit).second)
      out.segments[segment].commits.emplace_back(entry.date, entry.commit);
  }
  std::map<std::pair<size_t, std::string>, size_t> order;
  for (size_t i = 0; i < out.segments.size(); ++i) {
    auto& commits = out.segments[i].commits;
    std::stable_sort(commits.begin(), commits.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    for (size_t j = 0; j < commits.size(); ++j) order[{i, commits[j].second}] = j;
  }
  for (size_t i = 0; i < points.size(); ++i) {
    for (auto& [segment, list] : points[i]) {
      const size_t in = segment;
      std::stable_sort(list.begin(), list.end(), [&](const auto* a, const auto* b) {
        return order[{in, a->commit}] < order[{in, b->commit}];
      });
      std::vector<double> values;
      for (const HistoryEntry* one : list) {
        values.push_back(counts(*one) ? one->log_ratio : std::numeric_limits<double>::quiet_NaN());
      }
      out.benchmarks[i].series.push_back({segment, list, find_changes(values, options)});
    }
  }
  return out;
}

std::string change_percent(double log_shift) {
  if (!std::isfinite(log_shift)) return "–";
  const double share = 100 * std::expm1(log_shift);
  char text[64];
  std::snprintf(text, sizeof text, "%.1f", std::fabs(share));
  return (share < 0 ? "−" : "+") + std::string(text) + "\u00a0%";
}

std::string change_sentence(const HistorySeries& series, const Change& change) {
  return "from " + short_commit(series.points[change.before]->commit) + " to " +
         short_commit(series.points[change.after]->commit) + ": " + change_percent(change.shift) +
         " [" + change_percent(change.low) + ", " + change_percent(change.high) + "]";
}

std::string otava_csv(const History& history) {
  const size_t newest = newest_segment(history);
  const HistorySegment& segment = history.segments[newest];
  std::string out = "time,commit";
  std::vector<std::vector<double>> columns;
  for (const HistoryBenchmark& benchmark : history.benchmarks) {
    for (const HistorySeries& series : benchmark.series) {
      if (series.segment != newest) continue;
      std::vector<double> column = filled_column(segment, series);
      if (column.empty()) continue;
      out += "," + csv_cell(benchmark.name);
      columns.push_back(std::move(column));
    }
  }
  out += "\n";
  for (size_t i = 0; i < segment.commits.size(); ++i) {
    out += segment.commits[i].first + "," + csv_cell(segment.commits[i].second);
    for (const auto& column : columns) {
      char text[32];
      std::snprintf(text, sizeof text, ",%.6g", column[i]);
      out += text;
    }
    out += "\n";
  }
  return out;
}

}  // namespace dsa::report
