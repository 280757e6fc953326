#include "model/moe.h"

#include "attention/weights.h"

#include <ATen/Functions.h>
#include <torch/csrc/autograd/custom_function.h>

namespace dsa {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Rows of x in expert order: out[i] = x[order[i] / copies].
at::Tensor spread(const at::Tensor& x, const at::Tensor& order, int64_t copies) {
  return x.index_select(0, order.div(copies, "floor"));
}

/// The adjoint: every token sums its `copies` rows, found through the inverse permutation. A gather
/// and a fixed-order sum, where index_add would need atomics on a GPU.
at::Tensor gathered_sum(const at::Tensor& rows, const at::Tensor& inverse, int64_t copies) {
  return rows.index_select(0, inverse).unflatten(0, {-1, copies}).sum(1);
}

struct Spread : torch::autograd::Function<Spread> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& order,
                            const at::Tensor& inverse, int64_t copies) {
    context->save_for_backward({inverse});
    context->saved_data["copies"] = copies;
    return spread(x, order, copies);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const at::Tensor inverse = context->get_saved_variables()[0];
    return {gathered_sum(gradients[0], inverse, context->saved_data["copies"].toInt()), {}, {}, {}};
  }
};

struct GatheredSum : torch::autograd::Function<GatheredSum> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows,
                            const at::Tensor& order, const at::Tensor& inverse, int64_t copies) {
    context->save_for_backward({order});
    context->saved_data["copies"] = copies;
    return gathered_sum(rows, inverse, copies);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const at::Tensor order = context->get_saved_variables()[0];
    return {spread(gradients[0], order, context->saved_data["copies"].toInt()), {}, {}, {}};
  }
};

at::Tensor inverse_permutation(const at::Tensor& order) {
  at::Tensor inverse = at::empty_like(order);
  return inverse.scatter_(0, order, at::arange(order.size(0), order.options()));
}

}  // namespace

Mlp::Mlp(int64_t d_model, int64_t width, double dropout) : dropout_(dropout) {
  in_ = register_parameter("in", linear_weight(width, d_model));
  out_ = register_parameter("out", linear_weight(d_model, width));
}

at::Tensor Mlp::forward(const at::Tensor& hidden) {
  const at::Tensor active = at::silu(at::linear(hidden, in_));
  return at::linear(at::dropout(active, dropout_, is_training()), out_);
}

Moe::Moe(int64_t d_model, const ModelConfig& config)
    : n_active_(config.n_active), router_noise_(config.router_noise) {
  router_ = register_parameter("router", linear_weight(config.n_experts, d_model));
  for (int64_t e = 0; e < config.n_experts; ++e) {
    experts_.push_back(
        register_module("expert" + std::to_string(e),
                        std::make_shared<Mlp>(d_model, config.expert_width, config.dropout)));
  }
}

MlpOutput Moe::forward(const at::Tensor& hidden) {
  const at::Tensor tokens = hidden.flatten(0, 1);
  at::Tensor logits = at::linear(tokens, router_);
  if (is_training() && router_noise_ > 0) {
    logits = logits + at::randn_like(logits) * router_noise_;
  }
  // A stable sort, not topk: equal logits must go to the same expert on every run and device.
  const auto [sorted, ids] = logits.sort(/*stable=*/true, /*dim=*/-1, /*descending=*/true);
  const at::Tensor chosen = ids.narrow(1, 0, n_active_).contiguous();
  const at::Tensor shares = sorted.narrow(1, 0, n_active_).softmax(-1);
  const at::Tensor mixed = all_experts ? mixed_from_all(tokens, chosen, shares)
                                       : mixed_from_sorted(tokens, chosen, shares);
  return {mixed.view(hidden.sizes()), load_balance_loss(logits, chosen)};
}

at::Tensor Moe::mixed_from_all(const at::Tensor& tokens, const at::Tensor& chosen,
                               const at::Tensor& shares) {
  at::Tensor mixed = at::zeros_like(tokens);
  for (size_t e = 0; e < experts_.size(); ++e) {
    const at::Tensor share = at::where(chosen == static_cast<int64_t>(e), shares, 0.0).sum(1, true);
    mixed = mixed + experts_[e]->forward(tokens) * share;
  }
  return mixed;
}

at::Tensor Moe::mixed_from_sorted(const at::Tensor& tokens, const at::Tensor& chosen,
                                  const at::Tensor& shares) {
  const at::Tensor slots = chosen.flatten();
  const at::Tensor order = std::get<1>(slots.sort(/*stable=*/true, 0, /*descending=*/false));
  const at::Tensor inverse = inverse_permutation(order);
  const at::Tensor rows = Spread::apply(tokens, order, inverse, n_active_);
  const auto n_experts = static_cast<int64_t>(experts_.size());
  const at::Tensor done = experts_on_sorted(rows, at::bincount(slots, {}, n_experts));
  const at::Tensor weighted =
      done * Spread::apply(shares.flatten().unsqueeze(1), order, inverse, 1);
  return GatheredSum::apply(weighted, order, inverse, n_active_);
}

at::Tensor Moe::experts_on_sorted(const at::Tensor& rows, const at::Tensor& tokens_per_expert) {
  const at::Tensor counts = tokens_per_expert.cpu();
  std::vector<at::Tensor> parts;
  int64_t start = 0;
  for (size_t e = 0; e < experts_.size(); ++e) {
    const int64_t count = counts.data_ptr<int64_t>()[e];
    parts.push_back(experts_[e]->forward(rows.narrow(0, start, count)));
    start += count;
  }
  return at::cat(parts);
}

at::Tensor load_balance_loss(const at::Tensor& logits, const at::Tensor& chosen) {
  const int64_t n_experts = logits.size(1);
  const at::Tensor served = at::bincount(chosen.flatten(), {}, n_experts).to(logits.scalar_type());
  const at::Tensor share = served / static_cast<double>(chosen.numel());
  return (share * logits.softmax(-1).mean(0)).sum() * static_cast<double>(n_experts);
}

}  // namespace dsa
