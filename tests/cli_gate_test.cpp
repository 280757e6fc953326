// `dsa-bench gate` from the command line: two binaries, one of them slowed, crashing, hanging or short
// of a row. A second binary is a script around the first.
#include "harness/record/gate.h"
#include "tests/process.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <nlohmann/json.hpp>

#include <csignal>
#include <fstream>
#include <regex>

using namespace dsa::tests;
using Catch::Matchers::ContainsSubstring;
namespace fs = std::filesystem;

namespace {

/// An executable script that does `first`, then what dsa-bench does with `more` flags.
std::string script(const Bench& bench, const std::string& name, const std::string& first,
                   const std::string& more = "") {
  const std::string path =
      bench.write(name, "#!/bin/sh\n" + first + "\nexec " DSA_BENCH " \"$@\" " + more + "\n");
  fs::permissions(path, fs::perms::owner_all);
  return path;
}

/// A script that does what dsa-bench does, then runs `edit`, Python after a first line break, on the
/// `record` and `failures` it left.
std::string rewriting(const Bench& bench, const std::string& name, const std::string& edit) {
  const std::string path = bench.write(name, R"(#!/usr/bin/env python3
import json, pathlib, subprocess, sys
done = subprocess.run([")" DSA_BENCH R"("] + sys.argv[1:])
out = [word[6:] for word in sys.argv if word.startswith("--out=")]
for folder in pathlib.Path(out[-1]).glob("*/") if out else []:
    record = json.loads((folder / "record.json").read_text())
    failures = json.loads((folder / "failures.json").read_text())
)" + std::regex_replace(edit.substr(1), std::regex("^(?=.)", std::regex::multiline), "    ") +
                                                 R"(
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "failures.json").write_text(json.dumps(failures))
sys.exit(done.returncode)
)");
  fs::permissions(path, fs::perms::owner_all);
  return path;
}

/// One row of microseconds, few rounds, and an effect that no noise of a busy machine has.
std::vector<std::string> gate(const std::string& head, std::vector<std::string> more) {
  std::vector<std::string> words = {"gate",
                                    "--base",
                                    DSA_BENCH,
                                    "--head",
                                    head,
                                    "--suites",
                                    "kernels",
                                    "--filter",
                                    "select_top_k.*backend:cpu",
                                    "--kernels.lengths",
                                    "512",
                                    "--kernels.min-time",
                                    "0.02",
                                    "--rounds",
                                    "8",
                                    "--most-rounds",
                                    "8",
                                    "--min-effect",
                                    "60%",
                                    "--certificate-slowdown",
                                    "4"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

dsa::record::GateVerdict verdict_of(const Bench& bench) {
  return dsa::record::gate_from_json(text_of(bench.folder() / "verdict.json"));
}

}  // namespace

TEST_CASE("equal machine code is the same without timing", "[cli][gate]") {
  Bench bench;
  const Outcome outcome = bench.run(gate(DSA_BENCH, {"--tolerances", "flops=0%,wrong_members=0"}));
  INFO(outcome.err);
  CHECK(outcome.code == 0);
  CHECK_THAT(outcome.out, ContainsSubstring("1 same-build"));
  const auto verdict = verdict_of(bench);
  REQUIRE(verdict.rows.size() == 1);
  CHECK(verdict.rows[0].pairing.rounds == 0);
  CHECK_FALSE(verdict.rows[0].checks.empty());
  CHECK(verdict.arms.size() == 2);
  CHECK(verdict.arms[0].text_hash.size() == 64);
  CHECK_FALSE(verdict.arms[0].git.empty());
}

TEST_CASE("a slowed head is a confirmed regression", "[cli][gate]") {
  Bench bench;
  const Outcome outcome =
      bench.run(gate(DSA_BENCH, {"--inject-slowdown", "4", "--certificate=false"}));
  INFO(outcome.out << outcome.err);
  CHECK(outcome.code == 6);
  const auto row = verdict_of(bench).rows.at(0);
  CHECK(row.verdict == "regression");
  CHECK(row.pairing.low > 2);
  CHECK(row.confirmation.rounds == 8);
}

TEST_CASE("a certificate holds where the slowdown is seen, and not where it is too small",
          "[cli][gate]") {
  Bench seen;
  const Outcome armed = seen.run(
      gate(DSA_BENCH, {"--time-equal", "--certificate-slowdown", "4", "--gate.most-rounds", "16"}));
  INFO(armed.out << armed.err);
  CHECK(armed.code == 0);
  CHECK(verdict_of(seen).armed);
  CHECK(verdict_of(seen).rows.at(0).verdict == "same");
  Bench unseen;
  const std::string deaf = script(unseen, "deaf.sh", "", "--inject-slowdown=1");
  const Outcome blind =
      unseen.run(gate(deaf, {"--base", deaf, "--time-equal", "--certificate-slowdown", "4"}));
  INFO(blind.out << blind.err);
  CHECK(blind.code == 2);
  CHECK_FALSE(verdict_of(unseen).armed);
  CHECK_THAT(blind.out, ContainsSubstring("its certificate does not hold"));
  CHECK_THAT(blind.out, ContainsSubstring("in a new gate"));  // what to do
}

TEST_CASE("a spent budget ends with what the next look would cost", "[cli][gate]") {
  Bench bench;
  const auto spent = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = {"--time-equal", "--certificate=false", "--budget", "0.001s"};
    words.insert(words.end(), more.begin(), more.end());
    return bench.run(gate(DSA_BENCH, words));
  };
  const Outcome open = spent({});
  INFO(open.out << open.err);
  CHECK(open.code == 2);
  CHECK(verdict_of(bench).rows.at(0).pairing.rounds == 1);
  CHECK_THAT(open.out, ContainsSubstring("7 more rounds, about "));
  fs::remove_all(bench.folder());
  CHECK(spent({"--inconclusive", "pass"}).code == 0);
}

