#include "attention/cost.h"

#include <algorithm>

namespace dsa {
namespace {

struct Sizes {
  double q, kv, out, lse, index_inputs, ids, scores;  ///< bytes
};

Sizes bytes_of(const Problem& p) {
  const auto element = static_cast<double>(c10::elementSize(p.dtype));
  const auto rows = static_cast<double>(p.batch * p.queries);
  const auto keys = static_cast<double>(p.batch * p.keys);
  const auto heads = static_cast<double>(p.heads), groups = static_cast<double>(p.kv_heads);
  const auto width = static_cast<double>(p.qk_width), v_width = static_cast<double>(p.v_width);
  const auto index_heads = static_cast<double>(p.index_heads);
  const auto index_width = static_cast<double>(p.index_width);
  const double accumulator = p.dtype == c10::kDouble ? 8 : 4;
  return {rows * heads * width * element,
          keys * groups * (width + v_width) * element,
          rows * heads * v_width * element,
          rows * heads * accumulator,
          (rows * index_heads * (index_width + 1) + keys * index_width) * element,
          rows * static_cast<double>(p.top_k + 1) * 4,
          rows * static_cast<double>(p.top_k) * accumulator};
}

/// Gradients come in and go out in the shapes of outputs and inputs, which are read once more.
Cost with_backward(Cost forward, double backward_flops, double inputs, double outputs) {
  return {forward.flops + backward_flops, forward.bytes_read + inputs + 2 * outputs,
          forward.bytes_written + inputs};
}

}  // namespace

double visible_pairs(int64_t queries, int64_t keys) {
  const auto t = static_cast<double>(queries);
  return t * static_cast<double>(keys - queries) + t * (t + 1) / 2;
}

double selected_pairs(int64_t queries, int64_t keys, int64_t top_k) {
  // The first `short_rows` queries see fewer than top_k keys and read them all.
  const int64_t earlier = keys - queries;
  const int64_t short_rows = std::clamp<int64_t>(top_k - earlier, 0, queries);
  return visible_pairs(short_rows, short_rows + earlier) +
         static_cast<double>(queries - short_rows) * static_cast<double>(top_k);
}

Cost cost(Op op, Pass pass, const Problem& p) {
  const auto batch = static_cast<double>(p.batch), heads = static_cast<double>(p.heads);
  const auto d = static_cast<double>(p.qk_width), v = static_cast<double>(p.v_width);
  const double visible = batch * visible_pairs(p.queries, p.keys);
  const double selected = batch * selected_pairs(p.queries, p.keys, p.top_k);
  const double index_pair = 2.0 * static_cast<double>(p.index_heads * p.index_width);
  const double attention_pair = 2 * heads * (d + v);
  const Sizes bytes = bytes_of(p);
  const bool backward = pass == Pass::kForwardBackward;
  const double matrix_elements = p.dtype == c10::kDouble ? 8 * visible : 4 * visible;
  switch (op) {
    case Op::kDense: {
      const Cost forward{attention_pair * visible, bytes.q + bytes.kv, bytes.out + bytes.lse};
      return backward ? with_backward(forward, 2.5 * forward.flops, bytes.q + bytes.kv, bytes.out)
                      : forward;
    }
    case Op::kSparse: {
      const Cost forward{attention_pair * selected, bytes.q + bytes.kv + bytes.ids,
                         bytes.out + bytes.lse};
      const double backward_flops = 2 * heads * (3 * d + 2 * v) * selected;
      return backward ? with_backward(forward, backward_flops, bytes.q + bytes.kv, bytes.out)
                      : forward;
    }
    case Op::kIndexerScores: {
      const Cost forward{index_pair * visible, bytes.index_inputs, matrix_elements};
      return backward
                 ? with_backward(forward, 2 * forward.flops, bytes.index_inputs, matrix_elements)
                 : forward;
    }
    case Op::kSelectedScores: {
      const Cost forward{index_pair * selected, bytes.index_inputs + bytes.ids, bytes.scores};
      return backward ? with_backward(forward, 2 * forward.flops, bytes.index_inputs, bytes.scores)
                      : forward;
    }
    case Op::kIndexerSelect:
      return {index_pair * visible, bytes.index_inputs, bytes.ids};
    case Op::kSelectTopK:
      return {0, matrix_elements, bytes.ids};
    case Op::kAttentionMass:
      return {2 * heads * d * selected, bytes.q + bytes.kv * d / (d + v) + bytes.ids + bytes.lse,
              bytes.scores};
  }
  return {};
}

double flop_ratio(const Problem& problem) {
  const double sparse = cost(Op::kIndexerSelect, Pass::kForward, problem).flops +
                        cost(Op::kSparse, Pass::kForward, problem).flops;
  return cost(Op::kDense, Pass::kForward, problem).flops / sparse;
}

}  // namespace dsa
