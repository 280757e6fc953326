#include "bench/gate_session.h"

#include "bench/commands.h"
#include "bench/session.h"
#include "harness/machine.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <limits>

namespace dsa::bench {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

/// Timed repetitions of a process, of which the fastest counts.
constexpr int kRepetitions = 5;

/// A verdict that was reached without timing.
bool settled(const record::GateRow& row) {
  return !row.verdict.empty();
}

fs::path folder_of(const RunConfig& config) {
  if (!config.resume.empty()) return config.resume;
  std::string id = stamp_of(utc_now()) + "-gate";
  return make_folder(config.out, id);
}

}  // namespace

GateSession::GateSession(const RunConfig& config, const std::string& command)
    : config_(config),
      base_(binary_of("base", config.gate.base)),
      head_(binary_of("head", config.gate.head)),
      folder_(folder_of(config)),
      runner_(config, folder_),
      progress_(config.quiet) {
  const GateConfig& gate = config.gate;
  if (!config.resume.empty()) resume();
  head_.slowdown = config.inject_slowdown;
  same_build_ =
      base_.arm.text_hash == head_.arm.text_hash && !gate.time_equal && config.inject_slowdown <= 1;
  verdict_.id = folder_.filename().string();
  verdict_.command = command;
  if (verdict_.started.empty()) verdict_.started = utc_now();
  verdict_.alpha = gate.alpha;
  verdict_.micro_effect = share_of("--gate.min-effect", gate.min_effect);
  verdict_.macro_effect = share_of("--gate.macro-min-effect", gate.macro_min_effect);
  verdict_.slowdown = gate.certificate ? gate.certificate_slowdown : 1;
  verdict_.budget = dsa::seconds_of("--gate.budget", gate.budget);
  verdict_.machine = machine_facts();
  verdict_.config_json = to_json(config);
  verdict_.arms = {base_.arm, head_.arm};
  write();
}

void GateSession::resume() {
  const record::GateVerdict before = record::gate_from_json(whole_text(folder_ / "verdict.json"));
  for (size_t i = 0; i < before.arms.size(); ++i) {
    const Binary& now = i == 0 ? base_ : head_;
    require(before.arms[i].text_hash == now.arm.text_hash, "--resume ", config_.resume,
            " timed another ", now.arm.name, ": ", now.arm.path,
            " has changed since; start a new gate");
  }
  RunConfig there = run_config_from_json(before.config_json);
  // What does not change a time, nor which are taken.
  there.gate.budget = config_.gate.budget, there.gate.time_limit = config_.gate.time_limit;
  there.gate.inconclusive = config_.gate.inconclusive;
  there.gate.base = config_.gate.base, there.gate.head = config_.gate.head;
  if (const auto difference = first_difference(there, config_)) {
    throw Error("--resume " + config_.resume + " was another gate: " + *difference +
                "; give the same settings, or none");
  }
  verdict_.started = before.started;
  verdict_.seconds = before.seconds;
}

void GateSession::fail(const std::string& sentence, int exit_code) {
  verdict_.status = "failed", verdict_.sentence = sentence, verdict_.exit_code = exit_code;
  verdict_.ended = utc_now();
  clean_up();
}

record::GateVerdict GateSession::run() {
  prepare();
  if (!stop_requested()) {
    judge_untimed();
    choose_timed();
    play();
  }
  conclude();
  return verdict_;
}

void GateSession::prepare() {
  progress_.start(2);
  const auto base_rows = runner_.rows(base_), head_rows = runner_.rows(head_);
  if (stop_requested()) return;
  pairs_ = paired_rows(base_rows, head_rows, config_.gate.renamed);
  base_facts_ = checked(base_, base_rows);
  head_facts_ = checked(head_, head_rows);
  require_equal_settings(settings_there_["base"], settings_there_["head"]);
  verdict_.arms = {base_.arm, head_.arm};
  write();
}

