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

/// Names of rows of one command: a word of a command line may have 128 KiB.
constexpr size_t kNameBytes = 100'000;

/// As many of the first rows as one command may name.
std::vector<std::string> first_of(const std::vector<std::string>& rows) {
  std::vector<std::string> first;
  size_t bytes = 0;
  for (const std::string& row : rows) {
    bytes += row.size() + 1;
    if (!first.empty() && bytes > kNameBytes) break;
    first.push_back(row);
  }
  return first;
}

/// What ended a part of the checks, as `checked` left it: status and reason of the row it died in.
std::pair<std::string, std::string> ending_in(const fs::path& file) {
  const std::string text = whole_text(file);
  const size_t line = text.find('\n');
  if (line == 0) return {"failed", "its check left no result"};
  return {text.substr(0, line), text.substr(line + 1)};
}

/// A verdict that was reached without timing.
bool settled(const record::GateRow& row) {
  return !row.verdict.empty();
}

/// The verdict of a row that one of the two, or both, did not measure; false if both did.
bool judge_unmeasured(record::GateRow& row, const RowFacts& base, const RowFacts& head) {
  const auto declined = [](const RowFacts& facts) { return facts.status == "skipped"; };
  const auto broke = [&](const RowFacts& facts) {
    return !facts.status.empty() && !declined(facts);
  };
  // A head that breaks is to blame, whatever base did.
  const bool of_head = broke(head) || (declined(head) && !broke(base));
  const RowFacts& ill = of_head ? head : base;
  if (ill.status.empty()) return false;
  row.reason = (of_head ? "head: " : "base: ") + ill.reason;
  if (broke(ill)) {
    const bool is_ending = ill.status == "crashed" || ill.status == "hung";
    row.verdict = is_ending ? ill.status : "failed";
  } else {
    row.verdict = base.status.empty() ? "missing" : head.status.empty() ? "new" : "skipped";
  }
  // A number that was not made is no worse one.
  if (declined(base) || declined(head)) row.checks.clear();
  return true;
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
  may_write_ = config.resume.empty();
  head_.slowdown = config.inject_slowdown;
  same_build_ = base_.is_code && base_.arm.text_hash == head_.arm.text_hash && !gate.time_equal &&
                config.inject_slowdown <= 1;
  verdict_.id = folder_.filename().string();
  verdict_.command = command;
  if (verdict_.started.empty()) verdict_.started = utc_now();
  verdict_.alpha = gate.alpha;
  verdict_.micro_effect = share_of("--gate.min-effect", gate.min_effect);
  verdict_.macro_effect = share_of("--gate.macro-min-effect", gate.macro_min_effect);
  verdict_.slowdown = gate.certificate ? gate.certificate_slowdown : 1;
  verdict_.budget = dsa::seconds_of("--gate.budget", gate.budget);
  verdict_.machine = machine_facts();
  verdict_.machine["pinned_to"] = runner_.cores();
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
  const auto require_same = [&](const std::string& fact, const std::string& now) {
    const auto found = before.machine.find(fact);
    const std::string then = found == before.machine.end() ? "unknown" : found->second;
    require(then == now, "--resume ", config_.resume, " was timed with ", fact, " = ", then,
            ", and it is ", now, " here; go on where it began, or start a new gate");
  };
  require_same("cpu", machine_facts()["cpu"]);
  require_same("pinned_to", runner_.cores());
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
    const std::vector<std::string> rows_now = first_of(left);
    auto result = before ? runner_.left_in(where)
                         : runner_.measure(unslowed, rows_now, {"--kernels.repetitions=1"}, where,
                                           static_cast<double>(rows_now.size()));
    if (result.ended.stopped) return all;
    if (!result.git.empty()) binary.arm.git = result.git;
    if (!result.settings.empty()) settings_there_[binary.arm.name] = result.settings;
    const auto known = [&](const std::string& id) {
      const auto found = result.facts.find(id);
      return found != result.facts.end() &&
             (found->second.seconds || !found->second.status.empty());
    };
    const auto culprit = std::find_if_not(rows_now.begin(), rows_now.end(), known);
    if (culprit != rows_now.end()) {
      RowFacts& row = result.facts[*culprit];
      row.status = result.ended.hung ? "hung" : result.ended.crashed() ? "crashed" : "failed";
      row.reason = binary.arm.name + " " + result.ended.shown();
      if (before) std::tie(row.status, row.reason) = ending_in(folder_ / (where + ".done"));
    }
    // What hung is tried again by --resume, which may give it a larger --time-limit.
    if (!before && !result.ended.hung) {
      const RowFacts none, &row = culprit == rows_now.end() ? none : result.facts[*culprit];
      write_atomically(folder_ / (where + ".done"), row.status + "\n" + row.reason);
    }
    for (const auto& [id, facts] : result.facts) all[id] = facts;
    std::erase_if(left, known);
  }
  progress_.end();
  return all;
}

