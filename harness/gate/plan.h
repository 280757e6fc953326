// Which binary times which benchmarks in which round, and what the rounds say. It starts no process
// and reads no clock: bench/gate*.cpp does, and a test does it with made-up times.
//
// A round times row after row, and of a row every arm, each in a process of its own, in alternating slices of
// random order (bench/gate_process.h): what drifts or flips within seconds then cancels. From the times of a
// round each open question of a row gets one ln(arm / base). Questions: is head slower than base; if so, do
// later rounds confirm it; and for the certificate, is base as fast as its copy, and is a slowed base seen.
//
// The first question is asked at alpha / rows; a confirmation, which needs a finding first, at 5 %
// with the effect in both batches together; a certificate, which accuses nobody, at alpha. Questions
// are looked at after certain numbers of rounds only, so that looking often does not make noise a
// finding: with five looks each a false regression has a chance of at most (5 alpha / 2) (5 * 5 % / 2),
// 0.3 % at alpha = 1 %.
#pragma once
#include "harness/record/gate.h"

#include <array>
#include <cstdint>
#include <optional>

namespace dsa::gate {

enum class Arm { kBase, kHead, kCopy, kSlowed };
inline constexpr std::array<const char*, 4> kArmNames = {"base", "head", "copy", "slowed"};

inline constexpr int kLooks = 5;

struct Rules {
  double alpha = 0.01;  ///< of all rows together
  int rounds = 15;      ///< before the first look, at least
  int most_rounds = 60;
  bool compare = true;      ///< is there a head to time?
  bool certificate = true;  ///< time a copy and a slowed base as well?
};

struct TimedRow {
  std::string id;
  double effect = 0.03;  ///< least relative change that counts
};

/// A row, and the arms that time it together.
struct Visit {
  size_t row;
  std::vector<Arm> arms;
  uint64_t seed;  ///< of the orders in which they have their turns
};

struct Round {
  int number = 0;
  std::vector<Visit> visits;  ///< in the order they run
};

/// [arm][row]: seconds of base, and of another arm those times its ratio to base; NaN where nothing was
/// timed.
using Times = std::array<std::vector<double>, kArmNames.size()>;

class Plan {
 public:
  Plan(std::vector<TimedRow> rows, const Rules& rules, uint64_t seed);

  /// The next round, or nothing when every question has its answer.
  std::optional<Round> next() const;
  void add(const Times& times);  ///< of the round that next() gave
  /// The arm times the row no more: it crashed, say. Without base or head nothing of the row is timed;
  /// without copy or slowed it has no certificate.
  void exclude(size_t row, Arm arm);

  Times no_times() const;
  /// Rounds until the next look of the question that is furthest from it; 0 when all are answered.
  int rounds_to_look() const;
  int rounds() const { return rounds_; }
  int most_rounds() const { return looks_.back(); }
  /// Is a question undecided after the last look it can have?
  bool spent() const;

  /// pairing, confirmation, copy, slowed and base_seconds of the row, and the verdict they make.
  record::GateRow judged_row(size_t row) const;
  /// Does the certificate hold for the row? Always without one.
  bool armed(size_t row) const;

 private:
  enum Question { kHead, kConfirm, kCopy, kSlowed, kQuestions };
  struct Answers {
    bool open = false;
    std::vector<double> log_ratios;
    record::Pairing pairing;
  };
  struct State {
    TimedRow row;
    bool excluded = false;
    std::vector<double> base_seconds;
    std::array<Answers, kQuestions> answers;
  };
  static Arm arm_of(Question question);
  record::Pairing judged_now(const State& state, Question question) const;
  void look(State& state, Question question);
  int next_look(int rounds) const;

  Rules rules_;
  uint64_t seed_;
  double row_alpha_;
  std::array<int, kLooks> looks_;
  int rounds_ = 0;
  std::vector<State> states_;
};

}  // namespace dsa::gate
