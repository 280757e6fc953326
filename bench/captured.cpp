#include "bench/captured.h"

#include "attention/rope.h"
#include "attention/selection_quality.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <set>

namespace dsa::bench {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLongest = 32768;  // four times what the model was trained at
constexpr int64_t kNeighbours = 16;

fs::path weights_file(const KernelConfig& config) {
  if (!config.captured_weights.empty()) return config.captured_weights;
  return project_file("presets/captured.safetensors");
}

/// What rows ask of a file of weights before anything is measured; read once a process.
struct Known {
  std::string problem;  ///< in words, or empty
  int64_t index_heads = 0, index_width = 0, layers = 0, text = 0;
};

Known look_up(const fs::path& file) {
  if (!fs::exists(file)) {
    return {"there are no weights at " + file.string() +
            "; give --kernels.captured-weights, or train presets/captured.toml"};
  }
  try {
    const RunConfig trained = weights_source(file).config;
    return {"", trained.attention.index_heads, trained.attention.index_width,
            trained.model.n_layers, load_corpus(trained.data).validation.numel()};
  } catch (const Error& error) {
    return {error.what()};
  }
}

const Known& known(const fs::path& file) {
  static std::map<fs::path, Known> all;
  const auto found = all.find(file);
  return found != all.end() ? found->second : all.emplace(file, look_up(file)).first->second;
}

/// Sorted rows of one query.
std::vector<int32_t> row_of(const ops::Selection& selection, int64_t query) {
  const at::Tensor row = selection.indices[0][query].contiguous();
  const auto* ids = row.const_data_ptr<int32_t>();
  return {ids, ids + selection.count[0][query].item<int32_t>()};
}

double union_of(const ops::Selection& selection, const RowTile& run) {
  std::set<int32_t> together;
  for (int64_t i = 0; i < run.rows; ++i) {
    const auto row = row_of(selection, run.first + i);
    together.insert(row.begin(), row.end());
  }
  return static_cast<double>(together.size());
}

}  // namespace

std::optional<SelectionFacts> facts_of(const AttentionCapture& layer) {
  const int64_t length = layer.q.size(1), top_k = layer.selection.indices.size(2);
  if (length - top_k < kNeighbours) return std::nullopt;
  const std::optional<SelectionQuality> quality = quality_of(layer);
  const std::vector<RowTile> runs = judged_runs(length, top_k);
  double keys = 0;
  for (const RowTile& run : runs) keys += union_of(layer.selection, run);
  return SelectionFacts{keys / static_cast<double>(runs.size()) / static_cast<double>(top_k),
                        quality->recall, quality->recent};
}

std::string shown(const std::optional<SelectionFacts>& facts) {
  if (!facts) return "";
  char text[80];
  std::snprintf(text, sizeof text, "  U16/K %.2f  recall %.2f  recent %.2f", facts->union16,
                facts->recall, facts->recent);
  return text;
}

void check_captured(const KernelConfig& config) {
  const auto& scores = config.scores;
  if (std::find(scores.begin(), scores.end(), "captured") == scores.end()) return;
  const Known& weights = known(weights_file(config));
  require(config.captured_weights.empty() || weights.problem.empty(), weights.problem);
  require(!weights.problem.empty() ||
              (config.captured_layer >= 0 && config.captured_layer < weights.layers),
          "--kernels.captured-layer is ", config.captured_layer, "; the model of ",
          weights_file(config).string(), " has layers 0 to ", weights.layers - 1);
}

std::string captured_declines(const KernelCase& kernel, const KernelConfig& config) {
  const Problem& p = kernel.problem;
  const Known& weights = known(weights_file(config));
  if (!weights.problem.empty()) return weights.problem;
  if (p.queries < p.keys) return "captured selections are those of all L queries, not the last T";
  if (p.keys > kLongest || p.keys > weights.text) {
    return "captured selections go up to L = " + std::to_string(std::min(kLongest, weights.text)) +
           (weights.text < kLongest ? ", all of the held-out text"
                                    : ", four times what the model was trained at");
  }
  const bool fits = p.index_heads == weights.index_heads && p.index_width == weights.index_width;
  if (has_indexer(kernel.op) && !fits) {
    return "the trained indexer has I = " + std::to_string(weights.index_heads) +
           " and J = " + std::to_string(weights.index_width) + "; only those can be captured";
  }
  return "";
}

double CapturedModel::rope_base_at(int64_t length) const {
  const AttentionConfig& attention = trained_.attention;
  const int64_t longest = std::ranges::max(trained_.lengths);
  if (length <= longest) return attention.rope_base;
  const bool latent = variant(trained_variant_).baseline == "mla_dense";
  return stretched_rope_base(attention.rope_base,
                             latent ? attention.rope_width : attention.head_width,
                             static_cast<double>(length) / static_cast<double>(longest));
}

void CapturedModel::load(const KernelConfig& config, int64_t length) {
  const std::string file = weights_file(config).string();
  if (file_ != file) {
    const WeightsSource source = weights_source(file);
    trained_ = source.config, trained_variant_ = source.variant;
    corpus_ = std::make_shared<Corpus>(load_corpus(trained_.data));
    weights_ = {};
  }
  file_ = file;
  const double base = rope_base_at(length);
  if (weights_.model && weights_.source.config.attention.rope_base == base) return;
  weights_ = read_weights(file, base);
}

AttentionCapture CapturedModel::layer(const KernelCase& kernel, const KernelConfig& config,
                                      int64_t window) {
  const int64_t length = kernel.problem.keys;
  load(config, length);
  const auto layers = weights_.model->attention_layers();
  const auto count = static_cast<int64_t>(layers.size());
  require(config.captured_layer >= 0 && config.captured_layer < count,
          "--kernels.captured-layer is ", config.captured_layer, "; the model of ", file_,
          " has layers 0 to ", count - 1);
  const int64_t windows = corpus_->validation.numel() / length;
  require(windows > 0, "the held-out text has ", corpus_->validation.numel(),
          " bytes; captured selections at L = ", length, " need more");
  const at::Tensor tokens =
      corpus_->validation.narrow(0, window % windows * length, length).unsqueeze(0);
  AttentionCapture captured;
  const at::NoGradGuard no_grad;
  const auto& wanted = layers[static_cast<size_t>(config.captured_layer)];
  wanted->capture = &captured;
  weights_.model->forward(tokens, tokens);  // its losses are not looked at
  wanted->capture = nullptr;
  require(captured.index.q.defined(), file_, " holds the variant ", weights_.source.variant,
          ", whose layers have no trained indexer; give weights of dsa");
  const ops::IndexTensors& index = captured.index;
  const int64_t top_k = kernel.problem.top_k;
  captured.selection = ops::indexer_select(index.q, index.k, index.weight, top_k);
  return captured;
}

}  // namespace dsa::bench
