// Packed sequences of different lengths are the same as each sequence alone.
#include "attention/backend.h"
#include "attention/ops_varlen.h"

#include <ATen/Functions.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

using namespace dsa;
using Catch::Matchers::ContainsSubstring;

namespace {

constexpr int64_t kHeads = 4, kKvHeads = 2, kWidth = 16, kValues = 8, kTopK = 6;

/// T of S: whole, decode, one token, no query, a suffix of queries.
const std::vector<std::pair<int64_t, int64_t>> kLengths = {
    {13, 13}, {1, 20}, {1, 1}, {0, 5}, {4, 9}};

struct Packed {
  at::Tensor q, k, v, index_q, index_k, weight;
  ops::SequenceOffsets offsets;
};

Packed packed() {
  at::manual_seed(7);
  std::vector<int64_t> query{0}, key{0};
  for (const auto& [t, s] : kLengths) {
    query.push_back(query.back() + t);
    key.push_back(key.back() + s);
  }
  return {at::randn({query.back(), kHeads, kWidth}),
          at::randn({key.back(), kKvHeads, kWidth}),
          at::randn({key.back(), kKvHeads, kValues}),
          at::randn({query.back(), 2, 8}),
          at::randn({key.back(), 8}),
          at::randn({query.back(), 2}),
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
  const Packed p = packed();
  const auto chosen = ops::indexer_select(p.index_q, p.index_k, p.weight, p.offsets, kTopK);
  const auto sparse = ops::sparse_attention(p.q, p.k, p.v, chosen, p.offsets, 0.25);
  const auto dense = ops::dense_attention(p.q, p.k, p.v, p.offsets, 0.25);
  REQUIRE(sparse.out.sizes() == at::IntArrayRef({19, kHeads, kValues}));
  REQUIRE(sparse.lse.sizes() == at::IntArrayRef({19, kHeads}));
  int64_t t0 = 0, s0 = 0;
  for (const auto& [t, s] : kLengths) {
    if (t > 0) {
      const auto rows = [&](const at::Tensor& x) { return x.narrow(0, t0, t).unsqueeze(0); };
      const auto keys = [&](const at::Tensor& x) { return x.slice(0, s0, s0 + s).unsqueeze(0); };
      const auto own = ops::indexer_select(rows(p.index_q), keys(p.index_k), rows(p.weight), kTopK);
      CHECK(at::equal(own.indices, rows(chosen.indices)));
      CHECK(at::equal(own.count, rows(chosen.count)));
      const auto alone = ops::sparse_attention(rows(p.q), keys(p.k), keys(p.v), own, 0.25);
      CHECK(at::equal(alone.out, rows(sparse.out)));
      CHECK(at::equal(alone.lse, rows(sparse.lse)));
      const auto full = ops::dense_attention(rows(p.q), keys(p.k), keys(p.v), 0.25);
      CHECK(at::equal(full.out, rows(dense.out)));
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
