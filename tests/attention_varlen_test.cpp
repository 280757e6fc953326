// Packed sequences of different lengths are the same as each sequence alone.
#include "attention/backend.h"
#include "attention/ops_varlen.h"

#include <ATen/Functions.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

using namespace dsa;
using Catch::Matchers::ContainsSubstring;

namespace {

constexpr int64_t kTopK = 6;

/// T of S: whole, decode, one token, no query, a suffix of queries; and more than a block of queries.
using Lengths = std::vector<std::pair<int64_t, int64_t>>;
const Lengths kLengths = {{13, 13}, {1, 20}, {1, 1}, {0, 5}, {4, 9}};
const Lengths kLonger = {{13, 13}, {1, 20}, {1, 1}, {301, 320}, {0, 5}, {4, 9}};

struct PackedShape {
  at::ScalarType dtype;
  int64_t heads, kv_heads, width, values;
};
constexpr PackedShape kSmall{at::kFloat, 4, 2, 16, 8};
const PackedShape kShapes[] = {kSmall,
                               {at::kBFloat16, 4, 2, 16, 8},
                               {at::kFloat, 2, 2, 64, 64},
                               {at::kBFloat16, 3, 3, 64, 96},
                               {at::kFloat, 16, 1, 72, 64},  // heads share rows
                               {at::kBFloat16, 32, 1, 96, 64}};

struct Packed {
  at::Tensor q, k, v, index_q, index_k, weight;
  ops::SequenceOffsets offsets;
};

Packed packed(const PackedShape& shape = kSmall, const Lengths& lengths = kLengths) {
  at::manual_seed(7);
  std::vector<int64_t> query{0}, key{0};
  for (const auto& [t, s] : lengths) {
    query.push_back(query.back() + t);
    key.push_back(key.back() + s);
  }
  const auto random = [&](at::IntArrayRef sizes) { return at::randn(sizes).to(shape.dtype); };
  return {random({query.back(), shape.heads, shape.width}),
          random({key.back(), shape.kv_heads, shape.width}),
          random({key.back(), shape.kv_heads, shape.values}),
          random({query.back(), 2, 8}),
          random({key.back(), 8}),
          random({query.back(), 2}),
          {at::tensor(query, at::kInt), at::tensor(key, at::kLong)}};
}

std::string refusal(const Packed& p, const ops::SequenceOffsets& offsets) {
  try {
    ops::indexer_select(p.index_q, p.index_k, p.weight, offsets, kTopK);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("packed sequences give what each sequence gives alone", "[varlen]") {
  const PackedShape shape = GENERATE(from_range(std::begin(kShapes), std::end(kShapes)));
  CAPTURE(shape.dtype, shape.heads, shape.kv_heads, shape.width, shape.values);
  Packed p = packed(shape, kLonger);
  for (at::Tensor* x : {&p.q, &p.k, &p.v}) x->requires_grad_();
  const auto chosen = ops::indexer_select(p.index_q, p.index_k, p.weight, p.offsets, kTopK);
  const auto sparse = ops::sparse_attention(p.q, p.k, p.v, chosen, p.offsets, 0.25);
  const auto dense = ops::dense_attention(p.q, p.k, p.v, p.offsets, 0.25);
  REQUIRE(sparse.out.sizes() == at::IntArrayRef({320, shape.heads, shape.values}));
  REQUIRE(sparse.lse.sizes() == at::IntArrayRef({320, shape.heads}));
  const at::Tensor dout = at::randn(sparse.out.sizes()).to(shape.dtype);
  sparse.out.backward(dout);
  int64_t t0 = 0, s0 = 0;
  for (const auto& [t, s] : kLonger) {
    if (t > 0) {
      INFO("sequence of " << t << " queries and " << s << " keys");
      const auto rows = [&](const at::Tensor& x) { return x.narrow(0, t0, t).unsqueeze(0); };
      const auto keys = [&](const at::Tensor& x) { return x.slice(0, s0, s0 + s).unsqueeze(0); };
      const auto leaf = [](const at::Tensor& x) { return x.detach().clone().requires_grad_(); };
      const auto own = ops::indexer_select(rows(p.index_q), keys(p.index_k), rows(p.weight), kTopK);
      CHECK(at::equal(own.indices, rows(chosen.indices)));
      CHECK(at::equal(own.count, rows(chosen.count)));
      const at::Tensor q = leaf(rows(p.q)), k = leaf(keys(p.k)), v = leaf(keys(p.v));
      const auto alone = ops::sparse_attention(q, k, v, own, 0.25);
      CHECK(at::equal(alone.out, rows(sparse.out)));
      CHECK(at::equal(alone.lse, rows(sparse.lse)));
      alone.out.backward(rows(dout));
      CHECK(at::equal(q.grad(), rows(p.q.grad())));
      CHECK(at::equal(k.grad(), keys(p.k.grad())));
      CHECK(at::equal(v.grad(), keys(p.v.grad())));
      CHECK(at::equal(ops::dense_attention(q, k, v, 0.25).out, rows(dense.out)));
    }
    t0 += t;
    s0 += s;
  }
}

TEST_CASE("gradients of packed sequences stay inside their sequence", "[varlen]") {
  Packed p = packed();
  p.k.requires_grad_();
  p.q.requires_grad_();
  const auto chosen = ops::indexer_select(p.index_q, p.index_k, p.weight, p.offsets, kTopK);
  const auto result = ops::sparse_attention(p.q, p.k, p.v, chosen, p.offsets, 0.25);
  result.out.narrow(0, 13, 1).sum().backward();  // the decode step of the second sequence
  const at::Tensor touched = p.k.grad().abs().sum({1, 2}).gt(0);
  CHECK(touched.slice(0, 13, 33).sum().item<int64_t>() == kTopK);
  CHECK(touched.sum().item<int64_t>() == kTopK);
  CHECK(p.q.grad().abs().sum({1, 2}).gt(0).sum().item<int64_t>() == 1);
}

TEST_CASE("offsets that do not fit are refused in one sentence", "[varlen]") {
  const Packed p = packed();
  const auto offsets = [](std::vector<int64_t> query, std::vector<int64_t> key) {
    return ops::SequenceOffsets{at::tensor(query, at::kLong), at::tensor(key, at::kLong)};
  };
  CHECK_THAT(refusal(p, offsets({0, 5, 18}, {0, 20, 48})), ContainsSubstring("run from 0 to 18"));
  CHECK_THAT(refusal(p, offsets({0, 9, 5, 19}, {0, 20, 30, 48})),
             ContainsSubstring("sequence 1 has -4 query tokens"));
  CHECK_THAT(refusal(p, offsets({0, 19}, {0, 20, 48})),
             ContainsSubstring("1 sequences of queries but 2 of keys"));
  CHECK_THAT(refusal(p, offsets({0, 18, 19}, {0, 17, 48})),
             ContainsSubstring("sequence 0 has 18 queries but only 17 keys"));
  CHECK_THAT(refusal(p, {at::zeros({2, 2}), at::zeros({3}, at::kLong)}),
             ContainsSubstring("must be int32 or int64 [N + 1]"));
  CHECK(refusal(p, p.offsets) == "accepted");
}
