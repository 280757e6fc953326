#include "harness/gate/plan.h"

#include "harness/gate/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace dsa::gate {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
/// Numbers of rounds at which a question is looked at, in units of the first look.
constexpr std::array<double, kLooks> kLookAt = {1, 1.5, 2, 3, 4};
constexpr double kConfirmAlpha = 0.05;

double middle(std::vector<double> values) {
  if (values.empty()) return kNaN;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

std::string percent(double ratio) {
  char text[32];
  std::snprintf(text, sizeof text, "%+.1f %%", 100 * (ratio - 1));
  return text;
}

}  // namespace

Plan::Plan(std::vector<TimedRow> rows, const Rules& rules, uint64_t seed)
    : rules_(rules),
      seed_(seed),
      row_alpha_(rules.alpha / static_cast<double>(std::max<size_t>(rows.size(), 1))) {
  const int first = least_rounds(rules.rounds, row_alpha_);
  const int most = std::max(first, rules.most_rounds);
  for (size_t i = 0; i < looks_.size(); ++i) {
    looks_[i] = std::min(most, static_cast<int>(std::ceil(kLookAt[i] * first)));
  }
  for (TimedRow& row : rows) {
    State& state = states_.emplace_back();
    state.row = std::move(row);
    state.answers[kHead].open = rules.compare;
    state.answers[kCopy].open = state.answers[kSlowed].open = rules.certificate;
  }
}

Arm Plan::arm_of(Question question) {
  if (question == kCopy) return Arm::kCopy;
  return question == kSlowed ? Arm::kSlowed : Arm::kHead;
}

std::optional<Round> Plan::next() const {
  Round round;
  round.number = rounds_;
  // A generator of the round's own: a resumed gate goes on with the same orders.
  std::mt19937_64 generator(seed_ * 1'000'003 + static_cast<uint64_t>(rounds_));
  for (size_t row = 0; row < states_.size(); ++row) {
    std::array<bool, kArmNames.size()> wanted{};
    for (size_t q = 0; q < kQuestions; ++q) {
      if (states_[row].excluded || !states_[row].answers[q].open) continue;
      wanted[static_cast<size_t>(Arm::kBase)] = true;
      wanted[static_cast<size_t>(arm_of(static_cast<Question>(q)))] = true;
    }
    Visit visit{row, {}, generator()};
    for (size_t arm = 0; arm < wanted.size(); ++arm) {
      if (wanted[arm]) visit.arms.push_back(static_cast<Arm>(arm));
    }
    if (!visit.arms.empty()) round.visits.push_back(visit);
  }
  return round.visits.empty() ? std::nullopt : std::optional(round);
}

Times Plan::no_times() const {
  Times times;
  for (auto& of_arm : times) of_arm.assign(states_.size(), kNaN);
  return times;
}

void Plan::add(const Times& times) {
  ++rounds_;
  for (size_t row = 0; row < states_.size(); ++row) {
    State& state = states_[row];
    const double base = times[static_cast<size_t>(Arm::kBase)][row];
    if (state.excluded || !(base > 0)) continue;
    state.base_seconds.push_back(base);
    // Which questions were open when the round began: a confirmation opened by it begins with the next.
    std::array<bool, kQuestions> open{};
    for (size_t q = 0; q < open.size(); ++q) open[q] = state.answers[q].open;
    for (size_t q = 0; q < open.size(); ++q) {
      const auto question = static_cast<Question>(q);
      const double other = times[static_cast<size_t>(arm_of(question))][row];
      if (!open[q] || !(other > 0)) continue;
      state.answers[q].log_ratios.push_back(std::log(other / base));
      look(state, question);
    }
  }
}

