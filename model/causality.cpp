#include "model/causality.h"

#include <ATen/Functions.h>
#include <ATen/TensorIndexing.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

namespace dsa {
namespace {

constexpr int64_t kCopiesAtOnce = 16;

/// Row i is `tokens` with everything after position first + i (or the next token alone) changed.
at::Tensor altered_copies(const at::Tensor& tokens, int64_t vocab, int64_t first, int64_t copies,
                          bool only_next) {
  const at::Tensor column = at::arange(tokens.size(0), tokens.options());
  const at::Tensor position = at::arange(first, first + copies, tokens.options()).unsqueeze(1);
  const at::Tensor later = only_next ? column == position + 1 : column > position;
  // 1 + c mod (V - 1) is never 0 mod V, so every replacement differs from the original.
  const at::Tensor shift = (column * 7919 + position * 104729).remainder(vocab - 1) + 1;
  return at::where(later, (tokens + shift).remainder(vocab), tokens.expand({copies, -1}));
}

at::Tensor one_sequence(const at::Tensor& tokens) {
  require(tokens.dim() == 1 || (tokens.dim() == 2 && tokens.size(0) == 1),
          "the causality audit takes one sequence, int64 [T] or [1, T]; it got ", tokens.sizes());
  return tokens.flatten();
}

/// Row i: what the head reads at position first + i of copy i.
at::Tensor own_positions(const at::Tensor& hidden, int64_t first, int64_t copies) {
  const at::Tensor copy = at::arange(copies, at::TensorOptions(at::kLong));
  return hidden.index({copy, copy + first});
}

}  // namespace

int64_t positions_that_see_the_future(Transformer& model, const at::Tensor& tokens, bool only_next,
                                      double tolerance) {
  const at::Tensor original = one_sequence(tokens);
  const at::NoGradGuard no_gradient;
  const EvalMode eval(model);
  const int64_t length = original.size(0), vocab = model.vocab_size();
  const auto logits_of = [&](const at::Tensor& copies, int64_t first) {
    const at::Tensor hidden = model.hidden_of(model.embed(copies));
    return at::linear(own_positions(hidden, first, copies.size(0)), model.embedding());
  };
  int64_t reacting = 0;
  for (int64_t first = 0; first < length - 1; first += kCopiesAtOnce) {
    const int64_t copies = std::min(kCopiesAtOnce, length - 1 - first);
    // A copy is compared with the original at its own place in the batch: `random` draws by it.
    const at::Tensor expected = logits_of(original.expand({copies, -1}), first);
    const at::Tensor actual =
        logits_of(altered_copies(original, vocab, first, copies, only_next), first);
    const double threshold = tolerance * expected.abs().max().item<double>();
    const at::Tensor same = (actual - expected).abs().amax(1) <= threshold;  // false for NaN
    reacting += copies - same.sum().item<int64_t>();
  }
  return reacting;
}

int64_t positions_with_gradients_to_the_future(Transformer& model, const at::Tensor& tokens) {
  const at::Tensor original = one_sequence(tokens);
  const EvalMode eval(model);
  const int64_t length = original.size(0);
  int64_t reacting = 0;
  for (int64_t first = 0; first < length - 1; first += kCopiesAtOnce) {
    const int64_t copies = std::min(kCopiesAtOnce, length - 1 - first);
    at::Tensor input = model.embed(original.expand({copies, -1})).detach();
    input.requires_grad_(true);
    const at::Tensor rows = own_positions(model.hidden_of(input), first, copies);
    const at::Tensor log_p = at::log_softmax(at::linear(rows, model.embedding()), -1);
    const at::Tensor targets = original.narrow(0, first + 1, copies).unsqueeze(1);
    const at::Tensor loss = -log_p.gather(1, targets).sum();
    const at::Tensor gradient = torch::autograd::grad({loss}, {input})[0];
    const at::Tensor column = at::arange(length, original.options());
    const at::Tensor position = at::arange(first, first + copies, original.options()).unsqueeze(1);
    const at::Tensor moved =
        (gradient.abs().amax(2) != 0).logical_and(column > position).any(1);  // NaN counts
    reacting += moved.sum().item<int64_t>();
  }
  return reacting;
}

}  // namespace dsa