/// Runs every row once, with its checks. A row that ends the process is left out, and the rest go on.
RunFacts GateSession::checked(Binary& binary, const std::vector<std::string>& rows) {
  const std::string place = "check-" + binary.arm.name;
  RunFacts all;
  std::vector<std::string> left = rows;
  progress_.begin("checks of " + binary.arm.name);
  Binary unslowed = binary;
  unslowed.slowdown = 1;
  for (int part = 0; !left.empty() && !stop_requested(); ++part) {
    const std::string where = place + "-" + std::to_string(part);
    const bool before = fs::exists(folder_ / (where + ".done"));
    auto result = before ? runner_.left_in(where)
                         : runner_.measure(unslowed, left, {"--kernels.repetitions=1"}, where,
                                           static_cast<double>(left.size()));
    if (result.ended.stopped) return all;
    binary.arm.git = result.git;
    settings_there_[binary.arm.name] = result.settings;
    const auto known = [&](const std::string& id) {
      const auto found = result.facts.find(id);
      return found != result.facts.end() &&
             (found->second.seconds || !found->second.status.empty());
    };
    const auto culprit = std::find_if_not(left.begin(), left.end(), known);
    if (culprit != left.end()) {
      RowFacts& row = result.facts[*culprit];
      row.status = result.ended.hung ? "hung" : result.ended.crashed() ? "crashed" : "failed";
      row.reason = binary.arm.name + " " + result.ended.shown();
    } else if (!before) {
      std::ofstream(folder_ / (where + ".done")) << "\n";
    }
    for (const auto& [id, facts] : result.facts) all[id] = facts;
    std::erase_if(left, known);
  }
  progress_.end();
  return all;
}

void GateSession::judge_untimed() {
  const auto tolerances = tolerances_of(config_.gate);
  for (const RowPair& pair : pairs_) {
    record::GateRow& row = verdict_.rows.emplace_back();
    row.id = pair.id();
    row.base_seconds = std::numeric_limits<double>::quiet_NaN();
    if (pair.base.empty() || pair.head.empty()) {
      row.verdict = pair.base.empty() ? "new" : "missing";
      row.reason = reason_alone(pair, pairs_);
      const RunFacts& facts = pair.base.empty() ? head_facts_ : base_facts_;
      const auto found = facts.find(pair.id());
      if (found == facts.end()) continue;
      row.level = found->second.level;
      const std::string& status = found->second.status;
      if (pair.base.empty() && !status.empty() && status != "skipped") {
        row.verdict = status == "invalid" ? "failed" : status;
        row.reason = "head: " + found->second.reason + " (base does not have it)";
      }
      continue;
    }
    const RowFacts &base = base_facts_[pair.base], &head = head_facts_[pair.head];
    row.level = head.level.empty() ? base.level : head.level;
    row.checks = checks_of(base, head, tolerances);
    if (pair.base != pair.head) row.reason = "was " + pair.base;
    const RowFacts& ill = base.status.empty() ? head : base;
    if (!ill.status.empty()) {
      const bool skipped = ill.status == "skipped" || ill.status == "interrupted";
      row.verdict = skipped ? "skipped" : ill.status == "invalid" ? "failed" : ill.status;
      row.reason = (&ill == &head ? "head: " : "base: ") + ill.reason;
      if (skipped && &ill == &head && base.status.empty()) row.verdict = "missing";
      continue;
    }
    if (same_build_) row.verdict = "same-build";
  }
}

