// history.jsonl: a line a benchmark and commit. Lines are only ever appended; a line that a crash cut
// off stays, closed by the next writer, and is ignored.
#include "harness/record/archive.h"
#include "reports/gate_report.h"
#include "reports/history.h"
#include "reports/load.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <limits>
#include <map>
#include <set>
#include <sys/file.h>
#include <unistd.h>

namespace dsa::report {
namespace fs = std::filesystem;

/// Found by the archives, which ask for it by argument.
template <class A>
void fields(A& a, HistoryEntry& e) {
  a("benchmark", e.benchmark), a("commit", e.commit), a("date", e.date), a("anchor", e.anchor);
  a("anchor_git", e.anchor_git), a("cpu", e.cpu), a("level", e.level), a("verdict", e.verdict);
  a("log_ratio", e.log_ratio), a("low", e.low), a("high", e.high), a("rounds", e.rounds);
}

namespace {

constexpr int kHistoryVersion = 1;

fs::path history_file(const fs::path& store) {
  return store / "history.jsonl";
}

std::string history_line(const HistoryEntry& entry) {
  Json out = {{"version", kHistoryVersion}};
  out.update(record::Writer::value(entry));
  return out.dump(-1, ' ', true, Json::error_handler_t::replace);
}

/// What may not have two values.
std::string history_key(const HistoryEntry& e) {
  return e.benchmark + "\n" + e.commit + "\n" + e.anchor + "\n" + e.cpu;
}

bool is_utc(const std::string& date) {
  int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0, read = 0;
  const int found = std::sscanf(date.c_str(), "%4d-%2d-%2dT%2d:%2d:%2dZ%n", &year, &month, &day,
                                &hour, &minute, &second, &read);
  return found == 6 && read == 20 && date.size() == 20 && month >= 1 && month <= 12 && day >= 1 &&
         day <= 31 && hour >= 0 && hour < 24 && minute >= 0 && minute < 60 && second >= 0 &&
         second <= 60;
}

/// Names of commits go into sentences, axes and CSV as they are.
bool is_commit(const std::string& commit) {
  const auto fits = [](unsigned char c) { return std::isalnum(c) || std::strchr("._+-", c); };
  return !commit.empty() && commit.size() <= 64 && std::all_of(commit.begin(), commit.end(), fits);
}

const record::GateArm* arm_named(const record::GateVerdict& gate, const std::string& name) {
  for (const record::GateArm& arm : gate.arms) {
    if (arm.name == name) return &arm;
  }
  return nullptr;
}

HistoryEntry parsed_line(const std::string& line) {
  const Json json = Json::parse(line);
  if (json.value("version", 0) > kHistoryVersion)
    throw Error("was written by a newer build; use that one");
  HistoryEntry entry;
  entry.log_ratio = entry.low = entry.high = std::numeric_limits<double>::quiet_NaN();
  record::Reader::read(json, entry);
  if (entry.benchmark.empty() || entry.anchor.empty() || !is_commit(entry.commit) ||
      !is_utc(entry.date))
    throw Error("lacks a benchmark, an anchor, a commit or a date");
  return entry;
}

StoredHistory parsed_history(const fs::path& file, const std::string& text) {
  StoredHistory out;
  size_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    ++number;
    const std::string where = file.string() + ", line " + std::to_string(number);
    try {
      out.entries.push_back(parsed_line(line));
    } catch (const Json::parse_error& error) {
      // Only a line that stops too early can be the work of a crash.
      if (error.byte <= line.size()) throw Error(where + " is not valid JSON");
      ++out.cut_off;
    } catch (const Json::exception&) {
      throw Error(where + " is not an entry of a history: a field has the wrong type");
    } catch (const Error& error) {
      throw Error(where + " " + error.what());
    }
  }
  return out;
}

/// An open file, locked until this is gone: two jobs that add at once take turns.
class LockedFile {
 public:
  explicit LockedFile(const fs::path& file) : file_(file) {
    descriptor_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (descriptor_ < 0 || ::flock(descriptor_, LOCK_EX) != 0) fail();
  }
  ~LockedFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  LockedFile(const LockedFile&) = delete;
  LockedFile& operator=(const LockedFile&) = delete;

  void append(const std::string& text) {
    for (size_t done = 0; done < text.size();) {
      const ssize_t written = ::write(descriptor_, text.data() + done, text.size() - done);
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) fail();
      done += static_cast<size_t>(written);
    }
    if (::fsync(descriptor_) != 0) fail();
  }

