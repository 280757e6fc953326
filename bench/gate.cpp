// `dsa-bench gate`: is head slower, or worse, than base? docs/gate.md
#include "bench/commands.h"
#include "bench/gate_session.h"
#include "bench/session.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>

namespace dsa::bench {
namespace {

std::string interval(const record::Pairing& pairing) {
  if (pairing.rounds == 0) return "";
  char text[96];
  if (std::isnan(pairing.low)) {
    std::snprintf(text, sizeof text, "%.3fx, no interval yet, n=%d", pairing.ratio, pairing.rounds);
  } else {
    std::snprintf(text, sizeof text, "%.3fx [%.3f, %.3f] n=%d", pairing.ratio, pairing.low,
                  pairing.high, pairing.rounds);
  }
  return text;
}

}  // namespace

bool has_worse(const record::GateRow& row) {
  return std::any_of(row.checks.begin(), row.checks.end(),
                     [](const auto& check) { return check.verdict == "worse"; });
}

std::string shown(const record::GateRow& row) {
  char head[64];
  std::snprintf(head, sizeof head, "  %-12s %-32s ", row.verdict.c_str(),
                interval(row.pairing).c_str());
  std::string text = head + row.id;
  for (const record::GateCheck& check : row.checks) {
    if (check.verdict == "same") continue;
    char line[120];
    std::snprintf(line, sizeof line, "; %s %s: %.6g, was %.6g", check.quantity.name.c_str(),
                  check.verdict.c_str(), check.head, check.base);
    text += line;
  }
  return row.reason.empty() ? text : text + "; " + row.reason;
}

std::pair<std::string, int> summary_of(const record::GateVerdict& verdict,
                                       const std::string& inconclusive) {
  std::map<int, int> count;
  bool wrong = false, slower = false, open = false;
  for (const record::GateRow& row : verdict.rows) {
    ++count[record::place_of_verdict(row.verdict)];
    const bool broken =
        row.verdict == "failed" || row.verdict == "crashed" || row.verdict == "hung";
    const bool of_head = row.reason.starts_with("head");
    wrong = wrong || (broken && of_head);
    open =
        open || (broken && !of_head) || row.verdict == "inconclusive" || row.verdict == "unarmed";
    slower = slower || row.verdict == "regression" || row.verdict == "worse" || has_worse(row);
  }
  std::string sentence;
  for (const auto& [rank, n] : count) {
    if (rank >= static_cast<int>(std::size(record::kGateVerdicts))) continue;
    sentence +=
        (sentence.empty() ? "" : ", ") + std::to_string(n) + " " + record::kGateVerdicts[rank];
  }
  if (verdict.rows.empty()) return {"no rows", kNothingSelected};
  int code = kFine;
  if (open && inconclusive == "fail") code = kInconclusive;
  if (slower) code = kRegression;
  if (wrong) code = kGateFailed;
  return {sentence, code};
}

int gate(const CommandLine& line, const std::string& command) {
  const RunConfig& config = line.config;
  check(config.gate);
  check(config);
  for (const std::string& flag : line.benchmark_flags) {
    require(flag.starts_with("--benchmark_filter="), "gate runs both binaries itself; ", flag,
            " means nothing here");
  }
  require(!config.dry_run && !config.profile,
          "gate times; --dry-run and --profile make times that say nothing");
  // Threads that spin while they wait cost ten times the time where others use a CPU.
  ::setenv("OMP_WAIT_POLICY", "passive", /*overwrite=*/0);
  catch_interrupts();
  cores_of(config.gate.cores, config.threads);  // refused before there is a folder
  GateSession session(config, command);
  record::GateVerdict verdict;
  try {
    verdict = session.run();
  } catch (const Error& error) {
    session.fail(error.what(), kUserCanFix);
    throw;
  } catch (const std::exception& error) {
    session.fail(sentence_of(error), kBug);
    throw;
  }
  if (verdict.status == "interrupted") {
    std::fprintf(stderr, "dsa-bench: interrupted by the user; dsa-bench gate --resume %s goes on\n",
                 session.folder().c_str());
  }
  if (verdict.exit_code == kNothingSelected) {
    std::fprintf(stderr, "dsa-bench: nothing is selected: neither binary has a row that matches\n");
  }
  if (config.quiet || verdict.rows.empty()) return verdict.exit_code;
  std::vector<record::GateRow> rows = verdict.rows;
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) {
    return record::place_of_verdict(a.verdict) < record::place_of_verdict(b.verdict);
  });
  for (const record::GateRow& row : rows) std::printf("%s\n", shown(row).c_str());
  const std::string folder = session.folder().string();
  std::printf("%s%s; exit code %d\n", verdict.sentence.c_str(),
              verdict.armed ? " (certificate holds)" : "", verdict.exit_code);
  std::printf("%s: files in %s; for a pull request: dsa-report gate %s\n", verdict.status.c_str(),
              folder.c_str(), folder.c_str());
  return verdict.exit_code;
}

}  // namespace dsa::bench