TEST_CASE("a head whose numbers are worse fails without a clock", "[cli][gate]") {
  Bench bench;
  const std::string head = rewriting(bench, "worse.py", R"(
for metric in record["metrics"]:
    if metric["quantity"]["name"] == "bytes": metric["samples"] = [2 * x for x in metric["samples"]]
)");
  const Outcome worse =
      bench.run(gate(head, {"--certificate=false", "--tolerances", "bytes=0%,recal=0.1"}));
  INFO(worse.out << worse.err);
  CHECK(worse.code == 6);
  const auto row = verdict_of(bench).rows.at(0);
  CHECK(row.verdict == "worse");
  CHECK(row.checks.at(0).head == 2 * row.checks.at(0).base);
  CHECK_THAT(worse.out, ContainsSubstring("no row of base has recal,"));
}

TEST_CASE("a row that one of the two did not measure is listed, and a head that broke fails it",
          "[cli][gate]") {
  // Verdict and exit code where the row ended so; "" = as measured.
  const auto judged = [](const std::string& of_base, const std::string& of_head) {
    Bench bench;
    const auto arm = [&](const std::string& name, const std::string& status) {
      if (status.empty()) return std::string(DSA_BENCH);
      return rewriting(bench, name + ".py",
                       R"(
row = record["metrics"][0]["labels"]
record["metrics"] = []
failures += [{"id": row["id"], "status": ")" +
                           status + R"(", "reason": "so it says", "labels": row}]
)");
    };
    const Outcome outcome = bench.run(
        gate(arm("head", of_head), {"--base", arm("base", of_base), "--certificate=false"}));
    INFO(outcome.out << outcome.err);
    const auto row = verdict_of(bench).rows.at(0);
    CHECK(row.pairing.rounds == 0);
    return row.verdict + " " + std::to_string(outcome.code) + " " + row.reason.substr(0, 4);
  };
  CHECK(judged("", "skipped") == "missing 0 head");
  CHECK(judged("", "invalid") == "failed 4 head");
  CHECK(judged("", "interrupted") == "failed 4 head");  // by somebody else than the gate
  CHECK(judged("skipped", "") == "new 0 base");
  CHECK(judged("skipped", "crashed") == "crashed 4 head");
  CHECK(judged("failed", "crashed") == "crashed 4 head");
  CHECK(judged("failed", "skipped") == "failed 2 base");
  CHECK(judged("skipped", "skipped") == "skipped 0 head");
}

TEST_CASE("a head that dies in the checks costs its row, one that refuses the flags the gate",
          "[cli][gate]") {
  Bench bench;
  const std::string dies = "case \"$*\" in *--out=*) kill -SEGV $$;; esac";
  const Outcome dead = bench.run(gate(script(bench, "dies.sh", dies), {"--certificate=false"}));
  INFO(dead.out << dead.err);
  CHECK(dead.code == 4);
  CHECK(verdict_of(bench).rows.at(0).verdict == "crashed");
  const Outcome again = bench.plain({"gate", "--resume", bench.folder().string()});
  CHECK(again.code == 4);  // as it was found, without another check
  CHECK_THAT(again.out, ContainsSubstring("head ended by signal 11"));
  const std::string refuses = "case \"$*\" in *--out=*) echo no such flag >&2; exit 1;; esac";
  const Outcome refused = bench.run(gate(script(bench, "no.sh", refuses), {}));
  CHECK(refused.code == 1);
  CHECK_THAT(refused.err, ContainsSubstring("refuses the settings: no such flag"));
  // In a round it is a failure of that row.
  Bench other;
  const std::string late = "case \"$*\" in *--kernels.checked=false*) exit 1;; esac";
  const Outcome failed = other.run(gate(script(other, "late.sh", late), {"--certificate=false"}));
  CHECK(failed.code == 4);
  CHECK(verdict_of(other).rows.at(0).verdict == "failed");
}

