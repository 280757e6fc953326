#include "attention/indexed.h"

#include "attention/nvtx.h"

#include <ATen/core/grad_mode.h>

#include <optional>

namespace dsa {
namespace {

ops::IndexTensors tensors_of(const IndexerInputs& inputs) {
  return {inputs.q, inputs.k, inputs.weight};
}

ops::Selection selected(const IndexedLayer& of, const IndexerInputs& index) {
  return ops::indexer_select(index.q, index.k, index.weight, of.top_k);
}

at::Tensor imitation_loss(const Heads& heads, const IndexerInputs& index,
                          const ops::Selection& selection, const at::Tensor& lse) {
  const nvtx::Range range("indexer_loss", nvtx::Category::kIndexer, selection.indices.size(1));
  const at::Tensor target =
      ops::selected_attention_mass(heads.q.detach(), heads.k.detach(), selection, lse, heads.scale);
  const at::Tensor scores = ops::selected_scores(index.q, index.k, index.weight, selection);
  return ops::indexer_kl(scores, target, selection);
}

}  // namespace

AttentionCapture captured(const Heads& heads, const ops::IndexTensors& index,
                          const ops::Selection& selection) {
  return {heads.q, heads.k, index, selection, heads.scale};
}

ops::AttentionResult read_selected(const Heads& heads, const ops::Selection& selection,
                                   const std::string& backend) {
  std::optional<UseBackend> pinned;
  if (backend != "auto") pinned.emplace(backend);
  return ops::sparse_attention(heads.q, heads.k, heads.v, selection, heads.scale);
}

void refuse_dropout(const AttentionConfig& config, const char* variant) {
  require(config.dropout == 0, "dropout is ", config.dropout, " but ", variant,
          " has no dropout of attention probabilities; set it to 0");
}

AttentionOutput attend_densely(const IndexedLayer& of, const Heads& heads) {
  const ops::AttentionResult result = ops::dense_attention(heads.q, heads.k, heads.v, heads.scale);
  AttentionOutput output{result.out, {}, {}};
  const bool teaching = of.layer.stage == TrainingStage::kIndexer && at::GradMode::is_enabled();
  if (!teaching && !of.layer.capture) return output;
  const IndexerInputs index = of.indexer.forward(of.hidden, of.positions, of.query_latent);
  if (teaching) {
    output.indexer_loss =
        ops::dense_indexer_kl(tensors_of(index), heads.q, heads.k, result.lse, heads.scale);
  }
  if (of.layer.capture) {  // what it would select
    *of.layer.capture = captured(heads, tensors_of(index), selected(of, index));
  }
  return output;
}

AttentionOutput attend_selected(const IndexedLayer& of, const Heads& heads) {
  const bool teaching = of.trained && at::GradMode::is_enabled();
  IndexerInputs index;
  {
    const at::AutoGradMode mode(teaching);
    index = of.indexer.forward(of.hidden, of.positions, of.query_latent);
  }
  const ops::Selection selection = selected(of, index);
  const ops::AttentionResult result = read_selected(heads, selection, of.sparse_backend);
  AttentionOutput output{result.out, {}, {}};
  if (teaching) output.indexer_loss = imitation_loss(heads, index, selection, result.lse.detach());
  if (of.layer.keep_selection) output.selection = selection;
  if (of.layer.capture) *of.layer.capture = captured(heads, tensors_of(index), selection);
  return output;
}

}  // namespace dsa
