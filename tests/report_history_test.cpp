// A store that survives crashes and refuses contradictions, and what is shown of it.
#include "reports/history.h"
#include "reports/load.h"
#include "tests/temporary_folder.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "report_gates.h"
#include <cmath>
#include <set>

using namespace dsa::report;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;
namespace record = dsa::record;

namespace {

std::string commit_name(int i) {
  return "c" + std::to_string(100000 + i) + "feedbeef";
}

std::string date_of(int i) {
  char text[32];
  std::snprintf(text, sizeof text, "2026-%02d-%02dT00:00:00Z", 1 + i / 28, 1 + i % 28);
  return text;
}

std::vector<HistoryEntry> entries_of(const record::GateVerdict& gate, int i) {
  return history_entries(gate, commit_name(i), date_of(i));
}

record::GateVerdict one_row(const std::string& id, double ratio,
                            const std::string& verdict = "same") {
  record::GateVerdict gate = record::empty_gate();
  gate.rows = {record::timed_row(id, verdict, ratio, 0.01)};
  return gate;
}

/// 40 commits of one benchmark, 8 % slower from the 20th on, one spike.
StoredHistory stepped_history() {
  StoredHistory out;
  for (int i = 0; i < 40; ++i) {
    const double wave = 0.004 * std::sin(i * 2.5);
    const double ratio = (i == 9 ? 1.4 : i < 20 ? 1.0 : 1.08) + wave;
    for (const HistoryEntry& one : entries_of(one_row("a/L:64", ratio), i))
      out.entries.push_back(one);
  }
  return out;
}

std::string refusal(const std::string& store, const std::vector<HistoryEntry>& entries) {
  try {
    add_to_history(store, entries);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::string mistake(const record::GateVerdict& gate, const std::string& commit = "abc",
                    const std::string& date = "2026-01-01T00:00:00Z") {
  try {
    history_entries(gate, commit, date);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a gate becomes a line a row, with logarithms of its ratios", "[report][history]") {
  const std::vector<HistoryEntry> entries = history_entries(record::full_gate(), "", "");
  REQUIRE(entries.size() == record::full_gate().rows.size());
  CHECK(entries[1].commit == "f00dfeedbeef0cf8a8104d56fb78122c3c8b40cf");
  CHECK(entries[1].date == "2026-11-27T02:25:12Z");
  CHECK(entries[1].anchor == "9d3f6c2b1a0e4857");
  CHECK(entries[1].log_ratio == std::log(1.0621));
  CHECK(entries[1].rounds == 15);
  CHECK(entries[6].verdict == "same-build");
  CHECK(entries[6].log_ratio == 0);
  CHECK(std::isnan(entries[7].log_ratio));
  CHECK(counts(entries[1]));
  CHECK(!counts(entries[4]));  // unarmed
  HistoryEntry broken = entries[1];
  broken.verdict = "crashed";
  CHECK(!counts(broken));
  HistoryEntry short_of_rounds = entries[1];
  short_of_rounds.low = short_of_rounds.high = std::nan("");
  CHECK(!counts(short_of_rounds));
}

TEST_CASE("what is written is read back", "[report][history]") {
  const TemporaryFolder folder;
  const std::string store = folder.path("store");
  const Added added = add_to_history(store, history_entries(record::full_gate(), "", ""));
  CHECK(added.lines == record::full_gate().rows.size());
  CHECK(added.first_of_segment);
  const StoredHistory back = read_history(store);
  REQUIRE(back.entries.size() == added.lines);
  CHECK(back.entries[1].log_ratio == std::log(1.0621));
  CHECK(back.entries[1].cpu == "Intel(R) Xeon(R) Platinum");
  CHECK(std::isnan(back.entries[7].low));
  CHECK(back.cut_off == 0);
}

TEST_CASE("the same commit twice is refused unless nothing differs", "[report][history]") {
  const TemporaryFolder folder;
  const std::string store = folder.path("store");
  add_to_history(store, entries_of(one_row("a/L:64", 1.01), 1));
  const std::string before = read_file(store + "/history.jsonl");
  const Added again = add_to_history(store, entries_of(one_row("a/L:64", 1.01), 1));
  CHECK(again.lines == 0);
  CHECK(again.known == 1);
  CHECK_THAT(refusal(store, entries_of(one_row("a/L:64", 1.02), 1)),
             ContainsSubstring("already holds other values of commit c100001feedbeef for a/L:64"));
  CHECK(read_file(store + "/history.jsonl") == before);
  add_to_history(store, entries_of(one_row("a/L:64", 1.02), 2));
  CHECK(read_history(store).entries.size() == 2);
  // Another anchor measures the same commit anew.
  record::GateVerdict gate = one_row("a/L:64", 0.7);
  gate.arms[0].text_hash = "ffff";
  CHECK(add_to_history(store, entries_of(gate, 1)).first_of_segment);
}

TEST_CASE("a line that a crash cut off is ignored, closed, and written again",
          "[report][history]") {
  const TemporaryFolder folder;
  const std::string store = folder.path("store"), file = store + "/history.jsonl";
  record::GateVerdict two = one_row("a/L:64", 1.01);
  two.rows.push_back(record::timed_row("b/L:64", "same", 1.02, 0.01));
  add_to_history(store, entries_of(two, 1));
  const std::string whole = read_file(file);
  const size_t second = whole.find('\n') + 1;
  for (size_t length = second + 1; length < whole.size(); ++length) {
    CAPTURE(length);
    folder.write("store/history.jsonl", whole.substr(0, length));
    const bool only_newline_lost = length + 1 == whole.size();
    const StoredHistory cut = read_history(store);
    CHECK(cut.entries.size() == (only_newline_lost ? 2 : 1));
    CHECK(cut.cut_off == (only_newline_lost ? 0 : 1));
    add_to_history(store, entries_of(two, 1));
    add_to_history(store, entries_of(one_row("a/L:64", 1.03), 2));
    const StoredHistory mended = read_history(store);
    CHECK(mended.entries.size() == 3);
    CHECK(mended.cut_off == (only_newline_lost ? 0 : 1));
  }
}

TEST_CASE("damage that no crash makes is an error with its line", "[report][history]") {
  const TemporaryFolder folder;
  const std::string store = folder.path("store");
  add_to_history(store, entries_of(one_row("a/L:64", 1.01), 1));
  const std::string good = read_file(store + "/history.jsonl");
  const auto said = [&](const std::string& line) {
    folder.write("store/history.jsonl", good + line + "\n" + good);
    try {
      read_history(store);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK_THAT(said("{\"version\":1,,}"),
             ContainsSubstring("history.jsonl, line 2 is not valid JSON"));
  CHECK_THAT(said("{\"version\":2}"), ContainsSubstring("line 2 was written by a newer build"));
  CHECK_THAT(said("{\"version\":1,\"rounds\":\"x\"}"), ContainsSubstring("wrong type"));
  CHECK_THAT(said("[1]"), ContainsSubstring("wrong type"));
  CHECK_THAT(said("{\"version\":1}"), ContainsSubstring("lacks a benchmark"));
  CHECK_THROWS_WITH(read_history(folder.path("nowhere")), ContainsSubstring("does not exist"));
}

TEST_CASE("a gate that cannot become history is refused in a sentence", "[report][history]") {
  record::GateVerdict slowed = one_row("a/L:64", 1.1);
  slowed.config_json = R"({"inject-slowdown": 1.1})";
  CHECK(mistake(slowed).find("slowed its head on purpose") != std::string::npos);
  record::GateVerdict gate = record::full_gate();
  gate.status = "interrupted";
  CHECK_THAT(mistake(gate), ContainsSubstring("did not end (status: interrupted)"));
  gate = record::full_gate();
  CHECK_THAT(mistake(gate, "a b"), ContainsSubstring("\"a b\" is no commit"));
  CHECK_THAT(mistake(gate, "abc", "yesterday"), ContainsSubstring("\"yesterday\" is no date"));
  CHECK_THAT(mistake(gate, "abc", "2026-13-01T00:00:00Z"), ContainsSubstring("is no date"));
  gate.arms[1].git.clear();
  CHECK_THAT(mistake(gate, ""), ContainsSubstring("give --commit"));
  gate.arms[0].text_hash.clear();
  CHECK_THAT(mistake(gate), ContainsSubstring("anchor is unknown"));
  CHECK_THAT(mistake(record::empty_gate()), ContainsSubstring("compared no benchmark"));
  gate = record::full_gate();
  gate.rows.push_back(gate.rows[0]);
  CHECK_THAT(mistake(gate), ContainsSubstring("two rows named"));
}

TEST_CASE("a change is told with its commits, a spike is hollow", "[report][history]") {
  const StoredHistory stored = stepped_history();
  const History history = history_of(stored);
  const HistorySeries& series = history.benchmarks.at(0).series.at(0);
  REQUIRE(series.found.changes.size() == 1);
  CHECK_THAT(change_sentence(series, series.found.changes[0]),
             StartsWith("from c100019fee to c100020fee: +8.0\u00a0% [+7."));
  const std::string text = markdown(build(stored, history), true);
  CHECK_THAT(text, ContainsSubstring("**1 change of level: 1 slower, 0 faster.**"));
  CHECK_THAT(text,
             ContainsSubstring("| `a/L:64` | `c100019fee` 2026-01-20 | `c100020fee` 2026-01-21"));
  CHECK_THAT(text, ContainsSubstring("| `a/L:64` | 40 | 1 | 0 | 1 |"));
  const Chart chart = history_chart(history, history.benchmarks[0], 1);
  CHECK(chart.id == "history_1");
  CHECK_THAT(chart.spec.dump(), ContainsSubstring("\"aside\":true") &&
                                    ContainsSubstring("\"label\":\"+8.0\u00a0%\"") &&
                                    ContainsSubstring("\"x\":19.5"));
}

TEST_CASE("values of different anchors or machines are never joined", "[report][history]") {
  StoredHistory stored = stepped_history();
  for (size_t i = 20; i < stored.entries.size(); ++i) stored.entries[i].anchor = "other";
  const History history = history_of(stored);
  REQUIRE(history.segments.size() == 2);
  CHECK(history.benchmarks[0].changes() == 0);  // the step lies between two anchors
  CHECK_THAT(markdown(build(stored, history), true),
             ContainsSubstring("are never joined. There are 2 segments."));
  CHECK_THAT(history_chart(history, history.benchmarks[0], 1).spec.dump(),
             ContainsSubstring("\"label\":\"anchor 63ca940464\""));
  // Machines that take turns are two histories, each complete.
  stored = stepped_history();
  for (size_t i = 0; i < stored.entries.size(); i += 2) stored.entries[i].cpu = "another";
  const History turns = history_of(stored);
  REQUIRE(turns.segments.size() == 2);
  CHECK(turns.segments[0].commits.size() == 20);
  CHECK(turns.benchmarks[0].changes() == 2);
}

TEST_CASE("commits stand in the order of their dates, not of their arrival", "[report][history]") {
  StoredHistory stored = stepped_history();
  std::swap(stored.entries[0], stored.entries[30]);
  std::swap(stored.entries[5], stored.entries[22]);
  const History history = history_of(stored);
  REQUIRE(history.benchmarks[0].changes() == 1);
  CHECK(history.segments[0].commits[0].second == commit_name(0));
}

TEST_CASE("the CSV has a time, a commit and a number in every cell", "[report][history]") {
  StoredHistory stored;
  for (int i = 0; i < 4; ++i) {
    record::GateVerdict gate = one_row("a/L:64", 1.01 + 0.01 * i);
    if (i > 0) gate.rows.push_back(record::timed_row("b,\"c\"", "same", 2 + i, 0.01));
    if (i == 2) gate.rows[1] = record::untimed_row("b,\"c\"", "crashed", "Signal 11.");
    gate.rows.push_back(record::untimed_row("never", "new", ""));
    for (const HistoryEntry& one : entries_of(gate, i)) stored.entries.push_back(one);
  }
  CHECK(otava_csv(history_of(stored)) ==
        "time,commit,a/L:64,\"b,\"\"c\"\"\"\n"
        "2026-01-01T00:00:00Z,c100000feedbeef,1.01,3\n"
        "2026-01-02T00:00:00Z,c100001feedbeef,1.02,3\n"
        "2026-01-03T00:00:00Z,c100002feedbeef,1.03,3\n"
        "2026-01-04T00:00:00Z,c100003feedbeef,1.04,5\n");
  for (HistoryEntry& one : stored.entries) {
    if (one.commit == commit_name(0)) one.anchor = "older";
  }
  CHECK_THAT(otava_csv(history_of(stored)), !ContainsSubstring("c100000feedbeef"));
}

TEST_CASE("a history of one commit, and of nothing measured, reads well", "[report][history]") {
  StoredHistory stored;
  stored.entries = entries_of(record::full_gate(), 1);
  stored.cut_off = 1;
  const std::string text = markdown(build(stored, history_of(stored)), true);
  CHECK_THAT(text, StartsWith("# History of 13 benchmarks over 1 commit\n") &&
                       ContainsSubstring("**No change of level was found.**") &&
                       ContainsSubstring("1 line that a crash cut off is ignored"));
  stored.entries = {entries_of(record::full_gate(), 1)[7]};
  CHECK(figures(build(stored, history_of(stored))).empty());
  CHECK(otava_csv(history_of(stored)) == "time,commit\n2026-01-02T00:00:00Z,c100001feedbeef\n");
}
