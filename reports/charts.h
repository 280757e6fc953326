// The charts of a report, as a table: adding one = writing a function and adding a line to
// charts.cpp. A function returns nothing when the record holds nothing to draw.
#pragma once
#include "reports/kernel_view.h"
#include "reports/task_view.h"
#include "reports/theme.h"
#include "reports/training_view.h"

namespace dsa::report {

/// What a chart may look at.
struct Material {
  const record::Run& run;
  TrainingView training;
  KernelView kernels;
  std::vector<TaskView> tasks;
  explicit Material(const record::Run& r) : run(r), training(r), kernels(r), tasks(task_views(r)) {}
};

enum class Section { kTraining, kTasks, kKernels, kAnatomy };
struct ChartKind {
  Section section;
  std::vector<Chart> (*make)(const Material&);
};
const std::vector<ChartKind>& chart_kinds();
std::vector<Chart> charts(const Material& material, Section section);

std::vector<Chart> length_comparison(const Material&);
std::vector<Chart> training_throughput(const Material&);
std::vector<Chart> loss_curves(const Material&);
std::vector<Chart> stage_split(const Material&);
std::vector<Chart> loss_by_position(const Material&);
std::vector<Chart> selection_curves(const Material&);
std::vector<Chart> anatomy_chart(const Material&);
std::vector<Chart> task_accuracy(const Material&);
std::vector<Chart> task_learning(const Material&);
std::vector<Chart> task_depths(const Material&);
std::vector<Chart> kernel_time(const Material&);
std::vector<Chart> kernel_memory(const Material&);
std::vector<Chart> kernel_speed_up(const Material&);

/// "median of 3 seeds, band = smallest to largest", for captions; `noun` in the plural, with an s.
std::string statistics_note(int n, bool sign_test, const std::string& noun);

}  // namespace dsa::report
