#include "attention/ops_autograd.h"

#include "attention/door.h"
#include "attention/nvtx.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>

namespace dsa::autograd {
namespace {

using nvtx::Category;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

/// By name, not by address: a plug-in may have moved the table between forward and backward.
void remember(AutogradContext* ctx, const Backend& row) {
  ctx->saved_data["backend"] = row.name;
}

const Backend& remembered(AutogradContext* ctx) {
  return backend(ctx->saved_data["backend"].toStringRef());
}

struct IndexerScores : Function<IndexerScores> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q_in, const at::Tensor& k_in,
                            const at::Tensor& weight_in, const Backend* row) {
    const at::Tensor q = q_in.contiguous(), k = k_in.contiguous(), weight = weight_in.contiguous();
    ctx->save_for_backward({q, k, weight});
    remember(ctx, *row);
    return row->indexer_scores(q, k, weight);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& q = saved[0];
    const nvtx::Range range("indexer_scores_backward", Category::kIndexer, saved[1].size(1));
    const IndexerGrads g =
        remembered(ctx).indexer_scores_backward(grads[0].contiguous(), q, saved[1], saved[2]);
    return {g.dq, g.dk, g.dweight, at::Tensor()};
  }
};

struct SelectedScores : Function<SelectedScores> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q_in, const at::Tensor& k_in,
                            const at::Tensor& weight_in, const ops::Selection& selection,
                            const Backend* row) {
    const at::Tensor q = q_in.contiguous(), k = k_in.contiguous(), weight = weight_in.contiguous();
    ctx->save_for_backward({q, k, weight, selection.indices, selection.count});
    remember(ctx, *row);
    return row->selected_scores(q, k, weight, selection);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const nvtx::Range range("selected_scores_backward", Category::kIndexer, saved[1].size(1));
    const IndexerGrads g = remembered(ctx).selected_scores_backward(
        grads[0].contiguous(), saved[0], saved[1], saved[2], {saved[3], saved[4]});
    return {g.dq, g.dk, g.dweight, at::Tensor(), at::Tensor()};
  }
};

struct SparseFunction : Function<SparseFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& q_in, const at::Tensor& k_in,
                               const at::Tensor& v_in, const ops::Selection& selection,
                               double scale, const Backend* row) {
    const at::Tensor q = q_in.contiguous(), k = k_in.contiguous();
    const bool as_it_is = row->reads_values_in_keys && values_in_keys(k, v_in);
    const at::Tensor v = as_it_is ? v_in : v_in.contiguous();
    const ops::AttentionResult result = row->sparse_forward(q, k, v, selection, scale);
    ctx->save_for_backward({q, k, v, selection.indices, selection.count, result.out, result.lse});
    ctx->saved_data["scale"] = scale;
    remember(ctx, *row);
    ctx->mark_non_differentiable({result.lse});
    return {result.out, result.lse};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const nvtx::Range range("sparse_attention_backward", Category::kAttention, saved[1].size(1));
    const AttentionGrads g = remembered(ctx).sparse_backward(
        grads[0].contiguous(), saved[0], saved[1], saved[2].contiguous(), {saved[3], saved[4]},
        {saved[5], saved[6]}, ctx->saved_data["scale"].toDouble());
    return {g.dq, g.dk, g.dv, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

struct DenseFunction : Function<DenseFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& q_in, const at::Tensor& k_in,
                               const at::Tensor& v_in, double scale, const Backend* row) {
    const at::Tensor q = q_in.contiguous(), k = k_in.contiguous(), v = v_in.contiguous();
    const ops::AttentionResult result = row->dense_forward(q, k, v, scale);
    ctx->save_for_backward({q, k, v, result.out, result.lse});
    ctx->saved_data["scale"] = scale;
    remember(ctx, *row);
    ctx->mark_non_differentiable({result.lse});
    return {result.out, result.lse};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const nvtx::Range range("dense_attention_backward", Category::kAttention, saved[1].size(1));
    const AttentionGrads g =
        remembered(ctx).dense_backward(grads[0].contiguous(), saved[0], saved[1], saved[2],
                                       {saved[3], saved[4]}, ctx->saved_data["scale"].toDouble());
    return {g.dq, g.dk, g.dv, at::Tensor(), at::Tensor()};
  }
};

/// The gradient falls out of forward: softmax - target, which neither divides by a probability nor
/// takes a logarithm of one.
struct IndexerKl : Function<IndexerKl> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& scores,
                            const at::Tensor& target, const at::Tensor& selected) {
    const double queries = static_cast<double>(scores.size(0) * scores.size(1));
    const at::Tensor unselected = selected.logical_not();
    const at::Tensor masked =
        scores.masked_fill(unselected, -std::numeric_limits<double>::infinity());
    // A row with no key is all -inf and its softmax NaN: both fills put zeros there.
    const at::Tensor log_p = at::log_softmax(masked, -1).masked_fill_(unselected, 0);
    const at::Tensor p = log_p.exp().masked_fill_(unselected, 0);
    const at::Tensor wanted = target.masked_fill(unselected, 0);
    ctx->save_for_backward({(p - wanted).div_(queries)});
    return (at::xlogy(wanted, wanted) - wanted * log_p).sum().div_(queries);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {ctx->get_saved_variables()[0] * grads[0], at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor indexer_scores(const Backend& row, const at::Tensor& q, const at::Tensor& k,
                          const at::Tensor& weight) {
  return IndexerScores::apply(q, k, weight, &row);
}

at::Tensor selected_scores(const Backend& row, const at::Tensor& q, const at::Tensor& k,
                           const at::Tensor& weight, const ops::Selection& selection) {
  return SelectedScores::apply(q, k, weight, selection, &row);
}

ops::AttentionResult sparse_attention(const Backend& row, const at::Tensor& q, const at::Tensor& k,
                                      const at::Tensor& v, const ops::Selection& selection,
                                      double scale) {
  const variable_list result = SparseFunction::apply(q, k, v, selection, scale, &row);
  return {result[0], result[1]};
}

ops::AttentionResult dense_attention(const Backend& row, const at::Tensor& q, const at::Tensor& k,
                                     const at::Tensor& v, double scale) {
  const variable_list result = DenseFunction::apply(q, k, v, scale, &row);
  return {result[0], result[1]};
}

at::Tensor indexer_kl(const at::Tensor& scores, const at::Tensor& target,
                      const at::Tensor& selected) {
  return IndexerKl::apply(scores, target, selected);
}

}  // namespace dsa::autograd