void GateSession::choose_timed() {
  std::vector<gate::TimedRow> rows;
  std::vector<std::string> ids;
  for (size_t i = 0; i < verdict_.rows.size(); ++i) {
    const record::GateRow& row = verdict_.rows[i];
    if (settled(row)) continue;
    timed_.push_back(i);
    ids.push_back(row.id);
    rows.push_back({row.id, row.level == "kernel" ? verdict_.micro_effect : verdict_.macro_effect});
  }
  gate::Rules rules;
  rules.alpha = config_.gate.alpha;
  rules.rounds = static_cast<int>(config_.gate.rounds);
  rules.most_rounds = static_cast<int>(config_.gate.most_rounds);
  rules.certificate = config_.gate.certificate;
  plan_.emplace(std::move(rows), rules, config_.gate.seed);
  log_ = std::make_unique<GateLog>(folder_, ids);
  write_iterations();
  copy_ = slowed_ = base_;
  slowed_.slowdown = config_.gate.certificate_slowdown;
  if (timed_.empty() || !rules.certificate) return;
  copy_.arm.path = (folder_ / "base-copy").string();
  std::error_code failed;
  fs::copy_file(base_.arm.path, copy_.arm.path, fs::copy_options::overwrite_existing, failed);
  require(!failed, copy_.arm.path, " cannot be written: ", failed.message());
}

/// Base's counts, for every arm: a count that head found out for itself would depend on its speed.
void GateSession::write_iterations() const {
  nlohmann::ordered_json calls = nlohmann::ordered_json::object();
  for (const RowPair& pair : pairs_) {
    const auto base = base_facts_.find(pair.base);
    if (base == base_facts_.end() || base->second.iterations <= 0) continue;
    const int64_t least = 1, each = base->second.iterations / kRepetitions;
    calls[pair.base] = std::max(least, each);
    if (!pair.head.empty()) calls[pair.head] = std::max(least, each);
  }
  write_atomically(folder_ / "iterations.json", calls.dump(1) + "\n");
}

void GateSession::play() {
  for (const PlayedRound& round : log_->earlier()) take(round);
  progress_.start(plan_->rounds() + plan_->rounds_to_look());
  const auto start = Clock::now();
  for (int played_here = 0; !stop_requested(); ++played_here) {
    const auto round = plan_->next();
    if (!round) break;
    if (played_here > 0 && seconds_since(start) + round_seconds_ > verdict_.budget) break;
    const PlayedRound played = play_round(*round);
    if (stop_requested()) break;
    log_->add(played);
    take(played);
    write();
  }
  verdict_.seconds += seconds_since(start);
}

PlayedRound GateSession::play_round(const gate::Round& round) {
  PlayedRound played;
  played.times = plan_->no_times();
  const auto start = Clock::now();
  char name[64];
  std::snprintf(name, sizeof name, "round %d, %zu processes", round.number + 1,
                round.visits.size());
  progress_.begin(name);
  for (size_t i = 0; i < round.visits.size() && !stop_requested(); ++i) {
    progress_.tick(static_cast<double>(i) / static_cast<double>(round.visits.size()), "");
    visit(round.visits[i], played);
  }
  played.seconds = seconds_since(start);
  return played;
}

void GateSession::visit(const gate::Visit& visit, PlayedRound& round) {
  const auto lost = [&](const Exclusion& e) { return e.row == visit.row; };
  if (std::any_of(round.excluded.begin(), round.excluded.end(), lost)) return;
  const Binary* const binaries[] = {&base_, &head_, &copy_, &slowed_};
  const auto arm = static_cast<size_t>(visit.arm);
  const RowPair& pair = pairs_[timed_[visit.row]];
  const std::string& name = visit.arm == gate::Arm::kHead ? pair.head : pair.base;
  const auto result = runner_.measure(
      *binaries[arm], {name},
      {"--kernels.repetitions=" + std::to_string(kRepetitions), "--kernels.checked=false",
       "--kernels.iterations=" + (folder_ / "iterations.json").string()},
      "round");
  if (result.ended.stopped) return;
  const auto found = result.facts.find(name);
  if (found != result.facts.end() && found->second.seconds) {
    round.times[arm][visit.row] = *found->second.seconds;
    return;
  }
  const bool told = found != result.facts.end() && !found->second.reason.empty();
  const std::string verdict = told                     ? "failed"
                              : result.ended.hung      ? "hung"
                              : result.ended.crashed() ? "crashed"
                                                       : "failed";
  const std::string why = told ? found->second.reason : result.ended.shown();
  round.excluded.push_back({visit.row, verdict, std::string(gate::kArmNames[arm]) + ": " + why});
}

