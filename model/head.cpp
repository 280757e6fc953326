#include "model/head.h"

#include "attention/fields.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

namespace dsa {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kLogitBytes = int64_t{16} << 20;

int64_t chunk_size(int64_t chunk, int64_t tokens, const at::Tensor& weight) {
  if (chunk > 0) return std::min(chunk, tokens);
  const int64_t row_bytes = weight.size(0) * weight.element_size();
  return std::clamp<int64_t>(kLogitBytes / row_bytes, 16, std::max<int64_t>(16, tokens));
}

void check_targets(const at::Tensor& targets, int64_t vocab) {
  const at::Tensor wrong = (targets != kNotScored) & ((targets < 0) | (targets >= vocab));
  if (!wrong.any().item<bool>()) return;
  const int64_t token = wrong.nonzero()[0].item<int64_t>();
  throw Error("target " + std::to_string(targets[token].item<int64_t>()) + " at token " +
              std::to_string(token) + " is outside the vocabulary of " + std::to_string(vocab) +
              " ids; use -100 for a token that is not scored");
}

/// What one pass over the tokens leaves behind. Gradients are of the mean loss.
struct HeadPass {
  at::Tensor token_losses, correct, d_hidden, d_weight;
};

/// The target's logit equals the row's maximum; where several logits do, the first one counts.
at::Tensor is_first_maximum(const at::Tensor& logits, const at::Tensor& maximum,
                            const at::Tensor& target_logit, const at::Tensor& target) {
  at::Tensor correct = target_logit == maximum;
  const at::Tensor rows = correct.nonzero().squeeze(1);
  if (rows.numel() == 0) return correct;
  const at::Tensor first = logits.index_select(0, rows).argmax(1);
  correct.index_put_({rows}, first == target.index_select(0, rows));
  return correct;
}

/// Turns logits into exp(logit - max) in place and fills the rows' losses and hits.
/// @return the rows' sums of exponentials
at::Tensor score_rows(at::Tensor& logits, const at::Tensor& target, const at::Tensor& scored,
                      at::Tensor losses, at::Tensor correct) {
  const at::Tensor column = target.unsqueeze(1);
  const at::Tensor maximum = logits.amax(1);
  const at::Tensor target_logit = logits.gather(1, column).squeeze(1);
  correct.copy_(is_first_maximum(logits, maximum, target_logit, target) & scored);
  logits.sub_(maximum.unsqueeze(1)).exp_();
  at::Tensor sum = logits.sum(1);
  losses.copy_((sum.log() + maximum - target_logit).masked_fill(~scored, 0.0));
  return sum;
}

HeadPass run(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
             int64_t chunk, bool with_gradient) {
  const int64_t tokens = hidden.size(0);
  const at::Tensor scored = targets != kNotScored;
  const at::Tensor target = targets.clamp_min(0);
  const double share =
      1.0 / static_cast<double>(std::max<int64_t>(1, scored.sum().item<int64_t>()));
  HeadPass pass;
  pass.token_losses = at::empty({tokens}, hidden.options().dtype(at::kFloat));
  pass.correct = at::empty({tokens}, hidden.options().dtype(at::kBool));
  if (with_gradient) {
    pass.d_hidden = at::empty_like(hidden);
    pass.d_weight = at::zeros_like(weight);
  }
  const int64_t size = chunk_size(chunk, tokens, weight);
  at::Tensor buffer = at::empty({size, weight.size(0)}, hidden.options());
  for (int64_t start = 0; start < tokens; start += size) {
    const int64_t rows = std::min(size, tokens - start);
    const auto here = [&](const at::Tensor& whole) { return whole.narrow(0, start, rows); };
    at::Tensor logits = buffer.narrow(0, 0, rows);
    at::mm_out(logits, here(hidden), weight.t());
    const at::Tensor sum =
        score_rows(logits, here(target), here(scored), here(pass.token_losses), here(pass.correct));
    if (!with_gradient) continue;
    const at::Tensor factor = here(scored).to(hidden.scalar_type()) * share;
    at::Tensor d_logits = logits.mul_((factor / sum).unsqueeze(1));
    d_logits.scatter_add_(1, here(target).unsqueeze(1), -factor.unsqueeze(1));
    at::Tensor d_hidden = here(pass.d_hidden);
    at::mm_out(d_hidden, d_logits, weight);
    pass.d_weight.addmm_(d_logits.t(), here(hidden));
  }
  return pass;
}

struct LinearCrossEntropy : torch::autograd::Function<LinearCrossEntropy> {
  static variable_list forward(AutogradContext* context, const at::Tensor& hidden,
                               const at::Tensor& weight, const at::Tensor& targets, int64_t chunk,
                               bool with_gradient) {
    const HeadPass pass = run(hidden.contiguous(), weight, targets, chunk, with_gradient);
    if (with_gradient) context->save_for_backward({pass.d_hidden, pass.d_weight});
    context->mark_non_differentiable({pass.token_losses, pass.correct});
    const int64_t scored = (targets != kNotScored).sum().item<int64_t>();
    const at::Tensor loss =
        pass.token_losses.sum(at::kDouble) / static_cast<double>(std::max<int64_t>(1, scored));
    return {loss.to(hidden.scalar_type()), pass.token_losses, pass.correct};
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    return {saved[0] * gradients[0], saved[1] * gradients[0], {}, {}, {}};
  }
};

}  // namespace

HeadOutput linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                                const at::Tensor& targets, int64_t chunk) {
  require(chunk >= 0, "head-chunk is ", chunk, "; it must be 0 or positive");
  require(hidden.dim() == 2 && weight.dim() == 2 && hidden.size(1) == weight.size(1) &&
              targets.dim() == 1 && targets.size(0) == hidden.size(0),
          "linear_cross_entropy: hidden is ", hidden.sizes(), ", weight ", weight.sizes(),
          ", targets ", targets.sizes(), "; they must be [N, d], [V, d], [N]");
  check_targets(targets, weight.size(0));
  const bool with_gradient =
      at::GradMode::is_enabled() && (hidden.requires_grad() || weight.requires_grad());
  const auto output = LinearCrossEntropy::apply(hidden, weight, targets, chunk, with_gradient);
  return {output[0], output[1], output[2]};
}

}  // namespace dsa
