#include "reports/gate_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <set>

namespace dsa::report {
namespace {

/// A comment on GitHub holds 65536 letters: three tables of this many long rows fit.
constexpr size_t kCommentRows = 80;

/// Pressing verdicts first, then large ratios, then the order of the file.
std::vector<const record::GateRow*> gate_rows(const record::GateVerdict& gate, bool pressing) {
  std::vector<const record::GateRow*> out;
  for (const record::GateRow& row : gate.rows) {
    if (needs_attention(row.verdict) == pressing) out.push_back(&row);
  }
  const auto ratio = [](const record::GateRow* row) {
    return was_timed(row->pairing) ? row->pairing.ratio : 0;
  };
  std::stable_sort(out.begin(), out.end(), [&](const auto* a, const auto* b) {
    const int place_a = record::place_of_verdict(a->verdict);
    const int place_b = record::place_of_verdict(b->verdict);
    return place_a != place_b ? place_a < place_b : ratio(a) > ratio(b);
  });
  return out;
}

/// "2 regression, 1 new, 9 same", most pressing first.
std::string verdict_counts(const std::vector<const record::GateRow*>& rows) {
  std::vector<std::string> order(std::begin(record::kGateVerdicts),
                                 std::end(record::kGateVerdicts));
  std::map<std::string, int> counts;
  for (const record::GateRow* row : rows) {
    ++counts[row->verdict];
    if (std::find(order.begin(), order.end(), row->verdict) == order.end())
      order.push_back(row->verdict);
  }
  std::string out;
  for (const std::string& verdict : order) {
    if (counts[verdict] == 0) continue;
    out += (out.empty() ? "" : ", ") + std::to_string(counts[verdict]) + " " +
           (verdict.empty() ? "without a verdict" : verdict);
  }
  return out;
}

Text verdict_line(const record::GateVerdict& gate) {
  if (!gate.sentence.empty()) return bold(gate.sentence);
  if (gate.rows.empty()) return bold(Text("The gate compared no benchmark."));
  std::vector<const record::GateRow*> rows = gate_rows(gate, true);
  for (const record::GateRow* row : gate_rows(gate, false)) rows.push_back(row);
  return bold("Gate: " + verdict_counts(rows) + ".");
}

/// Ratios of one column end at the same digit.
std::string thousandths(double ratio) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3f", ratio);
  return ratio < 1000 ? text : significant(ratio);
}

std::string interval_of(const record::Pairing& p) {
  if (!std::isfinite(p.low) || !std::isfinite(p.high) || p.rounds < 1) return "–";
  return "[" + thousandths(p.low) + ", " + thousandths(p.high) + "]";
}

std::string reason_of(const record::GateRow& row) {
  if (!was_timed(row.confirmation)) return row.reason;
  return row.reason + (row.reason.empty() ? "" : " ") +
         "Second batch: " + factor(row.confirmation.ratio) + " " + interval_of(row.confirmation) +
         ", " + std::to_string(row.confirmation.rounds) + " rounds.";
}

Table rows_table(const std::vector<const record::GateRow*>& rows) {
  Table table;
  table.columns = {{"benchmark"},      {"verdict"},      {"head / base", true},
                   {"interval", true}, {"rounds", true}, {"reason"}};
  for (const record::GateRow* row : rows) {
    const record::Pairing& p = row->pairing;
    const bool timed = was_timed(p);
    const bool pressing = needs_attention(row->verdict);
    table.rows.push_back({code(row->id), pressing ? bold(row->verdict) : Text(row->verdict),
                          timed ? factor(p.ratio) : "–", timed ? interval_of(p) : "–",
                          p.rounds > 0 ? std::to_string(p.rounds) : "–", reason_of(*row)});
  }
  return table;
}

/// As many digits as it takes to tell the two apart: tolerances of checks are tight.
std::string checked_value(double value, double other, const record::Quantity& quantity) {
  std::string text = with_unit(value, quantity.unit);
  if (value == other || text != with_unit(other, quantity.unit)) return text;
  char exact[32];
  std::snprintf(exact, sizeof exact, "%.12g", value);
  return quantity.unit == "1" ? exact : std::string(exact) + "\u00a0" + quantity.unit;
}

std::vector<Block> check_blocks(const record::GateVerdict& gate) {
  Table table;
  table.columns = {{"benchmark"},  {"quantity"},        {"base", true},
                   {"head", true}, {"tolerance", true}, {"verdict"}};
  size_t checks = 0;
  for (const record::GateRow& row : gate.rows) {
    for (const record::GateCheck& check : row.checks) {
      ++checks;
      if (check.verdict == "same") continue;
      table.rows.push_back({code(row.id), spoken(check.quantity.name),
                            checked_value(check.base, check.head, check.quantity),
                            checked_value(check.head, check.base, check.quantity),
                            with_unit(check.tolerance, check.quantity.unit),
                            check.verdict == "better" ? Text(check.verdict) : bold(check.verdict)});
    }
  }
  if (checks == 0) return {};
  const std::string all = std::to_string(checks);
  if (table.rows.empty())
    return {{Paragraph{"Of " + all +
                       " numbers that no clock touches (FLOPs, bytes, losses, …) none changed."}}};
  return {{Heading{3, "Numbers that no clock touches: " + std::to_string(table.rows.size()) +
                          " of " + all + " changed"}},
          {table}};
}

std::string certificate_line(const record::GateVerdict& gate) {
  int timed = 0, same = 0, found = 0;
  for (const record::GateRow& row : gate.rows) {
    if (row.copy.verdict.empty() && row.slowed.verdict.empty()) continue;
    ++timed;
    same += row.copy.verdict == "same";
    found += row.slowed.verdict == "regression";
  }
  if (timed == 0) {
    const bool any = std::any_of(gate.rows.begin(), gate.rows.end(),
                                 [](const auto& row) { return was_timed(row.pairing); });
    return any ? "Certificate: not asked for." : "Certificate: none, nothing was timed.";
  }
  const std::string all = " of " + std::to_string(timed) + " rows";
  return std::string("Certificate: ") + (gate.armed ? "armed" : "NOT armed") +
         "; base against its copy came out the same in " + std::to_string(same) + all +
         ", base slowed " + factor(gate.slowdown) + " was found in " + std::to_string(found) + all +
         ".";
}

std::vector<Text> arm_lines(const record::GateVerdict& gate) {
  std::vector<Text> out;
  for (const record::GateArm& arm : gate.arms) {
    Text line = Text(arm.name + ": ") + code(arm.path);
    if (!arm.git.empty()) line += Text(", commit ") + code(short_commit(arm.git));
    if (!arm.text_hash.empty()) line += Text(", .text ") + code(arm.text_hash);
    out.push_back(line);
  }
  const auto cpu = gate.machine.find("cpu");
  if (cpu != gate.machine.end()) out.push_back(Text("machine: ") + code(cpu->second));
  return out;
}

std::string how_to_read(const record::GateVerdict& gate) {
  return "head / base is a ratio of times, the median over rounds in which both ran in random "
         "order; above 1 "
         "head is slower. The interval is the sign test's, at α = " +
         shortest(gate.alpha) + " for all timed rows together. A change counts beyond ±" +
         shortest(100 * gate.micro_effect) + "\u00a0% (micro) or ±" +
         shortest(100 * gate.macro_effect) + "\u00a0% (macro).";
}

std::vector<Block> quiet_blocks(const record::GateVerdict& gate) {
  const std::vector<const record::GateRow*> rows = gate_rows(gate, false);
  if (rows.empty()) return {};
  return {{Details{
      Text((rows.size() == gate.rows.size() ? "All " : "The other ") + std::to_string(rows.size()) +
           (rows.size() == 1 ? " row: " : " rows: ") + verdict_counts(rows)),
      {{rows_table(rows)}}}}};
}

}  // namespace

