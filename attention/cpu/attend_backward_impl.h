// Sparse-attention backward as templates on the ISA: no atomics, each gradient row is summed by one
// thread in the order of its list. Both passes recompute the probability of a pair from q . k and
// lse: cheaper than 8 bytes a pair scattered to the other pass, and O(1) memory.
#pragma once
#include "attention/cpu/attend_panels.h"

namespace dsa::cpu {

/// Probabilities and score gradients of a register's worth of pairs.
template <class Isa>
struct Pairs {
  typename Isa::Reg p, ds;
};

/// @param lse2, delta  of the query of each pair
template <class Isa>
[[gnu::always_inline]] inline Pairs<Isa> pairs_of(const GradBlock& g, int64_t centre,
                                                  const int32_t* ids, typename Isa::Mask valid,
                                                  typename Isa::Reg lse2, typename Isa::Reg delta) {
  const auto s = dots<Isa>(g.centre_qk + centre * g.padded, g.neighbour_qk, g.padded, ids);
  const auto dp = dots<Isa>(g.centre_v + centre * g.v_padded, g.neighbour_v, g.v_padded, ids);
  const auto exponent = Isa::sub(Isa::mul(s, Isa::set1(g.scale * kLog2E)), lse2);
  const auto p = Isa::keep(valid, exp2<Isa>(exponent));
  const auto ds = Isa::mul(Isa::mul(p, Isa::set1(g.scale)), Isa::sub(dp, delta));
  return {p, Isa::keep(valid, ds)};
}

/// Lane j is values[ids[j]].
template <class Isa>
[[gnu::always_inline]] inline typename Isa::Reg gathered(const float* values, const int32_t* ids) {
  float lanes[Isa::kWidth];
#pragma GCC unroll 16
  for (int j = 0; j < Isa::kWidth; ++j) lanes[j] = values[ids[j]];
  return Isa::load(lanes);
}

template <class Isa>
int64_t centre_groups(const GradBlock& g) {
  int64_t groups = 0;
  for (int64_t c = g.begin; c < g.end; ++c) groups += (g.count[c] + Isa::kWidth - 1) / Isa::kWidth;
  return groups;
}

template <class Isa>
int64_t grad_order_words(const GradBlock& g) {
  return panels_scratch<Isa>(centre_groups<Isa>(g), (g.neighbours >> g.panel_shift) + 1);
}

/// The lists of a block and the panels that order them.
template <class Isa>
struct CentreLists {
  const GradBlock& g;
  Panels panels = panels_in<Isa>(g.order, g.panel_shift, g.neighbours, centre_groups<Isa>(g));

  const int32_t* operator()(int64_t i) const { return g.ids + g.first[g.begin + i]; }
  int64_t count(int64_t i) const { return g.count[g.begin + i]; }
};

/// Depends on the ids alone, so it is done once for all heads.
template <class Isa>
void grad_order(const GradBlock& g) {
  const CentreLists<Isa> lists{g};
  sort_groups<Isa>(lists.panels, g.end - g.begin, lists, [&](int64_t i) { return lists.count(i); });
}

template <class Isa, class Visit>
[[gnu::always_inline]] inline void walk_centres(const GradBlock& g, const Visit& visit) {
  const CentreLists<Isa> lists{g};
  walk_groups<Isa>(
      lists.panels, [&](int64_t i) { return lists.count(i); }, PanelRows{g.neighbour_qk, g.padded},
      PanelRows{g.neighbour_v, g.v_padded},
      [&](int64_t i, int64_t, const int32_t* ids, typename Isa::Mask lanes) {
        visit(g.begin + i, ids, lanes);
      });
}

/// dq of a block of queries.
template <class Isa>
void query_grads(const GradBlock& g) {
  walk_centres<Isa>(g, [&](int64_t t, const int32_t* keys, typename Isa::Mask valid) {
    const auto pairs =
        pairs_of<Isa>(g, t, keys, valid, Isa::set1(g.lse2[t]), Isa::set1(g.delta[t]));
    float ds[Isa::kWidth];
    Isa::store(ds, pairs.ds);
    add_rows<Isa>(g.grad_qk + t * g.padded, g.neighbour_qk, g.padded, keys, ds, Isa::kWidth);
  });
}

/// dk and dv of a block of keys.
template <class Isa>
void key_grads(const GradBlock& g) {
  walk_centres<Isa>(g, [&](int64_t s, const int32_t* queries, typename Isa::Mask valid) {
    const auto pairs = pairs_of<Isa>(g, s, queries, valid, gathered<Isa>(g.lse2, queries),
                                     gathered<Isa>(g.delta, queries));
    float p[Isa::kWidth], ds[Isa::kWidth];
    Isa::store(p, pairs.p);
    Isa::store(ds, pairs.ds);
    add_rows<Isa>(g.grad_qk + s * g.padded, g.neighbour_qk, g.padded, queries, ds, Isa::kWidth);
    add_rows<Isa>(g.grad_v + s * g.v_padded, g.neighbour_v, g.v_padded, queries, p, Isa::kWidth);
  });
}

}  // namespace dsa::cpu
