// Training throughput over sequence length, with the length from which the candidate is faster.
#include "reports/charts.h"
#include "reports/line_chart.h"
#include "reports/vocabulary.h"

namespace dsa::report {

namespace words = vocabulary;

static Crossover throughput_crossing(const TrainingView& training, const Arm& baseline,
                                     const Arm& candidate) {
  std::vector<RatioAt> ratios;
  for (double length : training.lengths()) {
    const auto fast = training.samples(words::kThroughput, candidate, length);
    const auto slow = training.samples(words::kThroughput, baseline, length);
    ratios.push_back({length, paired_ratio(fast, slow)});
  }
  return crossover(ratios);
}

std::vector<Chart> training_throughput(const Material& material) {
  const TrainingView& training = material.training;
  LineChart chart;
  chart.id = "training_throughput";
  chart.unit = "tokens/s";
  int n = 0;
  bool sign_test = true;
  for (const Arm& arm : training.arms()) {
    Line line{arm.name, theme::look(arm.slot), 2.5, {}};
    if (arm.variant.role == words::kFlawed) line.width = 1.5;
    for (double length : training.lengths()) {
      const record::Metric* metric = training.find(words::kThroughput, arm, length);
      if (!metric) continue;
      chart.unit = metric->quantity.unit;
      line.points.push_back({length, summarise(metric->samples)});
      n = std::max(n, line.points.back().value.n);
      sign_test = sign_test && line.points.back().value.sign_test;
    }
    if (!line.points.empty()) chart.lines.push_back(line);
  }
  const Arm *baseline = training.first(words::kBaseline),
            *candidate = training.first(words::kCandidate);
  chart.title = "Training throughput over sequence length";
  if (baseline && candidate) {
    chart.crossing = throughput_crossing(training, *baseline, *candidate);
    chart.title = finding(chart.crossing, candidate->name, baseline->name, training.lengths()) +
                  " (training)";
  }
  chart.y_title = "Training throughput (" + chart.unit + ", log scale)";
  chart.subtitle = "Whole training step: " + statistics_note(n, sign_test, "seeds");
  chart.caption =
      "Tokens of a training step over its time. Read it beside the loss: a faster step "
      "that learns less is no gain.";
  return {draw(chart)};
}

}  // namespace dsa::report
