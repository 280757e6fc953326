#include "bench/gate_checks.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <set>

namespace dsa::bench {
namespace {

using Better = record::Quantity::Better;

std::string verdict_of(const record::GateCheck& check) {
  const bool both_nan = std::isnan(check.base) && std::isnan(check.head);
  if (both_nan || std::abs(check.head - check.base) <= check.tolerance) return "same";
  if (!std::isfinite(check.head)) return "worse";
  if (!std::isfinite(check.base)) return "better";
  const bool grew = check.head > check.base;
  return grew == (check.quantity.better == Better::kHigher) ? "better" : "worse";
}

/// All that follows the family: what remains when a family is renamed.
std::string axes_of(const std::string& id) {
  return id.substr(std::min(id.size(), id.find('/')));
}

}  // namespace

std::vector<record::GateCheck> checks_of(const RowFacts& base, const RowFacts& head,
                                         const std::vector<Tolerance>& tolerances) {
  std::vector<record::GateCheck> checks;
  for (const Tolerance& tolerance : tolerances) {
    const auto b = base.numbers.find(tolerance.quantity), h = head.numbers.find(tolerance.quantity);
    if (b == base.numbers.end()) continue;
    record::GateCheck check;
    check.quantity = b->second.first;
    check.base = b->second.second;
    // A number that head no longer gives is no better than a wrong one.
    check.head = h == head.numbers.end() ? std::nan("") : h->second.second;
    check.tolerance = tolerance.share * std::abs(check.base) + tolerance.amount;
    check.verdict = verdict_of(check);
    checks.push_back(std::move(check));
  }
  return checks;
}

std::string quantities_of_none(const std::vector<Tolerance>& tolerances, const RunFacts& rows) {
  std::string names;
  for (const Tolerance& one : tolerances) {
    const bool found = std::ranges::any_of(
        rows, [&](const auto& row) { return row.second.numbers.contains(one.quantity); });
    if (!found) names += (names.empty() ? "" : ", ") + one.quantity;
  }
  return names;
}

std::vector<RowPair> paired_rows(const std::vector<std::string>& base,
                                 const std::vector<std::string>& head,
                                 const std::vector<std::string>& renamed) {
  std::map<std::string, std::string> new_name;
  std::set<std::string> new_names;
  for (const std::string& text : renamed) {
    const size_t equals = text.find('=');
    const std::string from = text.substr(0, equals), to = text.substr(equals + 1);
    require(new_name.emplace(from, to).second, "--renamed names ", from, " twice");
    require(new_names.insert(to).second, "--renamed gives ", to, " to two rows of base");
  }
  const std::set<std::string> in_base(base.begin(), base.end()), in_head(head.begin(), head.end());
  for (const auto& [from, to] : new_name) {
    require(in_base.contains(from), "--renamed names ", from, ", which base does not have");
    require(in_head.contains(to), "--renamed names ", to, ", which head does not have");
    require(from == to || !in_base.contains(to) || new_name.contains(to), "--renamed names ", to,
            " as new, but base has it too; its own row compares it");
  }
  std::vector<RowPair> rows;
  std::set<std::string> taken;
  for (const std::string& id : base) {
    const auto renamed_to = new_name.find(id);
    const std::string& there = renamed_to == new_name.end() ? id : renamed_to->second;
    const bool found = in_head.contains(there);
    rows.push_back({id, found ? there : ""});
    if (found) taken.insert(there);
  }
  for (const std::string& id : head) {
    if (!taken.contains(id)) rows.push_back({"", id});
  }
  return rows;
}

void require_equal_settings(const std::string& base, const std::string& head) {
  const auto settings = [](const std::string& text) {
    return text.empty() ? nlohmann::json::object() : nlohmann::json::parse(text).flatten();
  };
  const auto there = settings(base), here = settings(head);
  for (const auto& [name, value] : there.items()) {
    const auto other = here.find(name);
    // Where a run writes, and which rows it was given, differ by design.
    const bool own = name == "/out" || name == "/filter" || name == "/inject-slowdown" ||
                     name.starts_with("/select") || name.starts_with("/gate");
    if (own || other == here.end() || *other == value) continue;
    std::string flag = name.substr(1);
    std::replace(flag.begin(), flag.end(), '/', '.');
    throw Error("base runs with " + flag + " = " + value.dump() + " and head with " +
                other->dump() + ", so they do different work; set it with --" + flag);
  }
}

std::string reason_alone(const RowPair& row, const std::vector<RowPair>& all) {
  const bool missing = row.head.empty();
  for (const RowPair& other : all) {
    const std::string& candidate = missing ? other.head : other.base;
    const bool alone = missing ? other.base.empty() : other.head.empty();
    if (!alone || axes_of(candidate) != axes_of(row.id())) continue;
    const std::string from = missing ? row.base : candidate, to = missing ? candidate : row.head;
    return "perhaps renamed: --renamed " + from + "=" + to + " compares them";
  }
  return missing ? "head does not have it" : "base does not have it";
}

}  // namespace dsa::bench