TEST_CASE("a head that crashes or hangs costs its row, not the gate", "[cli][gate]") {
  Bench bench;
  const std::string crash =
      "case \"$*\" in *--kernels.checked=false*) echo broken >&2; kill -SEGV $$;; esac";
  const Outcome crashed =
      bench.run(gate(script(bench, "crash.sh", crash), {"--certificate=false"}));
  INFO(crashed.out << crashed.err);
  CHECK(crashed.code == 4);
  const auto row = verdict_of(bench).rows.at(0);
  CHECK(row.verdict == "crashed");
  CHECK_THAT(row.reason, ContainsSubstring("head: ended by signal 11"));
  CHECK_THAT(row.reason, ContainsSubstring("broken"));
  Bench other;
  const std::string hang = "case \"$*\" in *--kernels.checked=false*) exec sleep 60;; esac";
  const Outcome hung = other.run(
      gate(script(other, "hang.sh", hang), {"--certificate=false", "--time-limit", "8s"}));
  INFO(hung.out << hung.err);
  CHECK(hung.code == 4);
  CHECK(verdict_of(other).rows.at(0).verdict == "hung");
}

TEST_CASE("a head that fails is to blame whoever fails beside it", "[cli][gate]") {
  Bench bench;
  const auto dying = [&](const std::string& name, const std::string& flag) {
    return script(bench, name, "case \"$*\" in *" + flag + "*) kill -SEGV $$;; esac");
  };
  const std::string base = dying("base.sh", "--inject-slowdown");
  const std::string head = dying("head.sh", "--kernels.checked=false");
  const Outcome outcome = bench.run(gate(head, {"--base", base}));
  INFO(outcome.out << outcome.err);
  CHECK(outcome.code == 4);
  const auto row = verdict_of(bench).rows.at(0);
  CHECK(row.verdict == "crashed");
  CHECK_THAT(row.reason, Catch::Matchers::StartsWith("head: ended by signal 11"));
}

TEST_CASE("where both break in one round, head is to blame", "[cli][gate]") {
  Bench bench;
  const std::string dies =
      script(bench, "dies.sh", "case \"$*\" in *--kernels.checked=false*) kill -SEGV $$;; esac");
  const Outcome outcome = bench.run(gate(dies, {"--base", dies, "--certificate=false"}));
  INFO(outcome.out << outcome.err);
  CHECK(outcome.code == 4);
  CHECK(verdict_of(bench).rows.at(0).reason.starts_with("head: "));
}

TEST_CASE("rows that only one binary has are listed", "[cli][gate]") {
  Bench bench;
  const std::vector<std::string> words = {"--base", script(bench, "base.sh", "", "--select=K=4"),
                                          "--kernels.top-k", "4,5", "--certificate=false"};
  const std::string head = script(bench, "head.sh", "", "--select=K=5");
  const Outcome outcome = bench.run(gate(head, words));
  INFO(outcome.out << outcome.err);
  CHECK(outcome.code == 0);
  const auto verdict = verdict_of(bench);
  REQUIRE(verdict.rows.size() == 2);
  CHECK(verdict.rows[0].verdict == "missing");
  CHECK(verdict.rows[1].verdict == "new");
  fs::remove_all(bench.folder());
  std::vector<std::string> renaming = words;
  const std::string pair = verdict.rows[0].id + "=" + verdict.rows[1].id;
  renaming.insert(renaming.end(), {"--renamed", pair, "--tolerances", "wrong_members=0"});
  const Outcome compared = bench.run(gate(head, renaming));
  INFO(compared.out << compared.err);
  REQUIRE(verdict_of(bench).rows.size() == 1);
  CHECK(verdict_of(bench).rows[0].pairing.rounds == 8);
  CHECK(verdict_of(bench).rows[0].verdict == "renamed");
}