bool needs_attention(const std::string& verdict) {
  const int place = record::place_of_verdict(verdict);
  return place < record::kFirstQuietVerdict ||
         place == static_cast<int>(std::size(record::kGateVerdicts));
}

std::string factor(double ratio) {
  return std::isfinite(ratio) ? thousandths(ratio) + "×" : "–";
}

std::string short_commit(const std::string& commit) {
  return commit.substr(0, 10);
}

Document build(const record::GateVerdict& gate) {
  Document out;
  out.id = gate.id;
  out.title = "Gate " + gate.id + ": head against base";
  out.stem = "gate";
  out.comment = true;
  out.table_rows = kCommentRows;
  const auto add = [&](std::vector<Block> blocks) {
    for (Block& block : blocks) out.blocks.push_back(std::move(block));
  };
  out.blocks.push_back({Verdict{{verdict_line(gate)}}});
  if (gate.status != "done") {
    out.blocks.push_back({Alert{"This gate did not end (status: " + gate.status +
                                "): what is missing below was not measured."}});
  }
  const std::vector<const record::GateRow*> pressing = gate_rows(gate, true);
  const bool any_timed = std::any_of(gate.rows.begin(), gate.rows.end(),
                                     [](const auto& row) { return was_timed(row.pairing); });
  if (!pressing.empty()) {
    out.blocks.push_back({rows_table(pressing)});
  } else if (!gate.rows.empty()) {
    out.blocks.push_back({Paragraph{"No row needs attention."}});
  }
  if (any_timed) out.blocks.push_back({Paragraph{how_to_read(gate)}});
  add(check_blocks(gate));
  if (any_timed) out.blocks.push_back({Figure{gate_forest(gate)}});
  add(quiet_blocks(gate));
  std::vector<Text> lines = {certificate_line(gate)};
  for (const Text& line : arm_lines(gate)) lines.push_back(line);
  if (gate.budget > 0) {
    lines.push_back("spent: " + count(gate.seconds) + "\u00a0s of at most " + count(gate.budget) +
                    "\u00a0s, started " + gate.started);
  }
  out.blocks.push_back({List{lines}});
  if (!gate.command.empty()) {
    out.blocks.push_back({Details{"How to repeat it", {{CodeBlock{gate.command}}}}});
  }
  return out;
}

}  // namespace dsa::report
