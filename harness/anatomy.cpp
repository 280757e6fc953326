#include "harness/anatomy.h"

namespace dsa {
namespace {

void contiguous(RunConfig& config) {
  config.data.split = "contiguous";
}

/// Losses start at ln V, rates warm up and decay, gradients are clipped, and attention drops no
/// probabilities, which sparse kernels cannot.
void sane_start(RunConfig& config) {
  config.model.embedding_std = 0.02;
  config.attention.dropout = 0;
  config.train.optimizer = "adamw";
  config.train.schedule = "cosine";
  config.train.learning_rate = config.train.indexer_learning_rate = 1e-3;
  config.train.warmup_steps = config.train.steps / 10;
  config.train.weight_decay = 0.1;
  config.train.grad_clip = 1;
}

/// The sound indexer with its KL loss; attention still reads a mask of all pairs.
void trained_indexer(RunConfig& config) {
  config.attention.indexer_loss_weight = 1;
  config.attention.index_rope_width = config.attention.index_width / 2;
  config.attention.sparse_backend = "torch-mask";
}

void sparse_kernels(RunConfig& config) {
  config.attention.sparse_backend = "auto";
}

}  // namespace

const std::vector<Rung>& rungs() {
  static const std::vector<Rung> rows = {
      {"published", "nothing: the experiment as it was published", nullptr, nullptr,
       "dsa_as_published"},
      {"causal_selection", "the mask hides future keys", nullptr, nullptr, "dsa_masked"},
      {"contiguous_split", "validation is text that follows, not windows that overlap", contiguous,
       nullptr, "dsa_masked"},
      {"sane_start", "small embedding, warm-up, cosine, clipping, no attention dropout", sane_start,
       nullptr, "dsa_masked"},
      {"trained_indexer", "the indexer learns by its KL loss", nullptr, trained_indexer, "dsa"},
      {"sparse_kernels", "attention reads the selected keys alone", nullptr, sparse_kernels, "dsa"},
  };
  return rows;
}

RungSetting rung_setting(size_t rung, bool sparse, const RunConfig& base) {
  RungSetting setting{sparse ? rungs().front().sparse_variant : "dense", base, 0};
  for (size_t i = 0; i <= rung; ++i) {
    const Rung& step = rungs()[i];
    const std::string variant = sparse ? step.sparse_variant : "dense";
    const bool other =
        step.both != nullptr || (sparse && step.sparse != nullptr) || variant != setting.variant;
    if (step.both != nullptr) step.both(setting.config);
    if (sparse && step.sparse != nullptr) step.sparse(setting.config);
    setting.variant = variant;
    if (other) setting.same_as = i;
  }
  return setting;
}

}  // namespace dsa
