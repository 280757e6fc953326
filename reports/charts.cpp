#include "reports/charts.h"

namespace dsa::report {

const std::vector<ChartKind>& chart_kinds() {
  static const std::vector<ChartKind> kinds = {
      {Section::kTraining, length_comparison}, {Section::kTraining, training_throughput},
      {Section::kTraining, loss_curves},       {Section::kTraining, loss_by_position},
      {Section::kTraining, selection_curves},  {Section::kTraining, stage_split},
      {Section::kTasks, task_accuracy},        {Section::kTasks, task_learning},
      {Section::kTasks, task_depths},          {Section::kAnatomy, anatomy_chart},
      {Section::kKernels, kernel_time},        {Section::kKernels, kernel_speed_up},
      {Section::kKernels, kernel_memory}};
  return kinds;
}

std::vector<Chart> charts(const Material& material, Section section) {
  std::vector<Chart> out;
  for (const ChartKind& kind : chart_kinds()) {
    if (kind.section != section) continue;
    for (Chart& chart : kind.make(material)) {
      if (!chart.id.empty()) out.push_back(std::move(chart));
    }
  }
  return out;
}

std::string statistics_note(int n, bool sign_test, const std::string& noun) {
  if (n <= 1) return "one " + noun.substr(0, noun.size() - 1) + " each, so no interval";
  return "median of " + std::to_string(n) + " " + noun + ", interval = " +
         (sign_test ? "95 % sign-test interval of the median" : "smallest to largest");
}

}  // namespace dsa::report