record::Pairing Plan::judged_now(const State& state, Question question) const {
  const auto& log_ratios = state.answers[question].log_ratios;
  const double effect = state.row.effect;
  if (question == kHead) return judged(log_ratios, row_alpha_, effect);
  if (question != kConfirm) return judged(log_ratios, rules_.alpha, effect);
  record::Pairing pairing = judged(log_ratios, kConfirmAlpha, effect);
  if (pairing.verdict == "same" || !(pairing.low > 1)) return pairing;
  std::vector<double> both = state.answers[kHead].log_ratios;
  both.insert(both.end(), log_ratios.begin(), log_ratios.end());
  const bool large = judged(both, kConfirmAlpha, effect).ratio > 1 + effect;
  pairing.verdict = large ? "regression" : "inconclusive";
  return pairing;
}

void Plan::look(State& state, Question question) {
  Answers& answers = state.answers[question];
  const int n = static_cast<int>(answers.log_ratios.size());
  if (std::find(looks_.begin(), looks_.end(), n) == looks_.end()) return;
  answers.pairing = judged_now(state, question);
  answers.open = answers.pairing.verdict == "inconclusive" && n < looks_.back();
  if (question == kHead && answers.pairing.verdict == "regression") {
    state.answers[kConfirm].open = true;
  }
}

void Plan::exclude(size_t row, Arm arm) {
  State& state = states_[row];
  const bool certifies = arm == Arm::kCopy || arm == Arm::kSlowed;
  state.excluded = state.excluded || !certifies;
  for (size_t q = 0; q < kQuestions; ++q) {
    if (arm_of(static_cast<Question>(q)) == arm) state.answers[q].open = false;
  }
}

int Plan::next_look(int rounds) const {
  const auto look = std::upper_bound(looks_.begin(), looks_.end(), rounds);
  return look == looks_.end() ? looks_.back() : *look;
}

int Plan::rounds_to_look() const {
  int most = 0;
  for (const State& state : states_) {
    for (const Answers& answers : state.answers) {
      const int n = static_cast<int>(answers.log_ratios.size());
      if (!state.excluded && answers.open) most = std::max(most, next_look(n) - n);
    }
  }
  return most;
}

bool Plan::spent() const {
  return std::ranges::any_of(states_, [&](const State& state) {
    return !state.excluded && std::ranges::any_of(state.answers, [&](const Answers& answers) {
      const int n = static_cast<int>(answers.log_ratios.size());
      return answers.pairing.verdict == "inconclusive" && n >= looks_.back();
    });
  });
}

bool Plan::armed(size_t row) const {
  if (!rules_.certificate) return true;
  const auto& answers = states_[row].answers;
  return answers[kCopy].pairing.verdict == "same" &&
         answers[kSlowed].pairing.verdict == "regression";
}

record::GateRow Plan::judged_row(size_t row) const {
  const State& state = states_[row];
  record::GateRow out;
  out.id = state.row.id;
  out.base_seconds = middle(state.base_seconds);
  const auto pairing_of = [&](Question question) {
    const Answers& answers = state.answers[question];
    const bool begun = !answers.pairing.verdict.empty() || !answers.log_ratios.empty();
    if (!begun) return record::Pairing{};
    // Between looks the numbers are shown, and nothing is concluded from them.
    if (!answers.pairing.verdict.empty() && !answers.open) return answers.pairing;
    record::Pairing open = judged_now(state, question);
    open.verdict = "inconclusive";
    return open;
  };
  out.pairing = pairing_of(kHead);
  out.confirmation = pairing_of(kConfirm);
  out.copy = pairing_of(kCopy);
  out.slowed = pairing_of(kSlowed);
  out.verdict = out.pairing.verdict;
  if (out.verdict == "regression" && out.confirmation.verdict != "regression") {
    out.reason = "a first batch said " + percent(out.pairing.ratio) + ", a second one says " +
                 (out.confirmation.rounds > 0 ? percent(out.confirmation.ratio)
                                              : std::string("nothing yet")) +
                 ", which does not confirm it";
    out.verdict = out.confirmation.verdict == "same" ? "same" : "inconclusive";
  }
  return out;
}

}  // namespace dsa::gate
