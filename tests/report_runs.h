// Small runs for report tests, a line a fact.
#pragma once
#include "harness/record/record.h"

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace dsa::record {

inline Run empty_run() {
  Run run;
  run.id = "test";
  run.status = "done";
  run.variants = {{"plain", "all keys", "baseline", 0},
                  {"picky", "some keys", "candidate", 1},
                  {"near", "recent keys", "control", 2},
                  {"leaky", "sees the future", "flawed", 3}};
  run.backends = {
      {"mine", "ours", "ours"}, {"theirs", "a peer", "peer"}, {"truth", "slow", "oracle"}};
  return run;
}

inline void add_training(Run& run, const std::string& variant, int length,
                         const std::vector<double>& losses, const std::vector<double>& step_times) {
  const std::map<std::string, std::string> labels = {
      {"level", "training"}, {"variant", variant}, {"L", std::to_string(length)}, {"id", variant}};
  run.metrics.push_back(
      {{"best_validation_loss", "nats/token", Quantity::Better::kLower}, labels, losses});
  run.metrics.push_back(
      {{"final_validation_loss", "nats/token", Quantity::Better::kLower}, labels, losses});
  run.metrics.push_back({{"step_time", "s", Quantity::Better::kLower}, labels, step_times});
  std::vector<double> throughput;
  for (double t : step_times) throughput.push_back(length / t);
  run.metrics.push_back(
      {{"throughput", "tokens/s", Quantity::Better::kHigher}, labels, throughput});
}

/// One seed's validation losses {step, loss} and the seconds of each of its steps.
inline void add_curves(Run& run, const std::string& variant, int length, const std::string& seed,
                       const std::vector<std::pair<int, double>>& losses,
                       const std::vector<double>& step_times) {
  const std::map<std::string, std::string> labels = {
      {"level", "training"}, {"variant", variant}, {"L", std::to_string(length)}, {"seed", seed}};
  Series loss{{"step", "1"}, {"validation_loss", "nats/token"}, labels, {}, {}};
  for (const auto& [step, value] : losses) {
    loss.xs.push_back(step);
    loss.ys.push_back(value);
  }
  Series time{{"step", "1"}, {"step_time", "s"}, labels, {}, step_times};
  for (size_t i = 1; i <= step_times.size(); ++i) time.xs.push_back(static_cast<double>(i));
  run.series.push_back(loss);
  run.series.push_back(time);
}

inline void add_kernel(Run& run, const std::string& family, const std::string& backend, int length,
                       const std::vector<double>& times, int top_k = 0) {
  std::map<std::string, std::string> labels = {
      {"level", "kernel"},
      {"family", family},
      {"pass", "fwd"},
      {"backend", backend},
      {"L", std::to_string(length)},
      {"dtype", "f32"},
      {"id", family + backend + std::to_string(length) + "/" + std::to_string(top_k)}};
  if (top_k > 0) labels["K"] = std::to_string(top_k);
  run.metrics.push_back({{"time", "s", Quantity::Better::kLower}, labels, times});
}

}  // namespace dsa::record
