// The forest plot of a gate: head over base, row by row, with the interval that decided.
#include "reports/gate_report.h"

#include <algorithm>
#include <cmath>
#include <sstream>

namespace dsa::report {
namespace {

constexpr int kForestWidth = 460, kForestLine = 13;
constexpr size_t kForestRows = 80, kForestLabel = 46;

/// A colour and a shape for each verdict that a timed row can have; the order is the legend's.
struct VerdictLook {
  const char* verdict;
  int slot;
};
constexpr VerdictLook kVerdictLooks[] = {{"regression", 1},   {"worse", 9}, {"improvement", 0},
                                         {"inconclusive", 2}, {"same", 3},  {"unarmed", 4},
                                         {"other", 5}};

std::string legend_name(const std::string& verdict) {
  for (const VerdictLook& look : kVerdictLooks) {
    if (verdict == look.verdict) return verdict;
  }
  return "other";
}

std::vector<std::string> parts_of(const std::string& id) {
  std::vector<std::string> out;
  std::istringstream in(id);
  for (std::string part; std::getline(in, part, '/');) out.push_back(part);
  return out;
}

/// What every id says, e.g. "dtype:f32", is said once, in the subtitle.
std::vector<std::string> common_parts(const std::vector<const record::GateRow*>& rows) {
  if (rows.size() < 2) return {};
  std::vector<std::string> out = parts_of(rows.front()->id);
  for (const record::GateRow* row : rows) {
    const std::vector<std::string> parts = parts_of(row->id);
    std::erase_if(out, [&](const std::string& part) {
      return part.find(':') == std::string::npos ||
             std::find(parts.begin(), parts.end(), part) == parts.end();
    });
  }
  return out;
}

/// The rest of an id, broken between its parts into lines of at most kForestLabel letters.
std::string forest_label(const std::string& id, const std::vector<std::string>& common) {
  std::string out, line;
  for (const std::string& part : parts_of(id)) {
    if (std::find(common.begin(), common.end(), part) != common.end()) continue;
    if (!line.empty() && line.size() + 1 + part.size() > kForestLabel) {
      out += line + "/\n";
      line.clear();
    } else if (!line.empty()) {
      line += '/';
    }
    line += part;
  }
  return out + line;
}

/// Slowest first. Of more rows than fit, those furthest from 1.
std::vector<const record::GateRow*> forest_rows(const record::GateVerdict& gate) {
  std::vector<const record::GateRow*> rows;
  for (const record::GateRow& row : gate.rows) {
    if (was_timed(row.pairing)) rows.push_back(&row);
  }
  const auto distance = [](const record::GateRow* row) {
    return std::fabs(std::log(row->pairing.ratio)) + (needs_attention(row->verdict) ? 1e3 : 0);
  };
  std::stable_sort(rows.begin(), rows.end(),
                   [&](const auto* a, const auto* b) { return distance(a) > distance(b); });
  if (rows.size() > kForestRows) rows.resize(kForestRows);
  std::stable_sort(rows.begin(), rows.end(), [](const auto* a, const auto* b) {
    return a->pairing.ratio > b->pairing.ratio;
  });
  return rows;
}

double least_effect(const record::GateVerdict& gate, const record::GateRow& row) {
  return row.level == "kernel" ? gate.micro_effect : gate.macro_effect;
}

/// Bounds that are not finite (too few rounds) are not drawn.
bool has_interval(const record::Pairing& p) {
  return p.low > 0 && std::isfinite(p.low) && std::isfinite(p.high) && p.high > 0;
}

struct Forest {
  Json values = Json::array();
  theme::Span x = {1, 1};
  std::vector<std::string> verdicts;
  int label_lines = 1;
};

Forest forest_of(const record::GateVerdict& gate, const std::vector<const record::GateRow*>& rows,
                 const std::vector<std::string>& common) {
  Forest out;
  for (const record::GateRow* row : rows) {
    const record::Pairing& p = row->pairing;
    const double effect = least_effect(gate, *row);
    const bool bounded = has_interval(p);
    out.x.low = std::min({out.x.low, p.ratio, bounded ? p.low : p.ratio, 1 / (1 + effect)});
    out.x.high = std::max({out.x.high, p.ratio, bounded ? p.high : p.ratio, 1 + effect});
    const std::string label = forest_label(row->id, common);
    const int lines = 1 + static_cast<int>(std::count(label.begin(), label.end(), '\n'));
    out.label_lines = std::max(out.label_lines, lines);
    out.values.push_back({{"row", label},
                          {"lines", lines},
                          {"id", row->id},
                          {"name", legend_name(row->verdict)},
                          {"ratio", theme::rounded(p.ratio)},
                          {"low", bounded ? theme::rounded(p.low) : Json()},
                          {"high", bounded ? theme::rounded(p.high) : Json()},
                          {"least", theme::rounded(1 / (1 + effect))},
                          {"most", theme::rounded(1 + effect)},
                          {"rounds", p.rounds}});
  }
  for (const VerdictLook& look : kVerdictLooks) {
    const bool used = std::any_of(rows.begin(), rows.end(), [&](const auto* row) {
      return legend_name(row->verdict) == look.verdict;
    });
    if (used) out.verdicts.emplace_back(look.verdict);
  }
  const double pad = std::pow(out.x.high / out.x.low, 0.06);
  out.x = {out.x.low / pad, out.x.high * pad};
  return out;
}

Json by_verdict(const Forest& forest, bool shape) {
  Json range = Json::array();
  for (const std::string& name : forest.verdicts) {
    for (const VerdictLook& look : kVerdictLooks) {
      const theme::Look one = theme::look(look.slot);
      if (name == look.verdict) range.push_back(shape ? one.shape : one.colour);
    }
  }
  return {{"field", "name"},
          {"type", "nominal"},
          {"title", nullptr},
          {"scale", {{"domain", forest.verdicts}, {"range", range}}}};
}

/// Left of the plot. An axis would hang labels of several lines by their first one.
Json forest_labels(const Json& y) {
  return {{"mark",
           {{"type", "text"},
            {"align", "right"},
            {"baseline", "middle"},
            {"lineBreak", "\n"},
            {"lineHeight", kForestLine},
            {"limit", 0},
            {"color", "#374151"},
            {"dy", {{"expr", std::to_string(-kForestLine / 2.0) + "*(datum.lines-1)"}}}}},
          {"encoding",
           {{"y", y}, {"x", {{"value", -8}}}, {"text", {{"field", "row"}, {"type", "nominal"}}}}}};
}

Json forest_layers(const Forest& forest) {
  const std::string title = "Time of head / time of base (log scale)";
  Json axis = theme::log_value_axis(title, "1", forest.x);
  axis["axis"]["labelExpr"] = "format(datum.value,'.4~r')+'×'";
  const Json y = {{"field", "row"},
                  {"type", "nominal"},
                  {"title", nullptr},
                  {"sort", nullptr},
                  {"axis", nullptr}};
  const auto x_of = [&](const char* field) {
    Json x = axis;
    x["field"] = field;
    return x;
  };
  const Json colour = by_verdict(forest, false);
  const Json tooltip = {{{"field", "id"}, {"title", "benchmark"}},
                        {{"field", "name"}, {"title", "verdict"}},
                        {{"field", "ratio"}, {"title", "head / base"}, {"format", ".4~g"}},
                        {{"field", "low"}, {"format", ".4~g"}},
                        {{"field", "high"}, {"format", ".4~g"}},
                        {{"field", "rounds"}}};
  return {{{"mark", {{"type", "rect"}, {"color", "#EEF1F4"}}},
           {"encoding", {{"y", y}, {"x", x_of("least")}, {"x2", {{"field", "most"}}}}}},
          {{"data", {{"values", {{{"one", 1}}}}}},
           {"mark", {{"type", "rule"}, {"color", theme::kGuide}, {"strokeDash", {5, 4}}}},
           {"encoding", {{"x", x_of("one")}}}},
          {{"transform", Json::array({{{"filter", "isValid(datum.low)"}}})},
           {"mark", {{"type", "rule"}, {"strokeWidth", 2.5}}},
           {"encoding",
            {{"y", y}, {"x", x_of("low")}, {"x2", {{"field", "high"}}}, {"color", colour}}}},
          forest_labels(y),
          {{"mark", {{"type", "point"}, {"filled", true}, {"size", 75}, {"opacity", 1}}},
           {"encoding",
            {{"y", y},
             {"x", x_of("ratio")},
             {"color", colour},
             {"shape", by_verdict(forest, true)},
             {"tooltip", tooltip}}}}};
}

std::string forest_subtitle(const record::GateVerdict& gate, size_t drawn, size_t timed,
                            const std::vector<std::string>& common) {
  std::string out =
      "Point = median over rounds, line = its sign-test interval, all rows together " +
      shortest(100 * (1 - gate.alpha)) + " % · band: too small to count (micro ±" +
      shortest(100 * gate.micro_effect) + " %, macro ±" + shortest(100 * gate.macro_effect) + " %)";
  if (drawn < timed) {
    out += " · " + std::to_string(drawn) + " of " + std::to_string(timed) +
           " rows: those that need somebody, then those furthest from 1";
  }
  if (common.empty()) return out;
  out += " · every row:";
  for (const std::string& part : common) out += " " + part;
  return out;
}

}  // namespace

bool was_timed(const record::Pairing& pairing) {
  return pairing.rounds > 0 && pairing.ratio > 0 && std::isfinite(pairing.ratio);
}

Chart gate_forest(const record::GateVerdict& gate) {
  const std::vector<const record::GateRow*> rows = forest_rows(gate);
  if (rows.empty()) return {};
  size_t timed = 0, slower = 0, faster = 0;
  for (const record::GateRow& row : gate.rows) {
    timed += was_timed(row.pairing);
    slower += was_timed(row.pairing) && row.verdict == "regression";
    faster += was_timed(row.pairing) && row.verdict == "improvement";
  }
  const std::string title = "Of " + std::to_string(timed) +
                            (timed == 1 ? " timed row " : " timed rows ") + std::to_string(slower) +
                            (slower == 1 ? " is" : " are") + " slower, " + std::to_string(faster) +
                            " faster";
  const std::vector<std::string> common = common_parts(rows);
  const Forest forest = forest_of(gate, rows, common);
  const int indent = 6 * static_cast<int>(kForestLabel);  // the title starts left of the labels
  Json spec = theme::base(title, forest_subtitle(gate, rows.size(), timed, common),
                          kForestWidth + indent / 2);
  spec["title"]["frame"] = "bounds";
  spec["data"] = {{"values", forest.values}};
  spec["width"] = kForestWidth;
  spec["height"] = {{"step", kForestLine * forest.label_lines + 10}};
  spec["layer"] = forest_layers(forest);
  return {"gate_forest", title,
          "Above 1 head is slower. A row counts as slower only where its whole line lies above 1 "
          "and its "
          "point right of the band, and only if a second, independent batch of rounds says so too.",
          spec};
}

}  // namespace dsa::report
