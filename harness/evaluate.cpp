// All of validation, once. Sums are kept in float64 per position: a mean of means would weigh the
// padded tile's tokens more than the others'.
#include "attention/nvtx.h"
#include "harness/trainer.h"
#include "model/causality.h"
#include "model/head.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace dsa {
namespace {

constexpr int64_t kBuckets = 8;

struct Sums {
  std::vector<double> loss;     ///< by position in the window
  std::vector<int64_t> scored;  ///< tokens, by position
  int64_t correct = 0;
  std::vector<double> exact, examples;  ///< by group: examples all right, and all examples
};

void add_groups(Sums& sums, const Batch& tile, const at::Tensor& correct) {
  if (!tile.groups.defined()) return;
  const at::Tensor exact = (correct | (tile.targets == kNotScored)).all(1).contiguous();
  for (int64_t row = 0; row < exact.size(0); ++row) {
    const auto group = static_cast<size_t>(tile.groups[row].item<int64_t>());
    sums.exact.resize(std::max(sums.exact.size(), group + 1));
    sums.examples.resize(sums.exact.size());
    sums.exact[group] += exact[row].item<bool>() ? 1 : 0;
    ++sums.examples[group];
  }
}

void add(Sums& sums, const Batch& tile, const ModelOutput& output) {
  const int64_t length = tile.targets.size(1);
  const at::Tensor losses = output.token_losses.to(at::kDouble).contiguous();
  const at::Tensor correct = output.correct.contiguous(), targets = tile.targets.contiguous();
  const auto* loss = losses.data_ptr<double>();
  const auto* right = correct.data_ptr<bool>();
  const auto* target = targets.data_ptr<int64_t>();
  sums.loss.resize(std::max(sums.loss.size(), static_cast<size_t>(length)));
  sums.scored.resize(sums.loss.size());
  for (int64_t i = 0; i < targets.numel(); ++i) {
    if (target[i] == kNotScored) continue;
    const auto position = static_cast<size_t>(i % length);
    sums.loss[position] += loss[i];
    ++sums.scored[position];
    sums.correct += right[i];
  }
  add_groups(sums, tile, output.correct);
}

/// Means of equal parts of the window; windows shorter than 8 have as many parts as positions.
std::vector<double> by_position(const Sums& sums) {
  const auto length = static_cast<int64_t>(sums.loss.size());
  const int64_t buckets = std::min(kBuckets, length);
  std::vector<double> loss(static_cast<size_t>(buckets)), scored(loss.size());
  for (int64_t position = 0; position < length; ++position) {
    const auto bucket = static_cast<size_t>(position * buckets / length);
    loss[bucket] += sums.loss[static_cast<size_t>(position)];
    scored[bucket] += static_cast<double>(sums.scored[static_cast<size_t>(position)]);
  }
  for (size_t bucket = 0; bucket < loss.size(); ++bucket) loss[bucket] /= scored[bucket];
  return loss;
}

/// At most `count` windows without padding, evenly spread; undefined if there are none.
Batch spread_windows(const std::vector<Batch>& tiles, int64_t count) {
  std::vector<at::Tensor> tokens, targets;
  for (const Batch& tile : tiles) {
    if (tile.padded) continue;
    for (const auto& row : tile.tokens.unbind()) tokens.push_back(row);
    for (const auto& row : tile.targets.unbind()) targets.push_back(row);
  }
  const auto all = static_cast<int64_t>(tokens.size()), kept = std::min(count, all);
  if (kept == 0) return {};
  for (int64_t i = 0; i < kept; ++i) {
    const auto from = static_cast<size_t>(i * all / kept), to = static_cast<size_t>(i);
    tokens[to] = tokens[from], targets[to] = targets[from];
  }
  tokens.resize(static_cast<size_t>(kept)), targets.resize(static_cast<size_t>(kept));
  return {at::stack(tokens), at::stack(targets)};
}

}  // namespace

std::vector<SelectionQuality> judged_selections(Transformer& model, const std::vector<Batch>& tiles,
                                                int64_t count) {
  const Batch windows = spread_windows(tiles, count);
  if (!windows.tokens.defined()) return {};
  const at::NoGradGuard no_grad;
  const EvalMode eval(model);
  const auto layers = model.attention_layers();
  std::vector<AttentionCapture> captured(layers.size());
  for (size_t i = 0; i < layers.size(); ++i) layers[i]->capture = &captured[i];
  model.forward(windows.tokens, windows.targets);
  for (const auto& layer : layers) layer->capture = nullptr;
  std::vector<SelectionQuality> all;
  for (const AttentionCapture& layer : captured) {
    if (!layer.q.defined()) return {};
    const auto quality = quality_of(layer);
    if (!quality) return {};
    all.push_back(*quality);
  }
  return all;
}

Evaluation evaluate(Transformer& model, const std::vector<Batch>& tiles, double bytes_per_token,
                    int64_t quality_windows) {
  const at::NoGradGuard no_grad;
  const EvalMode eval(model);
  Sums sums;
  for (const Batch& tile : tiles) add(sums, tile, model.forward(tile.tokens, tile.targets));
  Evaluation result;
  result.selection = judged_selections(model, tiles, quality_windows);
  double loss = 0;
  for (const double part : sums.loss) loss += part;
  for (const int64_t part : sums.scored) result.tokens += part;
  require(result.tokens > 0, "validation has no scored token; bring more data");
  const auto tokens = static_cast<double>(result.tokens);
  result.loss = loss / tokens;
  result.accuracy = static_cast<double>(sums.correct) / tokens;
  if (bytes_per_token > 0) {
    result.bits_per_byte = result.loss / std::numbers::ln2 / bytes_per_token;
  }
  result.loss_by_position = by_position(sums);
  for (size_t group = 0; group < sums.exact.size(); ++group) {
    result.exact_by_group.push_back(sums.exact[group] / sums.examples[group]);
  }
  return result;
}

}  // namespace dsa