 private:
  [[noreturn]] void fail() {
    throw Error("cannot write " + file_.string() + ": " + std::strerror(errno));
  }
  fs::path file_;
  int descriptor_ = -1;
};

HistoryEntry entry_of(const record::GateRow& row) {
  HistoryEntry out;
  out.benchmark = row.id;
  out.level = row.level;
  out.verdict = row.verdict;
  out.log_ratio = out.low = out.high = std::numeric_limits<double>::quiet_NaN();
  if (row.verdict == "same-build") {
    out.log_ratio = out.low = out.high = 0;  // the same code: no clock needed
  } else if (was_timed(row.pairing)) {
    out.log_ratio = std::log(row.pairing.ratio);
    out.low = std::log(row.pairing.low);
    out.high = std::log(row.pairing.high);
    out.rounds = row.pairing.rounds;
  }
  return out;
}

}  // namespace

std::vector<HistoryEntry> history_entries(const record::GateVerdict& gate, std::string commit,
                                          std::string date) {
  const record::GateArm *anchor = arm_named(gate, "base"), *head = arm_named(gate, "head");
  if (gate.status != "done")
    throw Error("gate " + gate.id + " did not end (status: " + gate.status +
                "); run it to its end");
  const auto config = settings_in(gate.config_json);
  if (config.value("inject-slowdown", 1.0) > 1)
    throw Error("gate " + gate.id + " slowed its head on purpose (--inject-slowdown)");
  if (gate.rows.empty()) throw Error("gate " + gate.id + " compared no benchmark");
  if (!anchor || anchor->text_hash.empty())
    throw Error("gate " + gate.id + " has no base with a text_hash, so its anchor is unknown");
  if (commit.empty() && head) commit = head->git;
  if (!is_commit(commit)) {
    throw Error(commit.empty() ? "gate " + gate.id + " names no commit of head; give --commit"
                               : "\"" + commit + "\" is no commit: letters, digits and ._+- only");
  }
  if (date.empty()) date = gate.ended.empty() ? gate.started : gate.ended;
  if (!is_utc(date))
    throw Error("\"" + date + "\" is no date like 2026-11-27T02:15:00Z; give --date");
  const auto cpu = gate.machine.find("cpu");
  std::set<std::string> seen;
  std::vector<HistoryEntry> out;
  for (const record::GateRow& row : gate.rows) {
    if (row.id.empty() || !seen.insert(row.id).second)
      throw Error("gate " + gate.id + " has two rows named \"" + row.id +
                  "\" or one without a name");
    HistoryEntry entry = entry_of(row);
    entry.commit = commit, entry.date = date;
    entry.anchor = anchor->text_hash, entry.anchor_git = anchor->git;
    entry.cpu = cpu == gate.machine.end() ? "unknown" : cpu->second;
    out.push_back(entry);
  }
  return out;
}

Added add_to_history(const fs::path& store, const std::vector<HistoryEntry>& entries) {
  const fs::path file = history_file(store);
  std::error_code failed;
  fs::create_directories(store, failed);
  if (failed) throw Error("cannot write " + store.string() + ": " + failed.message());
  LockedFile out(file);
  const std::string text = read_file(file);
  const StoredHistory stored = parsed_history(file, text);
  std::map<std::string, std::string> known;
  Added added;
  added.first_of_segment = true;
  for (const HistoryEntry& one : stored.entries) {
    known[history_key(one)] = history_line(one);
    if (one.anchor == entries.front().anchor && one.cpu == entries.front().cpu)
      added.first_of_segment = false;
  }
  std::string lines = text.empty() || text.back() == '\n' ? "" : "\n";
  for (const HistoryEntry& one : entries) {
    const std::string line = history_line(one);
    const auto found = known.find(history_key(one));
    if (found == known.end()) {
      lines += line + "\n";
      ++added.lines;
    } else if (found->second == line) {
      ++added.known;
    } else {
      throw Error(file.string() + " already holds other values of commit " + one.commit + " for " +
                  one.benchmark + "; a commit is measured once per anchor and CPU");
    }
  }
  if (added.lines > 0) out.append(lines);
  return added;
}

StoredHistory read_history(const fs::path& store) {
  const fs::path file = history_file(store);
  if (!fs::exists(file)) {
    throw Error(file.string() + " does not exist; dsa-report history add writes it");
  }
  StoredHistory out = parsed_history(file, read_file(file));
  if (out.entries.empty()) throw Error(file.string() + " holds no whole line");
  return out;
}

}  // namespace dsa::report
