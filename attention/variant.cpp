// The table of attention variants, and the checks of their configuration.
#include "attention/variant.h"

#include "attention/layers.h"
#include "attention/rope.h"

#include <bit>
#include <cmath>

namespace dsa {
namespace {

using ProblemOf = Problem (*)(const AttentionConfig&, int64_t batch, int64_t length);

/// Heads with keys and values of their own, or shared by groups.
Problem of_heads(const AttentionConfig& config, int64_t batch, int64_t length) {
  Problem problem;
  problem.batch = batch;
  problem.queries = problem.keys = length;
  problem.heads = config.n_heads;
  problem.kv_heads = config.n_kv_heads;
  problem.qk_width = problem.v_width = config.head_width;
  problem.top_k = resolved_top_k(config, length);
  problem.index_heads = config.index_heads * (config.index_relu ? 1 : 2);  // see indexer.cpp
  problem.index_width = config.index_width;
  return problem;
}

/// Latent attention in MHA mode, see mla.cpp. Its projections are weights of the model: the same in both
/// modes, and counted there.
Problem of_expanded_latents(const AttentionConfig& config, int64_t batch, int64_t length) {
  Problem problem = of_heads(config, batch, length);
  problem.kv_heads = config.n_heads;
  problem.qk_width = config.nope_width + config.rope_width;
  return problem;
}

/// The same in MQA mode.
Problem of_latents(const AttentionConfig& config, int64_t batch, int64_t length) {
  Problem problem = of_heads(config, batch, length);
  problem.kv_heads = 1;
  problem.qk_width = config.kv_latent_width + config.rope_width;
  problem.v_width = config.kv_latent_width;
  problem.values_in_keys = true;
  return problem;
}

Cost operator+(const Cost& a, const Cost& b) {
  return {a.flops + b.flops, a.bytes_read + b.bytes_read, a.bytes_written + b.bytes_written};
}

template <ProblemOf kProblem>
Cost dense_cost(const AttentionConfig& config, Pass pass, int64_t batch, int64_t length) {
  return cost(Op::kDense, pass, kProblem(config, batch, length));
}

Cost window_cost(const AttentionConfig& config, Pass pass, int64_t batch, int64_t length) {
  return cost(Op::kSparse, pass, of_heads(config, batch, length));
}

template <ProblemOf kProblem>
Cost untrained_cost(const AttentionConfig& config, Pass pass, int64_t batch, int64_t length) {
  const Problem problem = kProblem(config, batch, length);
  return cost(Op::kIndexerSelect, Pass::kForward, problem) + cost(Op::kSparse, pass, problem);
}

/// Its probabilities of every pair come and go in tiles: no compulsory bytes.
Cost oracle_cost(const AttentionConfig& config, Pass pass, int64_t batch, int64_t length) {
  const double pairs = static_cast<double>(batch) * visible_pairs(length, length);
  const auto width = static_cast<double>(config.n_heads * config.head_width);
  return Cost{2 * width * pairs, 0, 0} + window_cost(config, pass, batch, length);
}

/// The backward pass of the indexer is that of its KL loss, over selected pairs only.
template <ProblemOf kProblem>
Cost dsa_cost(const AttentionConfig& config, Pass pass, int64_t batch, int64_t length) {
  const Problem problem = kProblem(config, batch, length);
  const Cost always = untrained_cost<kProblem>(config, pass, batch, length);
  if (pass == Pass::kForward) return always;
  return always + cost(Op::kAttentionMass, Pass::kForward, problem) +
         cost(Op::kSelectedScores, pass, problem);
}

/// Every pair, future ones too: scores, their selection, an additive mask and attention. The mask
/// and the scores are float32 matrices written once and read once.
Cost as_published_cost(const AttentionConfig& config, Pass pass, int64_t batch, int64_t length) {
  const double pairs = static_cast<double>(batch * length * length);
  const double causal_pairs = static_cast<double>(batch) * visible_pairs(length, length);
  const Cost causal = cost(Op::kDense, pass, of_heads(config, batch, length));
  const double index_flops =
      2.0 * static_cast<double>(config.index_heads * config.index_width) * pairs;
  return Cost{causal.flops * pairs / causal_pairs + index_flops, causal.bytes_read + 2 * 4 * pairs,
              causal.bytes_written + 2 * 4 * pairs};
}

using PassCost = Cost (*)(const AttentionConfig&, Pass, int64_t, int64_t);

template <PassCost kCost, Pass kPass>
Cost at_pass(const AttentionConfig& config, int64_t batch, int64_t length) {
  return kCost(config, kPass, batch, length);
}

template <PassCost kCost>
AttentionVariant variant_row(const char* name, const char* summary, const char* role,
                             int colour_slot,
                             std::shared_ptr<AttentionLayer> (*make)(const AttentionConfig&),
                             const char* baseline = "dense") {
  return {name,
          summary,
          role,
          colour_slot,
          make,
          at_pass<kCost, Pass::kForward>,
          at_pass<kCost, Pass::kForwardBackward>,
          baseline};
}

void require_positive(const char* field, int64_t value) {
  require(value >= 1, field, " is ", value, "; it must be at least 1");
}

std::string known_names() {
  std::string names;
  for (const auto& known : variants()) names += (names.empty() ? "" : ", ") + known.name;
  return names;
}

}  // namespace

int64_t resolved_top_k(const AttentionConfig& config, int64_t length) {
  if (config.top_k > 0) return config.top_k;
  const double keys = config.top_k_fraction * static_cast<double>(length);
  return std::max<int64_t>(1, std::llround(keys));
}

void check(const AttentionConfig& config) {
  require_positive("d-model", config.d_model);
  require_positive("n-heads", config.n_heads);
  require_positive("n-kv-heads", config.n_kv_heads);
  require_positive("head-width", config.head_width);
  require_positive("kv-latent-width", config.kv_latent_width);
  require_positive("nope-width", config.nope_width);
  require_positive("index-heads", config.index_heads);
  require_positive("index-width", config.index_width);
  require(config.n_heads % config.n_kv_heads == 0, "n-kv-heads is ", config.n_kv_heads,
          "; it must divide n-heads, which is ", config.n_heads);
  require(config.head_width % 2 == 0, "head-width is ", config.head_width,
          "; RoPE turns pairs, so it must be even");
  require(config.query_latent_width >= 0, "query-latent-width is ", config.query_latent_width,
          "; it must be positive, or 0 for none");
  require(config.rope_width >= 2 && config.rope_width % 2 == 0, "rope-width is ", config.rope_width,
          "; RoPE turns pairs, so it must be even and at least 2");
  const int64_t rotated = config.index_rope_width;
  require(rotated >= 0 && rotated % 2 == 0 && rotated <= config.index_width, "index-rope-width is ",
          rotated, "; it must be even and at most index-width, which is ", config.index_width);
  rope_layout(config.rope_layout, "rope-layout");
  rope_layout(config.index_rope_layout, "index-rope-layout");
  require(!config.index_hadamard || std::has_single_bit(static_cast<uint64_t>(config.index_width)),
          "index-hadamard is true, but index-width is ", config.index_width,
          "; there is a Hadamard matrix here for powers of 2 only");
  require(config.index_query_from == "hidden" || config.index_query_from == "latent",
          "index-query-from is \"", config.index_query_from, "\"; it can be hidden or latent");
  require(config.rope_base > 0, "rope-base is ", config.rope_base, "; it must be positive");
  require(config.top_k >= 0, "top-k is ", config.top_k,
          "; it must be at least 1, or 0 to use top-k-fraction");
  require(config.top_k > 0 || (config.top_k_fraction > 0 && config.top_k_fraction <= 1),
          "top-k-fraction is ", config.top_k_fraction,
          "; it must be more than 0 and at most 1 when top-k is 0");
  require(config.dropout >= 0 && config.dropout < 1, "dropout is ", config.dropout,
          "; it must be at least 0 and less than 1");
  require(config.indexer_loss_weight >= 0 && std::isfinite(config.indexer_loss_weight),
          "indexer-loss-weight is ", config.indexer_loss_weight, "; it must be 0 or positive");
  if (config.backend != "auto") backend(config.backend);
  if (config.sparse_backend != "auto") {
    require(provides(backend(config.sparse_backend), Op::kSparse), "sparse-backend is ",
            config.sparse_backend,
            ", which has no sparse attention; `dsa-bench list` shows which do");
  }
}

const std::vector<AttentionVariant>& variants() {
  static const std::vector<AttentionVariant> rows = {
      variant_row<dense_cost<of_heads>>("dense", "causal softmax attention over every visible key",
                                        "baseline", 0, make_dense),
      variant_row<dsa_cost<of_heads>>(
          "dsa",
          "DeepSeek Sparse Attention: a lightning indexer trained by its KL loss picks "
          "the top-k visible keys",
          "candidate", 1, make_dsa),
      variant_row<window_cost>("window", "the k most recent keys, no indexer", "control", 2,
                               make_window),
      variant_row<window_cost>("random",
                               "k keys drawn uniformly among the visible ones, no indexer",
                               "control", 4, make_random),
      variant_row<untrained_cost<of_heads>>(
          "dsa_untrained", "dsa with the indexer left as it was drawn: no loss, no gradient",
          "control", 6, make_dsa_untrained),
      variant_row<oracle_cost>(
          "oracle",
          "the k keys that dense attention, averaged over heads, would weigh most: as well as an "
          "indexer can select",
          "bound", 5, make_oracle),
      variant_row<as_published_cost>(
          "dsa_as_published",
          "the published experiment as it was: untrained indexer, a mask that "
          "lets future keys through",
          "flawed", 3, make_dsa_as_published),
      variant_row<as_published_cost>(
          "dsa_masked",
          "the published experiment with future keys masked and nothing else repaired: a step of "
          "presets/anatomy.toml",
          "flawed", 7, make_dsa_masked),
      variant_row<dense_cost<of_expanded_latents>>(
          "mla_dense",
          "multi-head latent attention over every visible key: keys and values of all heads from "
          "one latent a token",
          "baseline", 8, make_mla_dense, "mla_dense"),
      variant_row<dsa_cost<of_latents>>(
          "mla_dsa",
          "dsa on multi-head latent attention: all heads read the selected latents themselves",
          "candidate", 9, make_mla_dsa, "mla_dense"),
  };
  return rows;
}

const AttentionVariant& variant(const std::string& name) {
  for (const auto& known : variants()) {
    if (known.name == name) return known;
  }
  throw Error("there is no attention variant \"" + name + "\"; known are " + known_names());
}

}  // namespace dsa
