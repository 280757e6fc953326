#include "attention/ops.h"

#include "attention/door.h"
#include "attention/nvtx.h"
#include "attention/ops_autograd.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <initializer_list>

namespace dsa::ops {
namespace {

using nvtx::Category;

bool wants_gradient(std::initializer_list<at::Tensor> inputs) {
  if (!at::GradMode::is_enabled()) return false;
  for (const at::Tensor& x : inputs)
    if (x.requires_grad()) return true;
  return false;
}

void require_scale(const char* op, double scale) {
  require(std::isfinite(scale), op, ": scale is ", scale, "; it must be finite, usually 1/sqrt(D)");
}

void require_lse(const char* op, const at::Tensor& lse, const at::Tensor& q, const char* source) {
  require(lse.defined() && lse.sizes() == q.sizes().slice(0, 3), op,
          ": lse must have the shape [B, T, H] of q; pass that of ", source);
  const c10::ScalarType wanted = accumulation_dtype(q.scalar_type());
  require(lse.scalar_type() == wanted, op, ": lse is ", lse.scalar_type(), "; for q of ",
          q.scalar_type(), " it must be ", wanted);
}

}  // namespace

at::Tensor indexer_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight) {
  Problem problem = indexer_problem("indexer_scores", q, k, weight);
  problem.backward = wants_gradient({q, k, weight});
  const nvtx::Range range("indexer_scores", Category::kIndexer, problem.keys);
  return autograd::indexer_scores(choose_backend(Op::kIndexerScores, problem), q, k, weight);
}

Selection select_top_k(const at::Tensor& scores, int64_t top_k) {
  const Problem problem = scores_problem("select_top_k", scores, top_k);
  const nvtx::Range range("select_top_k", Category::kTopK, problem.keys);
  const at::NoGradGuard no_grad;
  return choose_backend(Op::kSelectTopK, problem).select_top_k(scores.contiguous(), top_k);
}

Selection indexer_select(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                         int64_t top_k) {
  Problem problem = indexer_problem("indexer_select", q, k, weight);
  require(top_k >= 1, "indexer_select: top_k is ", top_k, "; it must be at least 1");
  problem.top_k = top_k;
  const nvtx::Range range("indexer_select", Category::kIndexer, problem.keys);
  const at::NoGradGuard no_grad;
  return choose_backend(Op::kIndexerSelect, problem)
      .indexer_select(q.contiguous(), k.contiguous(), weight.contiguous(), top_k);
}

at::Tensor selected_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                           const Selection& selection) {
  Problem problem = indexer_problem("selected_scores", q, k, weight);
  require_selection("selected_scores", selection, problem);
  problem.top_k = selection.indices.size(2);
  problem.backward = wants_gradient({q, k, weight});
  const nvtx::Range range("selected_scores", Category::kIndexer, problem.keys);
  const Selection ids = checked(selection, problem.keys);
  return autograd::selected_scores(choose_backend(Op::kSelectedScores, problem), q, k, weight, ids);
}

AttentionResult sparse_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const Selection& selection, double scale) {
  require(v.defined(), "sparse_attention: v is undefined; pass a tensor [B, S, G, V]");
  Problem problem = attention_problem("sparse_attention", q, k, v);
  require_selection("sparse_attention", selection, problem);
  require_scale("sparse_attention", scale);
  problem.top_k = selection.indices.size(2);
  problem.backward = wants_gradient({q, k, v});
  const nvtx::Range range("sparse_attention", Category::kAttention, problem.keys);
  const Selection ids = checked(selection, problem.keys);
  return autograd::sparse_attention(choose_backend(Op::kSparse, problem), q, k, v, ids, scale);
}

AttentionResult dense_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                double scale) {
  require(v.defined(), "dense_attention: v is undefined; pass a tensor [B, S, G, V]");
  Problem problem = attention_problem("dense_attention", q, k, v);
  require_scale("dense_attention", scale);
  problem.backward = wants_gradient({q, k, v});
  const nvtx::Range range("dense_attention", Category::kAttention, problem.keys);
  return autograd::dense_attention(choose_backend(Op::kDense, problem), q, k, v, scale);
}

at::Tensor selected_attention_mass(const at::Tensor& q, const at::Tensor& k,
                                   const Selection& selection, const at::Tensor& lse,
                                   double scale) {
  Problem problem = attention_problem("selected_attention_mass", q, k, at::Tensor());
  require_selection("selected_attention_mass", selection, problem);
  require_scale("selected_attention_mass", scale);
  require_lse("selected_attention_mass", lse, q, "sparse_attention on the same selection");
  problem.top_k = selection.indices.size(2);
  const nvtx::Range range("selected_attention_mass", Category::kIndexer, problem.keys);
  const at::NoGradGuard no_grad;
  const Selection ids = checked(selection, problem.keys);
  return choose_backend(Op::kAttentionMass, problem)
      .attention_mass(q.contiguous(), k.contiguous(), ids, lse.contiguous(), scale);
}

at::Tensor indexer_kl(const at::Tensor& selected_scores, const at::Tensor& target,
                      const Selection& selection) {
  const at::Tensor& ids = selection.indices;
  require(selected_scores.defined() && target.defined() && ids.defined() && ids.dim() == 3,
          "indexer_kl: scores, target and selection.indices must be defined, [B, T, K]");
  require(selected_scores.sizes() == ids.sizes() && target.sizes() == ids.sizes(),
          "indexer_kl: scores have shape ", selected_scores.sizes(), ", target ", target.sizes(),
          ", selection ", ids.sizes(), "; they must agree");
  require(target.scalar_type() == selected_scores.scalar_type(), "indexer_kl: target is ",
          target.scalar_type(), ", scores are ", selected_scores.scalar_type(),
          "; convert one of them");
  const nvtx::Range range("indexer_kl", Category::kIndexer, ids.size(1));
  return autograd::indexer_kl(selected_scores, target.detach(), ids >= 0);
}

at::Tensor dense_indexer_kl(const IndexTensors& index, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& lse, double scale) {
  constexpr const char* kOp = "dense_indexer_kl";
  const Problem indexer = indexer_problem(kOp, index.q, index.k, index.weight);
  const Problem attention = attention_problem(kOp, q, k, at::Tensor());
  require(indexer.batch == attention.batch && indexer.queries == attention.queries &&
              indexer.keys == attention.keys && indexer.dtype == attention.dtype,
          kOp, ": the indexer has q ", index.q.sizes(), " and k ", index.k.sizes(),
          ", attention q ", q.sizes(), " and k ", k.sizes(),
          "; batch, queries, keys and dtype must agree");
  require_scale(kOp, scale);
  require_lse(kOp, lse, q, "dense_attention");
  const nvtx::Range range(kOp, Category::kIndexer, indexer.keys);
  const c10::ScalarType wide = accumulation_dtype(indexer.dtype);
  return autograd::dense_indexer_kl(index.q.to(wide), index.k.to(wide), index.weight.to(wide),
                                    {q.detach().to(wide), k.detach().to(wide), lse.detach(), scale},
                                    wants_gradient({index.q, index.k, index.weight}));
}

}  // namespace dsa::ops
