// The leak audit's core: does a position's prediction depend on tokens that come after it?
#include "model/transformer.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

namespace dsa {
namespace {

constexpr int64_t kCopiesAtOnce = 16;

/// Rounding differs between the copies because experts see other group sizes; a real leak is far
/// larger than this part of the largest logit.
constexpr double kTolerance = 5e-6;

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

class EvalMode {
 public:
  explicit EvalMode(torch::nn::Module& module) : module_(module), was_(module.is_training()) {
    module_.eval();
  }
  ~EvalMode() { module_.train(was_); }
  EvalMode(const EvalMode&) = delete;
  EvalMode& operator=(const EvalMode&) = delete;

 private:
  torch::nn::Module& module_;
  bool was_;
};

}  // namespace

int64_t positions_that_see_the_future(Transformer& model, const at::Tensor& tokens,
                                      bool only_next) {
  require(tokens.dim() == 1 || (tokens.dim() == 2 && tokens.size(0) == 1),
          "the leak audit takes one sequence, int64 [T] or [1, T]; it got ", tokens.sizes());
  const at::NoGradGuard no_gradient;
  const EvalMode eval(model);
  const at::Tensor original = tokens.flatten();
  const int64_t length = original.size(0);
  // A copy is compared with the original at its own place in the batch: `random` draws by it.
  const at::Tensor expected = model.logits(original.expand({kCopiesAtOnce, -1}));
  const int64_t vocab = expected.size(2);
  const double threshold = kTolerance * expected.abs().max().item<double>();
  int64_t reacting = 0;
  for (int64_t first = 0; first < length - 1; first += kCopiesAtOnce) {
    const int64_t copies = std::min(kCopiesAtOnce, length - 1 - first);
    const at::Tensor logits =
        model.logits(altered_copies(original, vocab, first, copies, only_next));
    for (int64_t i = 0; i < copies; ++i) {
      const at::Tensor change = (logits[i][first + i] - expected[i][first + i]).abs().max();
      if (!(change.item<double>() <= threshold)) ++reacting;
    }
  }
  return reacting;
}

}  // namespace dsa
