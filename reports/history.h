// Ratios of many commits to one pinned old binary, the anchor: where they are kept and what they
// show. The base of each gate that is added is the anchor.
#pragma once
#include "harness/record/gate.h"
#include "reports/changes.h"
#include "reports/document.h"

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace dsa::report {

/// One line of history.jsonl. Not measured (crashed, missing, new, ...): log_ratio, low, high are NaN.
struct HistoryEntry {
  std::string benchmark, commit, date;  ///< date: UTC, ISO 8601
  std::string anchor, anchor_git, cpu;  ///< anchor: hash of its .text
  std::string level, verdict;
  double log_ratio = 0, low = 0, high = 0;  ///< ln(time of head / time of anchor)
  int rounds = 0;
};

/// What a gate against the anchor adds. `commit` and `date` come from the verdict where empty.
/// @throws Error for a gate that did not end, has no rows, names no anchor or no commit.
std::vector<HistoryEntry> history_entries(const record::GateVerdict& gate, std::string commit,
                                          std::string date);

struct Added {
  size_t lines = 0, known = 0;  ///< written, and there already with the same content
  bool first_of_segment = false;
};
/// Appends what is not there yet, in one write. @throws Error, and writes nothing, where the store
/// holds other values for a benchmark of this commit, anchor and CPU.
Added add_to_history(const std::filesystem::path& store, const std::vector<HistoryEntry>& entries);

struct StoredHistory {
  std::vector<HistoryEntry> entries;
  size_t cut_off = 0;  ///< lines that a crash left unfinished; ignored
};
/// @throws Error with file and line for anything else that is not an entry.
StoredHistory read_history(const std::filesystem::path& store);

/// Commits measured against one anchor on one CPU: only these can be compared.
struct HistorySegment {
  std::string anchor, anchor_git, cpu;
  std::vector<std::pair<std::string, std::string>> commits;  ///< date and commit, in order of time
};

/// One benchmark in one segment, in order of time.
struct HistorySeries {
  size_t segment = 0;
  std::vector<const HistoryEntry*> points;
  Changes found;
};

struct HistoryBenchmark {
  std::string name;
  std::vector<HistorySeries> series;  ///< a series a segment, oldest segment first
  size_t measured() const;  ///< points that count
  size_t changes() const;
};

/// Points into `stored`, which must outlive it.
struct History {
  std::vector<HistorySegment> segments;  ///< in order of their first line
  std::vector<HistoryBenchmark> benchmarks;
};
History history_of(const StoredHistory& stored, const ChangeOptions& options = {});

/// Usable for finding changes: measured to the end, with an interval, by a gate whose certificate held.
bool counts(const HistoryEntry& entry);

/// "+6.1 %"
std::string change_percent(double log_shift);
/// "from a1b2c3 to d4e5f6: +6.1 % [+5.2 %, +7.0 %]"
std::string change_sentence(const HistorySeries& series, const Change& change);

Document build(const StoredHistory& stored, const History& history);

/// The `number`-th benchmark's chart, history_<number>; an empty id where nothing was measured.
Chart history_chart(const History& history, const HistoryBenchmark& benchmark, size_t number);

/// The newest segment for Apache Otava: time, commit, a column a benchmark.
std::string otava_csv(const History& history);

}  // namespace dsa::report