void GateSession::judge_untimed() {
  const auto tolerances = tolerances_of(config_.gate);
  const std::string idle = quantities_of_none(tolerances, base_facts_);
  if (!idle.empty())
    progress_.print("note: no row of base has " + idle + ", so nothing is checked there");
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
    if (judge_unmeasured(row, base, head)) continue;
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
  if (!timed_.empty()) start_race();
}

void GateSession::start_race() {
  std::vector<RaceRow> rows;
  for (const size_t place : timed_) {
    const RowPair& pair = pairs_[place];
    rows.push_back({pair.base, pair.head, base_facts_[pair.base].iterations});
  }
  Binary copy = base_, slowed = base_;
  slowed.slowdown = config_.gate.certificate_slowdown;
  if (config_.gate.certificate) {
    copy.arm.path = (folder_ / "base-copy").string();
    std::error_code failed;
    fs::copy_file(base_.arm.path, copy.arm.path, fs::copy_options::overwrite_existing, failed);
    require(!failed, copy.arm.path, " cannot be written: ", failed.message());
  }
  race_.emplace(runner_, folder_, std::move(rows), std::array{base_, head_, copy, slowed});
}

void GateSession::play() {
  for (const PlayedRound& round : log_->earlier()) take(round);
  may_write_ = true;
  progress_.start(plan_->rounds() + plan_->rounds_to_look());
  const auto start = Clock::now();
  for (int played_here = 0; !stop_requested(); ++played_here) {
    const auto round = plan_->next();
    if (!round) break;
    if (played_here > 0 && seconds_since(start) + round_seconds_ > verdict_.budget) break;
    const PlayedRound played = race_->play(*round, progress_);
    if (stop_requested()) break;
    log_->add(played);
    take(played);
    write();
  }
  verdict_.seconds += seconds_since(start);
}

void GateSession::take(const PlayedRound& round) {
  for (const Exclusion& one : round.excluded) {
    plan_->exclude(one.row, one.arm);
    record::GateRow& row = verdict_.rows[timed_[one.row]];
    const bool compared = one.arm == gate::Arm::kBase || one.arm == gate::Arm::kHead;
    const bool base_broke = row.reason.starts_with("base: ");
    if (compared && (!settled(row) || (one.arm == gate::Arm::kHead && base_broke))) {
      row.verdict = one.verdict, row.reason = one.reason;  // begins with the arm to blame
    } else {
      row.reason += (row.reason.empty() ? "" : "; ") + one.reason;
    }
  }
  plan_->add(round.times);
  round_seconds_ = round.seconds;
  progress_.end();
  progress_.start(plan_->rounds() + plan_->rounds_to_look());
}

/// What a row that stays open needs.
std::string GateSession::advice() const {
  if (!plan_) return "";
  const int rounds = plan_->rounds_to_look();
  char text[120];
  std::snprintf(text, sizeof text,
                "; %d more rounds, about %.1f minutes, to the next look: --budget or --resume",
                rounds, rounds * round_seconds_ / 60);
  if (rounds > 0) return text;
  const auto answered = [](const record::GateRow& row) {
    return row.verdict == "unarmed" && !row.copy.verdict.empty() && !row.slowed.verdict.empty();
  };
  if (!plan_->spent() && std::ranges::any_of(verdict_.rows, answered))
    return "; more rounds do not arm a row whose certificate failed: a larger --kernels.min-time, "
           "--cores or a quieter machine, in a new gate";
  const auto broken = [](const record::GateRow& row) {
    return row.reason.starts_with("base: ") && row.verdict != "new";
  };
  if (std::ranges::any_of(verdict_.rows, broken))
    return "; base itself broke in a row: mend it, or compare with another base";
  return plan_->spent()
             ? "; all " + std::to_string(plan_->most_rounds()) +
                   " rounds are done: a larger --kernels.min-time or --gate.most-rounds in a new "
                   "gate, or a quieter machine"
             : "";
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
  size_t whole = 0;
  for (size_t i = 0; i < timed_.size(); ++i) {
    record::GateRow& row = verdict_.rows[timed_[i]];
    const bool broke = settled(row);  // in a round: nothing is left to certify
    judge(row, i);
    whole += !broke;
    armed = armed && (broke || plan_->armed(i));
  }
  for (record::GateRow& row : verdict_.rows) {
    if (has_worse(row) && row.verdict == "same-build") row.verdict = "worse";
  }
  verdict_.armed = armed && whole > 0;
  std::tie(verdict_.sentence, verdict_.exit_code) = summary_of(verdict_, config_.gate.inconclusive);
  verdict_.sentence += advice();
  if (verdict_.status == "interrupted") verdict_.exit_code = kInterrupted;
  clean_up();
}

void GateSession::clean_up() {
  fs::remove_all(folder_ / "round");
  fs::remove(folder_ / "base-copy");
  write();
}

void GateSession::write() {
  if (!may_write_) return;
  write_atomically(folder_ / "verdict.json", to_json(verdict_));
}

}  // namespace dsa::bench
