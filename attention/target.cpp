#include "attention/target.h"

#include <ATen/TensorOperators.h>

#include <limits>

namespace dsa {

at::Tensor head_mean_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& lse,
                               double scale, const RowTile& tile) {
  const int64_t heads = q.size(1), group = heads / k.size(1);
  const at::Tensor scaled = tile.of_queries(q) * scale;
  const at::Tensor minus_lse = lse.defined() ? -tile.of_queries(lse) : lse;
  const at::Tensor future = lse.defined() ? lse : tile.future();
  at::Tensor sum = at::zeros({tile.rows, tile.keys}, q.options());
  at::Tensor logits = at::empty_like(sum);
  for (int64_t head = 0; head < heads; ++head) {
    const at::Tensor keys = tile.of_keys(k.select(1, head / group));
    if (lse.defined()) {
      at::addmm_out(logits, minus_lse.narrow(1, head, 1), scaled.select(1, head), keys.t());
      sum.add_(logits.exp_());
    } else {
      at::mm_out(logits, scaled.select(1, head), keys.t());
      tile.own_keys(logits).masked_fill_(future, -std::numeric_limits<double>::infinity());
      sum.add_(at::softmax(logits, -1));
    }
  }
  tile.own_keys(sum).tril_();
  return sum.div_(static_cast<double>(heads));
}

}  // namespace dsa
