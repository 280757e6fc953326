// Stage 1's loss: KL(attention || indexer) over every visible key, in tiles of queries. A tile holds
// its scores and probabilities, then forgets them, so loss and gradients are made together in the
// forward pass; backward only scales them. Nothing of size T*S exists. A thread works on a tile of its
// own: a barrier after each of its thirty small operations would cost more than they do.
#include "attention/nvtx.h"
#include "attention/ops_autograd.h"
#include "attention/target.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <limits>

namespace dsa::autograd {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

/// Queries a tile holds: products of 64 rows run at full speed, and its matrices stay near the cores.
constexpr int64_t kTile = 64;
/// Tiles are dealt to so many groups, each with a dk of its own, summed in order at the end: the bits
/// do not depend on the number of threads.
constexpr int64_t kGroups = 8;

/// One sequence, detached: index q [T, I, J], k [S, J], weight [T, I]; attention q [T, H, D],
/// k [S, G, D], lse [T, H].
struct Sequence {
  at::Tensor index_q, index_k, weight, q, k, lse;
  double scale, queries;  ///< queries: of the whole batch, whose mean the loss is
};

/// Gradients of one sequence, written tile by tile; undefined if none are wanted. dk is the group's.
struct Gradients {
  at::Tensor dq, dk, dweight;
};

/// Of products = relu(q . k) [rows, I, keys], which is overwritten, and the gradient of the scores.
void add_gradients(const Sequence& s, const RowTile& tile, at::Tensor& products,
                   const at::Tensor& dscore, const Gradients& out) {
  const int64_t width = s.index_k.size(1);
  const at::Tensor q = tile.of_queries(s.index_q), weight = tile.of_queries(s.weight);
  tile.of_queries(out.dweight).copy_(at::bmm(products, dscore.unsqueeze(2)).squeeze(2));
  // The weights go to the small matrices, once for many keys.
  at::threshold_backward_out(products, dscore.unsqueeze(1).expand_as(products), products, 0);
  const at::Tensor passed = products.flatten(0, 1);
  const at::Tensor dq = at::mm(passed, tile.of_keys(s.index_k)).view({tile.rows, -1, width});
  tile.of_queries(out.dq).copy_(dq * weight.unsqueeze(2));
  tile.of_keys(out.dk).addmm_(passed.t(), (q * weight.unsqueeze(2)).flatten(0, 1));
}

/// Sum of the tile's divergences in nats; its gradients go to `out` unless those are undefined.
double tile_loss(const Sequence& s, const RowTile& tile, const Gradients& out) {
  const at::Tensor target = head_mean_attention(s.q, s.k, s.lse, s.scale, tile);
  const at::Tensor q = tile.of_queries(s.index_q).flatten(0, 1);
  at::Tensor products = at::mm(q, tile.of_keys(s.index_k).t()).relu_();
  products = products.view({tile.rows, -1, tile.keys});
  const at::Tensor weight = tile.of_queries(s.weight).unsqueeze(1);
  at::Tensor log_p = at::bmm(weight, products).squeeze(1);
  const at::Tensor future = tile.future();
  tile.own_keys(log_p).masked_fill_(future, -std::numeric_limits<double>::infinity());
  log_p = at::log_softmax(log_p, -1);
  const at::Tensor p = log_p.exp();
  tile.own_keys(log_p).masked_fill_(future, 0);  // 0 * -inf would be NaN
  const at::Tensor loss = at::xlogy(target, target).sub_(target * log_p).sum();
  if (out.dq.defined()) {
    const at::Tensor dscore = (p - target).div_(s.queries);
    add_gradients(s, tile, products, dscore, out);
  }
  return loss.item<double>();
}

/// Sum over one sequence; `all` as in tile_loss, its dk zero.
double sequence_loss(const Sequence& s, const Gradients& all) {
  const int64_t queries = s.index_q.size(0), keys = s.index_k.size(0);
  const bool wanted = all.dk.defined();
  at::Tensor dk;
  if (wanted) dk = at::zeros({kGroups, keys, s.index_k.size(1)}, s.index_k.options());
  std::array<double, kGroups> loss{};
  at::parallel_for(0, kGroups, 1, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;  // a worker's own mode
    for (int64_t group = begin; group < end; ++group) {
      const Gradients out = wanted ? Gradients{all.dq, dk[group], all.dweight} : Gradients{};
      for (int64_t first = group * kTile; first < queries; first += kGroups * kTile) {
        const int64_t rows = std::min(kTile, queries - first);
        loss[static_cast<size_t>(group)] +=
            tile_loss(s, {first, rows, first + rows + keys - queries}, out);
      }
    }
  });
  double sum = 0;
  for (size_t group = 0; group < kGroups; ++group) {
    sum += loss[group];
    if (wanted) all.dk.add_(dk[static_cast<int64_t>(group)]);
  }
  return sum;
}

struct DenseIndexerKl : Function<DenseIndexerKl> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& index_q,
                            const at::Tensor& index_k, const at::Tensor& weight,
                            const AttentionView& attention, bool with_gradients) {
    const int64_t batch = index_q.size(0), queries = index_q.size(1);
    Gradients all;
    if (with_gradients) {
      all = {at::empty(index_q.sizes(), index_q.options()),
             at::zeros(index_k.sizes(), index_k.options()),
             at::empty(weight.sizes(), weight.options())};
    }
    double sum = 0;
    for (int64_t b = 0; b < batch; ++b) {
      const Sequence s{index_q.detach()[b].contiguous(),
                       index_k.detach()[b].contiguous(),
                       weight.detach()[b].contiguous(),
                       attention.q[b],
                       attention.k[b],
                       attention.lse[b],
                       attention.scale,
                       static_cast<double>(batch * queries)};
      Gradients out;
      if (with_gradients) out = {all.dq[b], all.dk[b], all.dweight[b]};
      sum += sequence_loss(s, out);
    }
    if (with_gradients) ctx->save_for_backward({all.dq, all.dk, all.dweight});
    return at::full({}, sum / static_cast<double>(batch * queries), index_q.options());
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const nvtx::Range range("dense_indexer_kl_backward", nvtx::Category::kIndexer);
    const variable_list saved = ctx->get_saved_variables();
    return {saved[0] * grads[0], saved[1] * grads[0], saved[2] * grads[0], at::Tensor(),
            at::Tensor()};
  }
};

}  // namespace

at::Tensor dense_indexer_kl(const at::Tensor& index_q, const at::Tensor& index_k,
                            const at::Tensor& weight, const AttentionView& attention,
                            bool with_gradients) {
  return DenseIndexerKl::apply(index_q, index_k, weight, attention, with_gradients);
}

}  // namespace dsa::autograd
