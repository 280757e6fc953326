#include "attention/selection_quality.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>

namespace dsa {
namespace {

constexpr int64_t kNeighbours = 16;
constexpr int64_t kMostRuns = 64;
/// Two float32 sums of one product differ by less: probabilities this close are the same.
constexpr double kSame = 1e-5;

double total(const at::Tensor& x) {
  return x.sum(at::kDouble).item<double>();
}

/// Sum over the run's queries of KL(p || softmax of the index scores).
double divergence(const ops::IndexTensors& index, int64_t b, const RowTile& tile,
                  const at::Tensor& p) {
  const at::Tensor scores =
      ops::indexer_scores(index.q.narrow(0, b, 1).narrow(1, tile.first, tile.rows),
                          index.k.narrow(0, b, 1).narrow(1, 0, tile.keys),
                          index.weight.narrow(0, b, 1).narrow(1, tile.first, tile.rows))[0];
  at::Tensor log_p = at::log_softmax(scores, -1);
  tile.own_keys(log_p).masked_fill_(tile.future(), 0);  // 0 * -inf would be NaN
  return total(at::xlogy(p, p) - p * log_p);
}

/// Adds the sums of one run, and to `uses` how often each position is selected.
void judge(const AttentionCapture& layer, int64_t b, const RowTile& tile, SelectionQuality& sums,
           at::Tensor& uses) {
  const int64_t top_k = layer.selection.indices.size(2);
  const at::Tensor p = head_mean_attention(layer.q[b], layer.k[b], at::Tensor(), layer.scale, tile);
  const ops::Selection best = ops::select_top_k(p.unsqueeze(0), top_k);
  const at::Tensor least = std::get<0>(p.gather(1, best.indices[0].to(at::kLong)).min(1, true));
  const at::Tensor ids = tile.of_queries(layer.selection.indices[b]).to(at::kLong);
  const at::Tensor none = ids < 0;
  const at::Tensor chosen = p.gather(1, ids.clamp_min(0));
  const at::Tensor query = at::arange(tile.keys - tile.rows, tile.keys).unsqueeze(1);
  sums.recall += total((chosen >= least * (1 - kSame)).masked_fill_(none, false));
  sums.mass += total(chosen.masked_fill(none, 0));
  sums.recent += total((ids > query - top_k).masked_fill_(none, false));
  uses += at::bincount(ids.masked_select(none.logical_not()), {}, uses.numel());
  if (layer.index.q.defined()) sums.kl += divergence(layer.index, b, tile, p);
}

}  // namespace

std::vector<RowTile> judged_runs(int64_t length, int64_t top_k) {
  const int64_t queries = length - top_k, possible = queries / kNeighbours;
  if (queries <= 0) return {};
  if (possible == 0) return {{top_k, queries, length}};
  const int64_t runs = std::min(possible, kMostRuns);
  std::vector<RowTile> all;
  for (int64_t i = 0; i < runs; ++i) {
    const int64_t first = length - kNeighbours * (1 + (runs - 1 - i) * possible / runs);
    all.push_back({first, kNeighbours, first + kNeighbours});
  }
  return all;
}

std::optional<SelectionQuality> quality_of(const AttentionCapture& layer) {
  const at::NoGradGuard no_grad;
  const int64_t batch = layer.q.size(0), length = layer.q.size(1);
  const int64_t top_k = layer.selection.indices.size(2);
  const std::vector<RowTile> runs = judged_runs(length, top_k);
  if (runs.empty()) return std::nullopt;
  SelectionQuality mean;
  for (int64_t b = 0; b < batch; ++b) {
    at::Tensor uses = at::zeros({length}, at::kLong);
    for (const RowTile& run : runs) judge(layer, b, run, mean, uses);
    const at::Tensor share = uses.to(at::kDouble) / uses.sum();
    mean.entropy -= total(at::xlogy(share, share)) / static_cast<double>(batch);
  }
  double queries = 0;
  for (const RowTile& run : runs) queries += static_cast<double>(batch * run.rows);
  mean.recall /= queries * static_cast<double>(top_k);
  mean.recent /= queries * static_cast<double>(top_k);
  mean.mass /= queries;
  mean.kl = layer.index.q.defined() ? mean.kl / queries : std::numeric_limits<double>::quiet_NaN();
  return mean;
}

}  // namespace dsa