void GateSession::take(const PlayedRound& round) {
  for (const Exclusion& one : round.excluded) {
    plan_->exclude(one.row);
    record::GateRow& row = verdict_.rows[timed_[one.row]];
    row.verdict = one.verdict, row.reason = one.reason;
  }
  plan_->add(round.times);
  round_seconds_ = round.seconds;
  progress_.end();
  progress_.start(plan_->rounds() + plan_->rounds_to_look());
}

std::string GateSession::cost_of_rest() const {
  const int rounds = plan_->rounds_to_look();
  char text[120];
  std::snprintf(text, sizeof text,
                "%d more rounds, about %.1f minutes, to the next look: --budget or --resume",
                rounds, rounds * round_seconds_ / 60);
  return text;
}

void GateSession::judge(record::GateRow& row, size_t timed) const {
  const record::GateRow judged = plan_->judged_row(timed);
  row.base_seconds = judged.base_seconds;
  row.pairing = judged.pairing, row.confirmation = judged.confirmation;
  row.copy = judged.copy, row.slowed = judged.slowed;
  if (settled(row)) return;  // excluded meanwhile
  row.verdict = judged.verdict.empty() ? "inconclusive" : judged.verdict;
  const auto explain = [&](const std::string& why) {
    row.reason += (row.reason.empty() ? "" : "; ") + why;
  };
  if (!judged.reason.empty()) explain(judged.reason);
  const bool wrong_copy = row.copy.verdict == "regression" || row.copy.verdict == "improvement";
  const bool stands = row.verdict == "regression" && !wrong_copy;
  if (!plan_->armed(timed) && !stands) {
    const std::string copy = row.copy.verdict.empty() ? "not measured" : row.copy.verdict;
    const std::string slowed = row.slowed.verdict.empty() ? "not measured" : row.slowed.verdict;
    explain("its certificate does not hold: base against its copy " + copy +
            ", against base slowed " + (slowed == "regression" ? "found" : slowed) +
            (row.verdict == "same" ? "" : "; base against head " + row.verdict));
    row.verdict = "unarmed";
  }
  if (has_worse(row) && row.verdict != "regression") row.verdict = "worse";
  if (row.verdict == "same" && pairs_[timed_[timed]].base != row.id) row.verdict = "renamed";
}

void GateSession::conclude() {
  verdict_.ended = utc_now();
  verdict_.status = stop_requested() ? "interrupted" : "done";
  bool armed = plan_.has_value() && config_.gate.certificate;
  for (size_t i = 0; i < timed_.size(); ++i) {
    record::GateRow& row = verdict_.rows[timed_[i]];
    judge(row, i);
    armed = armed && plan_->armed(i);
  }
  for (record::GateRow& row : verdict_.rows) {
    if (has_worse(row) && row.verdict == "same-build") row.verdict = "worse";
  }
  verdict_.armed = armed && !timed_.empty();
  std::tie(verdict_.sentence, verdict_.exit_code) = summary_of(verdict_, config_.gate.inconclusive);
  if (plan_ && plan_->rounds_to_look() > 0) verdict_.sentence += "; " + cost_of_rest();
  if (verdict_.status == "interrupted") verdict_.exit_code = kInterrupted;
  clean_up();
}

void GateSession::clean_up() {
  fs::remove_all(folder_ / "round");
  fs::remove(folder_ / "base-copy");
  write();
}

void GateSession::write() {
  write_atomically(folder_ / "verdict.json", to_json(verdict_));
}

}  // namespace dsa::bench
