// What a run had learned after so many seconds of training: its validation losses over the time of
// its own steps. Evaluations and checkpoints cost no time here, whoever makes more of them.
#pragma once
#include "reports/training_view.h"

#include <optional>

namespace dsa::report {

/// One seed of one arm at one length.
struct LossOverTime {
  std::vector<double> seconds, losses;  ///< of each evaluation, seconds increasing
  double total = 0;                     ///< seconds of all steps; 0 = unknown
};
/// Empty where the record lacks the time of a step, or every validation loss.
LossOverTime loss_over_time(const TrainingView& training, const Arm& arm, double length,
                            const std::string& seed);

struct LossAt {
  double loss = 0;
  double error = 0;  ///< by how much interpolation may be wrong; 0 at an evaluation
};
/// The straight line between the two evaluations around that moment. Its error is what a parabola
/// through a third one makes of it; with two evaluations only, all that lies between them. Nothing
/// before the first and after the last evaluation.
std::optional<LossAt> loss_at(const LossOverTime& run, double seconds);

/// Why the training times of this arm must decide nothing, or "": other processes had its CPUs, it
/// was resumed, or its seeds took different times for the same work.
std::string time_doubt(const TrainingView& training, const Arm& arm, double length,
                       const std::vector<std::string>& seeds);

}  // namespace dsa::report
