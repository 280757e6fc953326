#include "attention/cost.h"

#include "attention/door.h"

#include <algorithm>

namespace dsa {
namespace {

/// Sizes of one problem as doubles: products pass 2^53 only where nobody counts single FLOPs.
struct Sizes {
  double B, T, S, H, G, D, V, K, I, J;
  double visible, selected;     ///< pairs of the whole batch
  double element, accumulator;  ///< bytes
  double row;                   ///< columns of a key's k and v that lie apart

  explicit Sizes(const Problem& p)
      : B(double(p.batch)),
        T(double(p.queries)),
        S(double(p.keys)),
        H(double(p.heads)),
        G(double(p.kv_heads)),
        D(double(p.qk_width)),
        V(double(p.v_width)),
        K(double(p.top_k)),
        I(double(p.index_heads)),
        J(double(p.index_width)),
        visible(B * visible_pairs(p.queries, p.keys)),
        selected(B * selected_pairs(p.queries, p.keys, p.top_k)),
        element(double(c10::elementSize(p.dtype))),
        accumulator(double(c10::elementSize(accumulation_dtype(p.dtype)))),
        row(p.values_in_keys ? D : D + V) {}

  double selection_bytes() const { return 4 * B * T * (K + 1); }
  double q_bytes() const { return element * B * T * H * D; }
  double out_bytes() const { return element * B * T * H * V; }
  double lse_bytes() const { return accumulator * B * T * H; }
  double kv_bytes(double rows, double width) const { return element * rows * G * width; }
  double indexer_bytes(double key_rows) const {
    return element * (B * T * I * (J + 1) + key_rows * J);
  }
  /// Key rows of the whole batch that a selection can name.
  double selectable() const { return std::min(B * S, selected); }
};

Cost attention_cost(const Sizes& s, Pass pass, double pairs, double key_rows, double ids,
                    double backward_flops) {
  Cost c;
  c.flops = 2 * s.H * (s.D + s.V) * pairs;
  c.bytes_read = s.q_bytes() + s.kv_bytes(key_rows, s.row) + ids;
  c.bytes_written = s.out_bytes() + s.lse_bytes();
  if (pass == Pass::kForward) return c;
  c.flops += backward_flops;
  // q, k, v again, and out, dout, lse; a gradient is written for every key, selected or not.
  c.bytes_read +=
      s.q_bytes() + s.kv_bytes(key_rows, s.row) + ids + 2 * s.out_bytes() + s.lse_bytes();
  c.bytes_written += s.q_bytes() + s.kv_bytes(s.B * s.S, s.D + s.V);
  return c;
}

Cost indexer_cost(const Sizes& s, Pass pass, double pairs, double key_rows, double score_bytes,
                  double ids) {
  Cost c;
  c.flops = 2 * s.I * s.J * pairs;
  c.bytes_read = s.indexer_bytes(key_rows) + ids;
  c.bytes_written = score_bytes;
  if (pass == Pass::kForward) return c;
  c.flops += 2 * s.I * s.J * 3 * pairs;
  c.bytes_read += s.indexer_bytes(key_rows) + ids + score_bytes;
  c.bytes_written += s.indexer_bytes(s.B * s.S);
  return c;
}

}  // namespace

double visible_pairs(int64_t queries, int64_t keys) {
  const double T = double(queries), S = double(keys);
  return T * (S - T) + T * (T + 1) / 2;
}

double selected_pairs(int64_t queries, int64_t keys, int64_t top_k) {
  // The first queries see fewer than K keys: visible counts run from S - T + 1 to S.
  const int64_t fewest = keys - queries + 1;
  const int64_t short_rows = std::clamp<int64_t>(top_k - fewest, 0, queries);
  const double n = double(short_rows);
  return n * double(fewest) + n * (n - 1) / 2 +
         double(queries - short_rows) * double(std::min(top_k, keys));
}

Cost cost(Op op, Pass pass, const Problem& problem) {
  const Sizes s(problem);
  const double scores = s.accumulator * s.B * s.T * s.S;
  switch (op) {
    case Op::kDense:
      return attention_cost(s, pass, s.visible, s.B * s.S, 0,
                            2.5 * 2 * s.H * (s.D + s.V) * s.visible);
    case Op::kSparse:
      return attention_cost(s, pass, s.selected, s.selectable(), s.selection_bytes(),
                            2 * s.H * (3 * s.D + 2 * s.V) * s.selected);
    case Op::kIndexerScores:
      return indexer_cost(s, pass, s.visible, s.B * s.S, scores, 0);
    case Op::kSelectedScores:
      return indexer_cost(s, pass, s.selected, s.selectable(), s.accumulator * s.B * s.T * s.K,
                          s.selection_bytes());
    case Op::kSelectTopK:
      return {0, s.accumulator * s.visible, s.selection_bytes()};
    case Op::kIndexerSelect:
      return {2 * s.I * s.J * s.visible, s.indexer_bytes(s.B * s.S), s.selection_bytes()};
    case Op::kAttentionMass:
      return {2 * s.H * s.D * s.selected,
              s.q_bytes() + s.kv_bytes(s.selectable(), s.D) + s.lse_bytes() + s.selection_bytes(),
              s.accumulator * s.B * s.T * s.K};
  }
  return {};
}

double flop_ratio(const Problem& problem) {
  return flop_ratio(problem, problem);
}

double flop_ratio(const Problem& dense, const Problem& sparse) {
  return cost(Op::kDense, Pass::kForward, dense).flops /
         (cost(Op::kIndexerSelect, Pass::kForward, sparse).flops +
          cost(Op::kSparse, Pass::kForward, sparse).flops);
}

}  // namespace dsa
