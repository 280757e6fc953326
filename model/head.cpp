#include "model/head.h"

#include "attention/fields.h"
#include "attention/rows.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

namespace dsa {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Enough rows that adding a chunk's part to the gradient of the weight costs little beside making it.
constexpr int64_t kLogitBytes = int64_t{96} << 20;

/// As many parts as the least number allows, of equal size: a short last one would be a slow product.
int64_t chunk_size(int64_t chunk, int64_t tokens, const at::Tensor& weight) {
  if (chunk > 0) return std::min(chunk, tokens);
  const int64_t row_bytes = weight.size(0) * weight.element_size();
  const int64_t most = std::max<int64_t>(16, kLogitBytes / row_bytes);
  const int64_t parts = std::max<int64_t>(1, (tokens + most - 1) / most);
  return std::max<int64_t>(1, (tokens + parts - 1) / parts);
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

/// What rows::cross_entropy does, of torch's operations.
void score_rows(at::Tensor& logits, const at::Tensor& wanted, double share, bool with_gradient,
                const at::Tensor& losses, const at::Tensor& correct) {
  const at::Tensor scored = wanted != kNotScored, target = wanted.clamp_min(0);
  const at::Tensor column = target.unsqueeze(1);
  const at::Tensor maximum = logits.amax(1);
  const at::Tensor target_logit = logits.gather(1, column).squeeze(1);
  correct.copy_(is_first_maximum(logits, maximum, target_logit, target) & scored);
  logits.sub_(maximum.unsqueeze(1)).exp_();
  const at::Tensor sum = logits.sum(1);
  losses.copy_((sum.log() + maximum - target_logit).masked_fill(~scored, 0.0));
  if (!with_gradient) return;
  const at::Tensor factor = scored.to(logits.scalar_type()) * share;
  logits.mul_((factor / sum).unsqueeze(1)).scatter_add_(1, column, -factor.unsqueeze(1));
}

/// Adds the chunk's part to the gradient of the weight; the first one is not added to zeros.
void add_weight_gradient(at::Tensor& sum, bool is_first, const at::Tensor& d_logits,
                         const at::Tensor& hidden) {
  if (sum.scalar_type() != hidden.scalar_type()) {
    const at::Tensor part = at::mm(d_logits.t(), hidden);
    is_first ? void(sum.copy_(part)) : rows::add_to(sum, part);
  } else if (is_first) {
    at::mm_out(sum, d_logits.t(), hidden);
  } else {
    sum.addmm_(d_logits.t(), hidden);
  }
}

HeadPass run(const at::Tensor& hidden, const at::Tensor& weight_in, const at::Tensor& targets,
             int64_t chunk, bool with_gradient) {
  const int64_t tokens = hidden.size(0);
  const at::Tensor weight = weight_in.to(hidden.scalar_type());
  const int64_t scored = (targets != kNotScored).sum().item<int64_t>();
  const double share = 1.0 / static_cast<double>(std::max<int64_t>(1, scored));
  HeadPass pass;
  pass.token_losses = at::empty({tokens}, hidden.options().dtype(at::kFloat));
  pass.correct = at::empty({tokens}, hidden.options().dtype(at::kBool));
  if (with_gradient) {
    pass.d_hidden = at::empty_like(hidden);
    pass.d_weight = at::empty_like(weight_in);
  }
  const int64_t size = chunk_size(chunk, tokens, weight);
  const at::Tensor buffer = at::empty({size, weight.size(0)}, hidden.options());
  const auto& score = rows::serves(buffer) ? rows::cross_entropy : score_rows;
  for (int64_t start = 0; start < tokens; start += size) {
    const int64_t rows = std::min(size, tokens - start);
    const auto here = [&](const at::Tensor& whole) { return whole.narrow(0, start, rows); };
    at::Tensor logits = buffer.narrow(0, 0, rows);
    at::mm_out(logits, here(hidden), weight.t());
    score(logits, here(targets), share, with_gradient, here(pass.token_losses), here(pass.correct));
    if (!with_gradient) continue;
    at::Tensor d_hidden = here(pass.d_hidden);
    at::mm_out(d_hidden, logits, weight);
    add_weight_gradient(pass.d_weight, start == 0, logits, here(hidden));
  }
  return pass;
}

using Tied = c10::intrusive_ptr<TiedGradient>;

c10::IValue capsule(const Tied& tied) {
  return c10::IValue::make_capsule(tied);
}

Tied tied_of(AutogradContext* context) {
  const auto capsule = context->saved_data["tied"].toCapsule();
  return c10::static_intrusive_pointer_cast<TiedGradient>(capsule);
}

struct LinearCrossEntropy : torch::autograd::Function<LinearCrossEntropy> {
  static variable_list forward(AutogradContext* context, const at::Tensor& hidden,
                               const at::Tensor& weight, const at::Tensor& targets, int64_t chunk,
                               bool with_gradient, const Tied& tied) {
    const HeadPass pass = run(hidden.contiguous(), weight, targets, chunk, with_gradient);
    if (with_gradient) context->save_for_backward({pass.d_hidden, pass.d_weight});
    if (tied) context->saved_data["tied"] = capsule(tied);
    context->mark_non_differentiable({pass.token_losses, pass.correct});
    const int64_t scored = (targets != kNotScored).sum().item<int64_t>();
    const at::Tensor loss =
        pass.token_losses.sum(at::kDouble) / static_cast<double>(std::max<int64_t>(1, scored));
    return {loss.to(weight.scalar_type()), pass.token_losses, pass.correct};
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor d_hidden = (saved[0] * gradients[0]).to(saved[0].scalar_type());
    if (context->saved_data.count("tied") == 0) {
      return {d_hidden, saved[1] * gradients[0], {}, {}, {}, {}};
    }
    // Nearly always the loss alone is asked for: 1, and no pass over the matrix.
    const bool is_whole = gradients[0].item<double>() == 1;
    tied_of(context)->of_head = is_whole ? saved[1] : saved[1] * gradients[0];
    return {d_hidden, {}, {}, {}, {}, {}};
  }
};

/// sum[tokens[i]] += rows[i], one after the other.
void add_rows(const at::Tensor& sum, const at::Tensor& tokens, const at::Tensor& rows) {
  if (!rows::serves(sum) || sum.scalar_type() != at::kFloat) {
    sum.index_add_(0, tokens, rows);
    return;
  }
  const int64_t width = sum.size(1);
  const auto* token = tokens.const_data_ptr<int64_t>();
  const auto* from = rows.const_data_ptr<float>();
  auto* to = sum.mutable_data_ptr<float>();
  for (int64_t i = 0; i < tokens.size(0); ++i) {
    for (int64_t j = 0; j < width; ++j) to[token[i] * width + j] += from[i * width + j];
  }
}

struct LookUp : torch::autograd::Function<LookUp> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& weight,
                            const at::Tensor& tokens, const Tied& tied) {
    context->save_for_backward({weight, tokens});
    context->saved_data["tied"] = capsule(tied);
    return at::embedding(weight, tokens);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    at::Tensor sum = std::move(tied_of(context)->of_head);
    if (!sum.defined()) sum = at::zeros_like(saved[0]);
    // The head's node still holds it if the graph is kept for another pass.
    if (sum.use_count() > 1 || sum.storage().use_count() > 1) sum = sum.clone();
    add_rows(sum, saved[1].flatten(), gradients[0].contiguous().flatten(0, 1));
    return {sum, {}, {}};
  }
};

}  // namespace

at::Tensor look_up(const at::Tensor& weight, const at::Tensor& tokens, const Tied& tied) {
  return LookUp::apply(weight, tokens, tied);
}

HeadOutput linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                                const at::Tensor& targets, int64_t chunk, const Tied& tied) {
  require(chunk >= 0, "head-chunk is ", chunk, "; it must be 0 or positive");
  require(hidden.dim() == 2 && weight.dim() == 2 && hidden.size(1) == weight.size(1) &&
              targets.dim() == 1 && targets.size(0) == hidden.size(0),
          "linear_cross_entropy: hidden is ", hidden.sizes(), ", weight ", weight.sizes(),
          ", targets ", targets.sizes(), "; they must be [N, d], [V, d], [N]");
  check_targets(targets, weight.size(0));
  const bool with_gradient =
      at::GradMode::is_enabled() && (hidden.requires_grad() || weight.requires_grad());
  const auto output =
      LinearCrossEntropy::apply(hidden, weight, targets, chunk, with_gradient, tied);
  return {output[0], output[1], output[2]};
}

}  // namespace dsa
