// Sparse-attention forward and attention mass as templates on the ISA. A block of queries goes
// through three phases: scores, softmax, values. The first and last walk panels of keys.
#pragma once
#include "attention/cpu/attend_panels.h"
#include "attention/cpu/bf16.h"

namespace dsa::cpu {

/// q of the block, scaled so that scores are base-2 exponents: [queries][heads][padded].
template <class Isa, class Element>
void scale_queries_of(const QueryBlock& b, float* scaled) {
  const auto factor = Isa::set1(b.scale * kLog2E);
  for (int64_t t = 0; t < b.queries; ++t)
    for (int64_t h = 0; h < b.heads; ++h) {
      const Element* q = static_cast<const Element*>(b.q) + t * b.q_token + h * b.width;
      for (int64_t x = 0; x < b.padded; x += Isa::kWidth, scaled += Isa::kWidth)
        Isa::store(scaled, Isa::mul(factor, load_lanes<Isa>(q + x, b.width - x)));
    }
}

template <class Isa>
void scale_queries(const QueryBlock& b, float* scaled) {
  if (b.bf16) return scale_queries_of<Isa, Bf16>(b, scaled);
  scale_queries_of<Isa, float>(b, scaled);
}

/// Groups of the block's selection.
template <class Isa>
int64_t query_groups(const QueryBlock& b) {
  int64_t groups = 0;
  for (int64_t t = 0; t < b.queries; ++t) groups += (b.counts[t] + Isa::kWidth - 1) / Isa::kWidth;
  return groups;
}

template <class Isa>
int64_t query_order_words(const QueryBlock& b) {
  return panels_scratch<Isa>(query_groups<Isa>(b), (b.keys >> b.panel_shift) + 1);
}

template <class Isa>
Panels query_panels(const QueryBlock& b, int32_t* order) {
  return panels_in<Isa>(order, b.panel_shift, b.keys, query_groups<Isa>(b));
}

template <class Isa>
void query_order(const QueryBlock& b) {
  sort_groups<Isa>(
      query_panels<Isa>(b, b.order), b.queries, [&](int64_t t) { return b.ids + t * b.top_k; },
      [&](int64_t t) -> int64_t { return b.counts[t]; });
}

/// The caller's order, or one made at `scratch`.
template <class Isa>
Panels sorted_panels(QueryBlock b, float* scratch) {
  if (b.order == nullptr) {
    b.order = reinterpret_cast<int32_t*>(scratch);
    query_order<Isa>(b);
  }
  return query_panels<Isa>(b, b.order);
}

/// walk_groups over the block's selection while rows of `width` floats are read.
template <class Isa, class Visit>
[[gnu::always_inline]] inline void walk_block(const QueryBlock& b, const Panels& panels,
                                              const float* rows, int64_t width,
                                              const Visit& visit) {
  walk_groups<Isa>(
      panels, [&](int64_t t) -> int64_t { return b.counts[t]; }, PanelRows{rows, width},
      PanelRows{nullptr, 0}, visit);
}

/// Base-2 scores of every selected pair: scores[queries][heads][rounded top_k], the padding lowest.
template <class Isa>
void score_phase(const QueryBlock& b, const Panels& panels, const float* scaled, float* scores) {
  const int64_t stride = rounded_up<Isa>(b.top_k);
  // Inlined by force: g++ makes a call of it otherwise, 2 % of a forward pass.
  walk_block<Isa>(
      b, panels, b.k, b.padded,
      [&](int64_t t, int64_t slot, const int32_t* ids, typename Isa::Mask lanes)
          __attribute__((always_inline)) {
            for (int64_t h = t * b.heads; h < (t + 1) * b.heads; ++h) {
              const auto s = dots<Isa>(scaled + h * b.padded, b.k, b.padded, ids);
              Isa::store(scores + h * stride + slot, Isa::blend(lanes, s, Isa::set1(kLowest)));
            }
          });
}

struct Softmax {
  float lse;      ///< natural logarithm
  float inverse;  ///< 1 / sum of the exponentials
};

/// scores -> exponentials relative to the largest, in place.
template <class Isa>
Softmax exponentiate(float* scores, int64_t count) {
  auto largest = Isa::set1(kLowest), poison = Isa::zero();
  for (int64_t c = 0; c < count; c += Isa::kWidth) {
    const auto s = Isa::load(scores + c);
    largest = Isa::max(largest, s);
    // max and exp2 lose a NaN; an infinite or NaN score must reach the output.
    poison = Isa::fma(s, Isa::zero(), poison);
  }
  const float top = Isa::reduce_max(largest);
  const auto shift = Isa::set1(top);
  auto sum = poison;
  for (int64_t c = 0; c < count; c += Isa::kWidth) {
    const auto e = exp2<Isa>(Isa::sub(Isa::load(scores + c), shift));
    sum = Isa::add(sum, e);
    Isa::store(scores + c, e);
  }
  const float total = Isa::reduce_add(sum);
  return {(top + __builtin_log2f(total)) * kLn2, 1.0f / total};
}

template <class Isa>
void softmax_phase(const ForwardBlock& f, float* scores, float* inverse) {
  const QueryBlock& b = f.query;
  const int64_t stride = rounded_up<Isa>(b.top_k);
  for (int64_t t = 0; t < b.queries; ++t)
    for (int64_t h = 0; h < b.heads; ++h) {
      const int64_t i = t * b.heads + h;
      Softmax done{-__builtin_inff(), 0.0f};
      if (b.counts[t] > 0) done = exponentiate<Isa>(scores + i * stride, b.counts[t]);
      f.lse[t * f.lse_token + h] = done.lse;
      inverse[i] = done.inverse;
    }
}

/// sums[queries][heads][v_padded] = sum of exponential * v row.
template <class Isa>
void value_phase(const ForwardBlock& f, const Panels& panels, const float* scores, float* sums) {
  const QueryBlock& b = f.query;
  const int64_t stride = rounded_up<Isa>(b.top_k);
  for (int64_t i = 0; i < b.queries * b.heads * f.v_padded; i += Isa::kWidth)
    Isa::store(sums + i, Isa::zero());
  walk_block<Isa>(b, panels, f.v, f.v_padded,
                  [&](int64_t t, int64_t slot, const int32_t* ids, typename Isa::Mask) {
                    for (int64_t h = t * b.heads; h < (t + 1) * b.heads; ++h)
                      add_rows<Isa>(sums + h * f.v_padded, f.v, f.v_padded, ids,
                                    scores + h * stride + slot, Isa::kWidth);
                  });
}

template <class Isa, class Element>
void store_outputs(const ForwardBlock& f, const float* sums, const float* inverse) {
  const QueryBlock& b = f.query;
  for (int64_t t = 0; t < b.queries; ++t)
    for (int64_t h = 0; h < b.heads; ++h) {
      const int64_t i = t * b.heads + h;
      Element* out = static_cast<Element*>(f.out) + t * f.out_token + h * f.v_width;
      const auto factor = Isa::set1(inverse[i]);
      for (int64_t x = 0; x < f.v_width; x += Isa::kWidth)
        store_lanes<Isa>(out + x, Isa::mul(factor, Isa::load(sums + i * f.v_padded + x)),
                         f.v_width - x);
    }
}

template <class Isa>
int64_t query_scratch(const QueryBlock& b) {
  return b.queries * b.heads * (b.padded + rounded_up<Isa>(b.top_k)) +
         rounded_up<Isa>(b.queries * b.heads) +
         (b.order == nullptr ? query_order_words<Isa>(b) : 0);
}

template <class Isa>
int64_t forward_scratch(const ForwardBlock& f) {
  return query_scratch<Isa>(f.query) + f.query.queries * f.query.heads * f.v_padded;
}

/// The block of the next kv head.
inline void next_kv_head(ForwardBlock& f) {
  QueryBlock& b = f.query;
  const int64_t element = b.bf16 ? sizeof(Bf16) : sizeof(float);
  b.q = static_cast<const char*>(b.q) + b.heads * b.width * element;
  b.k += b.keys * b.padded;
  f.v += b.keys * f.v_padded;
  f.out = static_cast<char*>(f.out) + b.heads * f.v_width * element;
  f.lse += b.heads;
}

template <class Isa>
void forward_block(const ForwardBlock& block) {
  const QueryBlock& b = block.query;
  const int64_t rows = b.queries * b.heads;
  float* scaled = b.scratch;
  float* scores = scaled + rows * b.padded;
  float* sums = scores + rows * rounded_up<Isa>(b.top_k);
  float* inverse = sums + rows * block.v_padded;
  const Panels panels = sorted_panels<Isa>(b, inverse + rounded_up<Isa>(rows));
  ForwardBlock f = block;
  for (int64_t g = 0; g < block.kv_heads; ++g, next_kv_head(f)) {
    scale_queries<Isa>(f.query, scaled);
    score_phase<Isa>(f.query, panels, scaled, scores);
    softmax_phase<Isa>(f, scores, inverse);
    value_phase<Isa>(f, panels, scores, sums);
    if (b.bf16)
      store_outputs<Isa, Bf16>(f, sums, inverse);
    else
      store_outputs<Isa, float>(f, sums, inverse);
  }
}

template <class Isa>
int64_t mass_scratch(const MassBlock& m) {
  return query_scratch<Isa>(m.query);
}

/// mass += weight * probability of each selected key, head after head.
template <class Isa>
void mass_block(const MassBlock& m) {
  const QueryBlock& b = m.query;
  const int64_t rows = b.queries * b.heads, stride = rounded_up<Isa>(b.top_k);
  float* scaled = b.scratch;
  float* scores = scaled + rows * b.padded;
  scale_queries<Isa>(b, scaled);
  score_phase<Isa>(b, sorted_panels<Isa>(b, scores + rows * stride), scaled, scores);
  const auto weight = Isa::set1(m.weight);
  for (int64_t t = 0; t < b.queries; ++t)
    for (int64_t h = 0; h < b.heads; ++h) {
      const auto shift = Isa::set1(m.lse[t * m.lse_token + h] * kLog2E);
      const float* s = scores + (t * b.heads + h) * stride;
      float* mass = m.mass + t * b.top_k;
      for (int64_t c = 0; c < b.counts[t]; c += Isa::kWidth) {
        const auto lanes = Isa::first(b.counts[t] - c);
        const auto p = exp2<Isa>(Isa::sub(Isa::load(s + c), shift));
        Isa::store(mass + c, Isa::fma(weight, p, Isa::load(mass + c, lanes)), lanes);
      }
    }
}

}  // namespace dsa::cpu