TEST_CASE("an interrupted gate goes on where it stopped", "[cli][gate]") {
  Bench bench;
  const auto words = gate(DSA_BENCH, {"--time-equal", "--certificate=false"});
  const pid_t child = bench.start(words);
  REQUIRE(bench.wait_for_lines("gate.jsonl", 2));
  CHECK(bench.end(child, SIGINT) == 130);
  CHECK(verdict_of(bench).status == "interrupted");
  const fs::path folder = bench.folder();
  const Outcome other = bench.plain({"gate", "--resume", folder.string(), "--rounds", "7"});
  CHECK(other.code == 1);
  CHECK_THAT(other.err, ContainsSubstring("was another gate"));
  // Rounds that an earlier version timed, one whole process after the other.
  const std::string log = text_of(folder / "gate.jsonl");
  std::string foreign = log;
  foreign.replace(foreign.find("slices in random order"), 6, "blocks");
  std::ofstream(folder / "gate.jsonl") << foreign;
  const std::string before = text_of(folder / "verdict.json");
  const Outcome mixed = bench.plain({"gate", "--resume", folder.string()});
  CHECK(mixed.code == 1);
  CHECK_THAT(mixed.err, ContainsSubstring("was timed in another way"));
  CHECK(text_of(folder / "verdict.json") == before);
  std::ofstream(folder / "gate.jsonl") << log;
  const Outcome rest = bench.plain({"gate", "--resume", folder.string()});
  INFO(rest.out << rest.err);
  CHECK((rest.code == 0 || rest.code == 2));
  const auto verdict = verdict_of(bench);
  CHECK(verdict.status == "done");
  CHECK(verdict.rows.at(0).pairing.rounds == 8);
}

TEST_CASE("a gate goes on only where it began: on this CPU, on these cores", "[cli][gate]") {
  Bench bench;
  REQUIRE(bench.run(gate(DSA_BENCH, {})).code == 0);
  const fs::path file = bench.folder() / "verdict.json";
  const std::string before = text_of(file);
  for (const std::string fact : {"cpu", "pinned_to"}) {
    nlohmann::json changed = nlohmann::json::parse(before);
    REQUIRE(changed.at("machine").contains(fact));
    changed["machine"][fact] = "another";
    std::ofstream(file) << changed;
    const Outcome moved = bench.plain({"gate", "--resume", bench.folder().string()});
    CHECK(moved.code == 1);
    CHECK_THAT(moved.err, ContainsSubstring("was timed with " + fact + " = another"));
    CHECK(text_of(file) == changed.dump());
  }
}

TEST_CASE("equal scripts may start unequal binaries, so they are timed", "[cli][gate]") {
  Bench bench;
  const std::string same = script(bench, "same.sh", "");
  const Outcome outcome = bench.run(gate(same, {"--base", same, "--certificate=false"}));
  INFO(outcome.out << outcome.err);
  CHECK(verdict_of(bench).rows.at(0).pairing.rounds == 8);
}

TEST_CASE("a gate refuses what it cannot compare, before it times", "[cli][gate]") {
  Bench bench;
  const auto refused = [&](const std::vector<std::string>& words, const std::string& why) {
    const Outcome outcome = bench.run(words);
    CHECK(outcome.code == 1);
    CHECK_THAT(outcome.err, ContainsSubstring(why));
  };
  refused({"gate", "--head", DSA_BENCH}, "gate needs --base PATH");
  refused(gate("no/such/file", {}), "--head no/such/file does not exist");
  refused(gate(DSA_BENCH, {"--benchmark_repetitions=3"}), "means nothing here");
  refused(gate(DSA_BENCH, {"--budget", "ten"}), "it takes a time such as 90s");
  refused(gate(DSA_BENCH, {"--min-effect", "-3%"}), "it takes a number or a share");
  refused(gate(DSA_BENCH, {"--tolerances", "flops"}), "it takes quantity=amount");
  refused(gate(DSA_BENCH, {"--tolerances", "flops=1%+"}), "it takes a number or a share");
  refused(gate(DSA_BENCH, {"--tolerances", "flops=1%+1%"}), "it takes one share");
  refused(gate(DSA_BENCH, {"--cores", "4096"}), "--gate.cores");
  refused(gate(DSA_BENCH, {"--renamed", "a=b"}), "--renamed names a");
  refused(gate(DSA_BENCH, {"--certificate-slowdown", "1.5"}), "would not find");
  refused(gate(script(bench, "other.sh", "", "--kernels.seed=7"), {}),
          "kernels.seed = 1 and head with 7");
  const Outcome nothing = bench.run(gate(DSA_BENCH, {"--filter", "no_such_row"}));
  CHECK(nothing.code == 5);
}
