// What the numbers decide, in sentences: training against the baseline and the controls, whole DSA
// against dense kernels. Undecided is a verdict too.
#pragma once
#include "reports/comparison.h"
#include "reports/kernel_view.h"
#include "reports/text.h"

#include <string>
#include <vector>

namespace dsa::report {

/// Speeds that differ by less are the same: docs/reports.md says why.
inline constexpr double kSpeedMargin = 0.02;  ///< 2 %

const char* name(Finding finding);         ///< "equivalent"
std::string seeds_text(int n, int asked);  ///< "n = 3 seeds", "n = 2 of 3 seeds"
Text reading(const Summary& speed_up);     ///< of kernels: "DSA faster", "open"

std::vector<Text> verdict_sentences(const record::Run& run, const TrainingView& training,
                                    const KernelView& kernels);
/// Flawed variants, controls that do as well as the candidate, runs that did not finish, samples
/// that are not finite.
std::vector<Text> warnings(const record::Run& run, const TrainingView& training);

}  // namespace dsa::report
