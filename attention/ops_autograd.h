// The differentiable operations as autograd functions: backward runs on the backend that ran
// forward. Inputs are checked by ops.cpp. Private to attention/.
#pragma once
#include "attention/backend.h"

namespace dsa::autograd {

at::Tensor indexer_scores(const Backend& backend, const at::Tensor& q, const at::Tensor& k,
                          const at::Tensor& weight);
at::Tensor selected_scores(const Backend& backend, const at::Tensor& q, const at::Tensor& k,
                           const at::Tensor& weight, const ops::Selection& selection);
ops::AttentionResult sparse_attention(const Backend& backend, const at::Tensor& q,
                                      const at::Tensor& k, const at::Tensor& v,
                                      const ops::Selection& selection, double scale);
ops::AttentionResult dense_attention(const Backend& backend, const at::Tensor& q,
                                     const at::Tensor& k, const at::Tensor& v, double scale);
at::Tensor indexer_kl(const at::Tensor& scores, const at::Tensor& target,
                      const at::Tensor& selected);

/// Attention heads as the teacher of stage 1: no gradient reaches them.
struct AttentionView {
  at::Tensor q, k, lse;  ///< [B, T, H, D], [B, S, G, D], [B, T, H]
  double scale;
};
at::Tensor dense_indexer_kl(const at::Tensor& index_q, const at::Tensor& index_k,
                            const at::Tensor& weight, const AttentionView& attention,
                            bool with_gradients);

}  // namespace dsa::autograd
