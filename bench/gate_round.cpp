#include "bench/gate_round.h"

#include "bench/session.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>

namespace dsa::bench {
namespace {

/// Slices of a process: many, so that few are hit by a change of the machine's speed; fewer where
/// --kernels.min-time has not as many calls.
constexpr int64_t kFewestSlices = 5, kMostSlices = 15;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// Why a process has no time, if it has none.
std::optional<Exclusion> loss_of(const ArmRunner::Result& result, const std::string& row) {
  const auto found = result.facts.find(row);
  if (found != result.facts.end() && found->second.seconds) return std::nullopt;
  const bool told = found != result.facts.end() && !found->second.reason.empty();
  Exclusion loss;
  loss.verdict = told                     ? "failed"
                 : result.ended.hung      ? "hung"
                 : result.ended.crashed() ? "crashed"
                                          : "failed";
  loss.reason = told ? found->second.reason : result.ended.shown();
  return loss;
}

}  // namespace

double log_ratio(const std::vector<double>& base, const std::vector<double>& arm) {
  std::vector<double> of_slices;
  for (size_t i = 0; i < std::min(base.size(), arm.size()); ++i) {
    const double ratio = std::log(arm[i] / base[i]);
    if (std::isfinite(ratio)) of_slices.push_back(ratio);
  }
  return of_slices.empty() ? kNaN : median(of_slices);
}

Race::Race(const ArmRunner& runner, std::filesystem::path folder, std::vector<RaceRow> rows,
           std::array<Binary, gate::kArmNames.size()> arms)
    : runner_(runner), folder_(std::move(folder)), rows_(std::move(rows)), arms_(std::move(arms)) {
  nlohmann::ordered_json calls = nlohmann::ordered_json::object();
  for (const RaceRow& row : rows_) {
    if (row.iterations <= 0) continue;
    const int64_t each = std::max<int64_t>(1, row.iterations / slices_of(row));
    calls[row.base] = calls[row.head] = each;
  }
  write_atomically(folder_ / "iterations.json", calls.dump(1) + "\n");
}

int64_t Race::slices_of(const RaceRow& row) const {
  return std::clamp(row.iterations, kFewestSlices, kMostSlices);
}

PlayedRound Race::play(const gate::Round& round, Progress& progress) const {
  PlayedRound played;
  for (auto& of_arm : played.times) of_arm.assign(rows_.size(), kNaN);
  const auto start = std::chrono::steady_clock::now();
  progress.begin("round " + std::to_string(round.number + 1));
  for (size_t i = 0; i < round.visits.size() && !stop_requested(); ++i) {
    const double part = static_cast<double>(i) / static_cast<double>(round.visits.size());
    progress.tick(part, "row " + std::to_string(i + 1) + "/" + std::to_string(round.visits.size()));
    visit(round.visits[i], played);
  }
  played.seconds = seconds_since(start);
  return played;
}

void Race::visit(const gate::Visit& visit, PlayedRound& round) const {
  const RaceRow& row = rows_[visit.row];
  std::vector<ArmRunner::Entry> entries;
  for (const gate::Arm arm : visit.arms) {
    entries.push_back(
        {&arms_[static_cast<size_t>(arm)], arm == gate::Arm::kHead ? row.head : row.base});
  }
  const auto results = runner_.measure_in_turns(
      entries,
      {"--kernels.repetitions=" + std::to_string(slices_of(row)), "--kernels.checked=false",
       "--kernels.iterations=" + (folder_ / "iterations.json").string()},
      "round", visit.seed);
  if (stop_requested()) return;
  const RowFacts* base = nullptr;
  for (size_t i = 0; i < results.size(); ++i) {
    if (auto loss = loss_of(results[i], entries[i].row)) {
      const auto arm = static_cast<size_t>(visit.arms[i]);
      loss->row = visit.row, loss->arm = visit.arms[i];
      loss->reason = std::string(gate::kArmNames[arm]) + ": " + loss->reason;
      round.excluded.push_back(*loss);
    } else if (visit.arms[i] == gate::Arm::kBase) {
      base = &results[i].facts.at(entries[i].row);
    }
  }
  if (base == nullptr) return;
  round.times[static_cast<size_t>(gate::Arm::kBase)][visit.row] = *base->seconds;
  for (size_t i = 0; i < results.size(); ++i) {
    const auto found = results[i].facts.find(entries[i].row);
    if (visit.arms[i] == gate::Arm::kBase || found == results[i].facts.end()) continue;
    round.times[static_cast<size_t>(visit.arms[i])][visit.row] =
        *base->seconds * std::exp(log_ratio(base->slices, found->second.slices));
  }
}

}  // namespace dsa::bench
