#include "harness/sparsity.h"

#include "attention/cpu/scratch.h"
#include "attention/nvtx.h"
#include "harness/machine.h"
#include "harness/memory.h"
#include "harness/recorder.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

namespace dsa {
namespace {

struct Input {
  at::Tensor hidden, positions;
};

Input input_of(int64_t length, int64_t width) {
  const at::Generator random = at::detail::createCPUGenerator(1);
  return {at::randn({1, length, width}, random), at::arange(length, at::TensorOptions(at::kLong))};
}

double attention_seconds(AttentionLayer& layer, const Input& input) {
  const nvtx::StageClock clock;
  layer.forward(input.hidden, input.positions);
  return clock.seconds(nvtx::Category::kAttention);
}

/// Peak of one call, scratch included. The lesser of two: what the first leaves behind in the heap (a
/// hole that the next tensor does not fit) is no memory the layer needs.
std::optional<double> layer_bytes(AttentionLayer& layer, const Input& input) {
  std::optional<double> least;
  for (int i = 0; i < 2; ++i) {
    cpu::release_scratch();  // of shorter lengths, which would hide as much of this one's
    const auto bytes = peak_bytes([&] { layer.forward(input.hidden, input.positions); });
    if (!bytes) return std::nullopt;
    least = std::min(least.value_or(*bytes), *bytes);
  }
  return least;
}

/// Bytes of the next length if the last doubling goes on; 0 with fewer than two points.
double predicted(const std::vector<AuditEvidence::Point>& points, double length) {
  if (points.size() < 2) return 0;
  const auto &a = points[points.size() - 2], &b = points.back();
  const double slope = std::log(b.bytes / a.bytes) / std::log(b.length / a.length);
  return b.bytes * std::pow(length / b.length, slope);
}

/// Median seconds of interleaved repetitions; others' CPU time meanwhile goes into the curve.
void time_points(AttentionLayer& layer, int64_t width, int repetitions,
                 const std::function<bool()>& stop_requested, SparsityCurve& curve) {
  auto& points = curve.points;
  std::vector<std::vector<double>> seconds(points.size());
  const CrowdWatch watch;
  for (int repetition = 0; repetition <= repetitions; ++repetition) {
    for (size_t i = 0; i < points.size() && !stop_requested(); ++i) {
      const double taken =
          attention_seconds(layer, input_of(static_cast<int64_t>(points[i].length), width));
      if (repetition > 0) seconds[i].push_back(taken);  // the first warms up
    }
  }
  for (size_t i = 0; i < points.size(); ++i) points[i].seconds = median(seconds[i]);
  if (const auto crowd = watch.crowd(at::get_num_threads())) curve.missing_cpus = crowd->missing;
}

}  // namespace

SparsityCurve sparsity_curve(const std::string& name, const AttentionConfig& asked,
                             const std::vector<int64_t>& lengths, int repetitions,
                             double memory_budget, const std::function<bool()>& stop_requested) {
  AttentionConfig attention = asked;
  attention.top_k = kSparsityTopK;
  attention.dropout = 0;
  const at::NoGradGuard no_grad;
  const auto layer = variant(name).make(attention);
  layer->eval();
  Problem problem;
  problem.heads = attention.n_heads;
  problem.kv_heads = attention.n_kv_heads;
  problem.qk_width = problem.v_width = attention.head_width;
  problem.top_k = kSparsityTopK;
  SparsityCurve curve;
  for (const int64_t length : lengths) {
    if (stop_requested() || predicted(curve.points, static_cast<double>(length)) > memory_budget) {
      break;
    }
    const Input input = input_of(length, attention.d_model);
    const auto bytes = layer_bytes(*layer, input);
    problem.queries = problem.keys = length;
    curve.points.push_back({static_cast<double>(length), 0, bytes.value_or(AuditEvidence::kUnknown),
                            cost(Op::kSparse, Pass::kForward, problem).flops});
  }
  time_points(*layer, attention.d_model, repetitions, stop_requested, curve);
  return curve;
}

}  // namespace dsa
