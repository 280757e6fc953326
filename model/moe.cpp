#include "model/moe.h"

#include "attention/rows.h"
#include "attention/weights.h"

#include <ATen/Functions.h>
#include <torch/csrc/autograd/custom_function.h>

namespace dsa {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Rows of x in expert order: row i is x[slot_of[i] / copies].
struct Spread : torch::autograd::Function<Spread> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& slot_of, const at::Tensor& of_slot, int64_t copies) {
    context->save_for_backward({of_slot});
    context->saved_data["copies"] = copies;
    return x.index_select(0, slot_of.div(copies, "floor"));
  }
  /// Every token sums its `copies` rows, found through their places: a gather and a sum in a fixed
  /// order, where index_add would need atomics on a GPU.
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const at::Tensor of_slot = context->get_saved_variables()[0];
    const int64_t copies = context->saved_data["copies"].toInt();
    if (!rows::serves(gradients[0])) {
      return {gradients[0].index_select(0, of_slot).unflatten(0, {-1, copies}).sum(1), {}, {}, {}};
    }
    const at::Tensor ones = at::ones({of_slot.size(0) / copies, copies}, at::kFloat);
    return {rows::mix(gradients[0].contiguous(), of_slot, ones), {}, {}, {}};
  }
};

/// oneDNN compiles a bfloat16 product anew for every size, in 1 to 3 ms; few sizes stay compiled.
constexpr int64_t kRowsOfProduct = 64;

/// Where (token, slot) pairs go when those of an expert stand together.
struct Places {
  at::Tensor of_slot;  ///< int64 [slots], the row of each
  at::Tensor slot_of;  ///< int64 [rows], the slot of each; some slot where a row is only padding
  at::Tensor rows;     ///< int64 [experts] on the CPU, multiples of `step`
};

/// @param slots  int64 [tokens * copies], the expert of each
Places places_of(const at::Tensor& slots, int64_t n_experts, int64_t step) {
  const at::Tensor order = std::get<1>(slots.sort(/*stable=*/true, 0, /*descending=*/false));
  const at::Tensor all = at::arange(slots.size(0), slots.options());
  const at::Tensor used = at::bincount(slots, {}, n_experts);
  const at::Tensor rows = (used + (step - 1)).div(step, "floor") * step;
  const at::Tensor padding_before = (rows - used).cumsum(0) - (rows - used);
  Places places;
  places.rows = rows.cpu();
  places.of_slot = at::empty_like(order).scatter_(0, order, all);
  places.of_slot += padding_before.index_select(0, slots);
  places.slot_of = at::zeros({places.rows.sum().item<int64_t>()}, slots.options());
  places.slot_of.scatter_(0, places.of_slot, all);
  return places;
}

}  // namespace

Mlp::Mlp(int64_t d_model, int64_t width, double dropout) : dropout_(dropout) {
  in_ = register_parameter("in", linear_weight(width, d_model));
  out_ = register_parameter("out", linear_weight(d_model, width));
}

at::Tensor Mlp::forward(const at::Tensor& hidden) {
  const at::Tensor rows = hidden.flatten(0, -2);
  const at::Tensor all = at::full({1}, rows.size(0), at::TensorOptions(at::kLong));
  return apply_experts(rows, {weights()}, all, dropout_, is_training()).view(hidden.sizes());
}

Moe::Moe(int64_t d_model, const ModelConfig& config)
    : n_active_(config.n_active), router_noise_(config.router_noise), dropout_(config.dropout) {
  router_ = register_parameter("router", linear_weight(config.n_experts, d_model));
  for (int64_t e = 0; e < config.n_experts; ++e) {
    experts_.push_back(
        register_module("expert" + std::to_string(e),
                        std::make_shared<Mlp>(d_model, config.expert_width, config.dropout)));
  }
}

MlpOutput Moe::forward(const at::Tensor& hidden) {
  const at::Tensor tokens = hidden.flatten(0, 1);
  // In bfloat16 too many logits would be equal, and the router's choice is the model's.
  at::Tensor logits = at::linear(tokens.to(router_.scalar_type()), router_);
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
  const Places places = places_of(chosen.flatten(), static_cast<int64_t>(experts_.size()),
                                  tokens.scalar_type() == at::kBFloat16 ? kRowsOfProduct : 1);
  const at::Tensor rows = Spread::apply(tokens, places.slot_of, places.of_slot, n_active_);
  std::vector<ExpertWeights> weights;
  for (const auto& expert : experts_) weights.push_back(expert->weights());
  const at::Tensor done = apply_experts(rows, weights, places.rows, dropout_, is_training());
  return mix_experts(done, places.of_slot, shares);
}

at::Tensor load_balance_loss(const at::Tensor& logits, const at::Tensor& chosen) {
  const int64_t n_experts = logits.size(1);
  const at::Tensor served = at::bincount(chosen.flatten(), {}, n_experts).to(logits.scalar_type());
  const at::Tensor share = served / static_cast<double>(chosen.numel());
  return (share * logits.softmax(-1).mean(0)).sum() * static_cast<double>(n_experts);
}

}  // namespace dsa
