// Properties every backend shares, whatever its speed. Truth is `reference` on float64 inputs.
#include "attention/backend.h"
#include "attention/ops.h"
#include "tests/close_to.h"
#include "tests/shapes.h"

#include <ATen/Parallel.h>
#include <catch2/catch_test_macros.hpp>

#include <limits>
#include <mutex>
#include <set>
#include <thread>

using namespace dsa;
using namespace dsa::testing;

namespace {

constexpr uint64_t kOpsSeed = 20260301;

Problem problem_of(const Shape& x, c10::ScalarType dtype) {
  Problem p;
  p.batch = x.B, p.queries = x.T, p.keys = x.S, p.heads = x.H, p.kv_heads = x.G;
  p.qk_width = x.D, p.v_width = x.V, p.top_k = x.K, p.index_heads = x.I, p.index_width = x.J;
  p.dtype = dtype;
  return p;
}

/// Runs `check(row)` for every backend that accepts `op` on this problem.
template <class Check>
void for_each_backend(Op op, const Shape& shape, c10::ScalarType dtype, const Check& check) {
  int ran = 0;
  for (const Backend& row : backends()) {
    if (reason_to_decline(row, op, problem_of(shape, dtype))) continue;
    const UseBackend use(row.name);
    CAPTURE(row.name, name(op), shape.text(), dtype, kOpsSeed);
    check(row);
    ++ran;
  }
  CHECK(ran > 0);
}

const std::vector<c10::ScalarType> kDtypes = {at::kFloat, at::kDouble, at::kBFloat16};

ops::AttentionResult oracle_dense(const AttentionInputs& in) {
  const UseBackend use("reference");
  return ops::dense_attention(in.q.to(at::kDouble), in.k.to(at::kDouble), in.v.to(at::kDouble),
                              in.scale);
}

ops::AttentionResult oracle_sparse(const AttentionInputs& in, const ops::Selection& selection) {
  const UseBackend use("reference");
  return ops::sparse_attention(in.q.to(at::kDouble), in.k.to(at::kDouble), in.v.to(at::kDouble),
                               selection, in.scale);
}

at::Tensor oracle_scores(const IndexerInputs& in) {
  const UseBackend use("reference");
  return ops::indexer_scores(in.q.to(at::kDouble), in.k.to(at::kDouble), in.weight.to(at::kDouble));
}

}  // namespace

TEST_CASE("dense attention agrees with the oracle on every backend", "[ops]") {
  for (const Shape& shape : edge_shapes())
    for (const auto dtype : kDtypes) {
      const AttentionInputs in = attention_inputs(shape, kOpsSeed, dtype);
      const ops::AttentionResult truth = oracle_dense(in);
      for_each_backend(Op::kDense, shape, dtype, [&](const Backend&) {
        const auto got = ops::dense_attention(in.q, in.k, in.v, in.scale);
        CHECK_THAT(got.out, CloseTo(truth.out, shape.D + shape.S));
        CHECK(got.out.scalar_type() == dtype);
        CHECK_THAT(got.lse, CloseTo(truth.lse, shape.D + shape.S, 1, dtype));
      });
    }
}

TEST_CASE("sparse attention agrees with the oracle on every backend", "[ops]") {
  for (const Shape& shape : edge_shapes())
    for (const auto dtype : kDtypes) {
      const AttentionInputs in = attention_inputs(shape, kOpsSeed, dtype);
      const ops::Selection selection = random_selection(shape, kOpsSeed);
      const ops::AttentionResult truth = oracle_sparse(in, selection);
      for_each_backend(Op::kSparse, shape, dtype, [&](const Backend&) {
        const auto got = ops::sparse_attention(in.q, in.k, in.v, selection, in.scale);
        CHECK_THAT(got.out, CloseTo(truth.out, shape.D + shape.K));
        CHECK(got.out.scalar_type() == dtype);
        CHECK_THAT(got.lse, CloseTo(truth.lse, shape.D + shape.K, 1, dtype));
      });
    }
}

TEST_CASE("with K >= S, sparse attention equals dense attention", "[ops]") {
  for (Shape shape : edge_shapes()) {
    shape.K = shape.S + 3;
    const AttentionInputs in = attention_inputs(shape, kOpsSeed, at::kFloat);
    const ops::Selection all = ops::window_selection(shape.B, shape.T, shape.S, shape.K);
    const ops::AttentionResult truth = oracle_dense(in);
    for_each_backend(Op::kSparse, shape, at::kFloat, [&](const Backend&) {
      const auto got = ops::sparse_attention(in.q, in.k, in.v, all, in.scale);
      CHECK_THAT(got.out, CloseTo(truth.out, shape.D + shape.S));
    });
  }
}

TEST_CASE("the order of selected ids and -1 between them change nothing", "[ops]") {
  for (const Shape& shape : edge_shapes()) {
    const AttentionInputs in = attention_inputs(shape, kOpsSeed, at::kFloat);
    const ops::Selection tidy = random_selection(shape, kOpsSeed);
    const at::Tensor holes = at::full({shape.B, shape.T, 2}, -1, at::kInt);
    const at::Tensor messy = at::cat({holes, tidy.indices.flip(-1), holes}, -1);
    for_each_backend(Op::kSparse, shape, at::kFloat, [&](const Backend&) {
      const auto a = ops::sparse_attention(in.q, in.k, in.v, tidy, in.scale);
      const auto b = ops::sparse_attention(in.q, in.k, in.v, {messy, {}}, in.scale);
      CHECK_THAT(b.out, CloseTo(a.out, shape.D + shape.K));
      CHECK_THAT(b.lse, CloseTo(a.lse, shape.D + shape.K, 1));
    });
  }
}

TEST_CASE("a query with no key gives zero, lse -inf and zero gradients", "[ops]") {
  const Shape shape{.B = 1, .T = 3, .S = 3, .H = 2, .G = 1, .D = 8, .V = 8, .K = 2};
  AttentionInputs in = attention_inputs(shape, kOpsSeed, at::kFloat);
  const at::Tensor none = at::tensor({0, -1, -1, -1, 2, 0}, at::kInt).view({1, 3, 2});
  for (at::Tensor* x : {&in.q, &in.k, &in.v}) x->requires_grad_();
  for_each_backend(Op::kSparse, shape, at::kFloat, [&](const Backend&) {
    for (at::Tensor* x : {&in.q, &in.k, &in.v}) x->mutable_grad() = at::Tensor();
    const auto got = ops::sparse_attention(in.q, in.k, in.v, {none, {}}, in.scale);
    CHECK(at::equal(got.out[0][1], at::zeros_like(got.out[0][1])));
    CHECK(got.lse[0][1].eq(-std::numeric_limits<float>::infinity()).all().item<bool>());
    got.out.sum().backward();
    CHECK(at::equal(in.q.grad()[0][1], at::zeros_like(in.q[0][1])));
    CHECK(at::equal(in.k.grad()[0][1], at::zeros_like(in.k[0][1])));
    CHECK(at::equal(in.v.grad()[0][1], at::zeros_like(in.v[0][1])));
    CHECK(in.q.grad().isfinite().all().item<bool>());
  });
}

TEST_CASE("later keys never change an earlier query", "[ops]") {
  const Shape shape{
      .B = 1, .T = 40, .S = 40, .H = 2, .G = 2, .D = 16, .V = 16, .I = 2, .J = 16, .K = 9};
  const AttentionInputs in = attention_inputs(shape, kOpsSeed, at::kFloat);
  const IndexerInputs index = indexer_inputs(shape, kOpsSeed, at::kFloat);
  constexpr int64_t cut = 23;  // queries before it must not notice what comes from there on
  const auto changed = [&](const at::Tensor& x) {
    at::Tensor y = x.clone();
    y.slice(1, cut).mul_(-37).add_(5);
    return y;
  };
  const auto past = [&](const at::Tensor& x) { return x.slice(1, 0, cut); };
  for_each_backend(Op::kDense, shape, at::kFloat, [&](const Backend&) {
    const auto a = ops::dense_attention(in.q, in.k, in.v, in.scale);
    const auto b = ops::dense_attention(in.q, changed(in.k), changed(in.v), in.scale);
    CHECK(at::equal(past(a.out), past(b.out)));
    CHECK_FALSE(at::equal(a.out, b.out));
  });
  for_each_backend(Op::kIndexerSelect, shape, at::kFloat, [&](const Backend&) {
    const auto a = ops::indexer_select(index.q, index.k, index.weight, shape.K);
    const auto b = ops::indexer_select(index.q, changed(index.k), index.weight, shape.K);
    CHECK(at::equal(past(a.indices), past(b.indices)));
  });
  const auto selection = random_selection(shape, kOpsSeed);
  for_each_backend(Op::kSparse, shape, at::kFloat, [&](const Backend&) {
    const auto a = ops::sparse_attention(in.q, in.k, in.v, selection, in.scale);
    const auto b = ops::sparse_attention(in.q, changed(in.k), changed(in.v), selection, in.scale);
    CHECK(at::equal(past(a.out), past(b.out)));
  });
}

TEST_CASE("a neighbour in the batch is out of reach", "[ops]") {
  const Shape shape{
      .B = 2, .T = 12, .S = 12, .H = 2, .G = 2, .D = 8, .V = 8, .I = 2, .J = 8, .K = 4};
  const AttentionInputs in = attention_inputs(shape, kOpsSeed, at::kFloat);
  const auto selection = random_selection(shape, kOpsSeed);
  at::Tensor k = in.k.clone(), v = in.v.clone();
  k[1].fill_(1e4);
  v[1].fill_(-7);
  for_each_backend(Op::kSparse, shape, at::kFloat, [&](const Backend&) {
    const auto a = ops::sparse_attention(in.q, in.k, in.v, selection, in.scale);
    const auto b = ops::sparse_attention(in.q, k, v, selection, in.scale);
    CHECK(at::equal(a.out[0], b.out[0]));
  });
}

TEST_CASE("indexer scores agree with the oracle on every backend", "[ops]") {
  for (const Shape& shape : edge_shapes())
    for (const auto dtype : kDtypes) {
      const IndexerInputs in = indexer_inputs(shape, kOpsSeed, dtype);
      const at::Tensor truth = oracle_scores(in);
      for_each_backend(Op::kIndexerScores, shape, dtype, [&](const Backend&) {
        const at::Tensor got = ops::indexer_scores(in.q, in.k, in.weight);
        CHECK_THAT(got, CloseTo(truth, shape.I * shape.J, 1));
        CHECK(got.scalar_type() == (dtype == at::kDouble ? at::kDouble : at::kFloat));
      });
      const ops::Selection selection = random_selection(shape, kOpsSeed);
      const at::Tensor at_ids =
          truth.gather(2, selection.indices.clamp_min(0).to(at::kLong))
              .masked_fill(selection.indices.lt(0), -std::numeric_limits<double>::infinity());
      for_each_backend(Op::kSelectedScores, shape, dtype, [&](const Backend&) {
        CHECK_THAT(ops::selected_scores(in.q, in.k, in.weight, selection),
                   CloseTo(at_ids, shape.I * shape.J, 1));
      });
    }
}

TEST_CASE("attention mass is the head mean of the oracle's probabilities and sums to 1", "[ops]") {
  for (const Shape& shape : edge_shapes())
    for (const auto dtype : kDtypes) {
      const AttentionInputs in = attention_inputs(shape, kOpsSeed, dtype);
      const ops::Selection selection = random_selection(shape, kOpsSeed);
      const auto forward = oracle_sparse(in, selection);
      at::Tensor truth;
      {
        const UseBackend use("reference");
        truth = ops::selected_attention_mass(in.q.to(at::kDouble), in.k.to(at::kDouble), selection,
                                             forward.lse, in.scale);
      }
      CHECK_THAT(truth.sum(-1), CloseTo(at::ones({shape.B, shape.T}, at::kDouble), shape.K));
      for_each_backend(Op::kAttentionMass, shape, dtype, [&](const Backend&) {
        const at::Tensor lse = forward.lse.to(dtype == at::kDouble ? at::kDouble : at::kFloat);
        CHECK_THAT(ops::selected_attention_mass(in.q, in.k, selection, lse, in.scale),
                   CloseTo(truth, shape.D + shape.H));
      });
    }
}

TEST_CASE("equal inputs give equal bits, with or without gradients", "[ops]") {
  const Shape shape{
      .B = 2, .T = 70, .S = 70, .H = 4, .G = 2, .D = 32, .V = 32, .I = 4, .J = 32, .K = 20};
  AttentionInputs in = attention_inputs(shape, kOpsSeed, at::kFloat);
  const IndexerInputs index = indexer_inputs(shape, kOpsSeed, at::kFloat);
  const auto selection = random_selection(shape, kOpsSeed);
  for_each_backend(Op::kSparse, shape, at::kFloat, [&](const Backend&) {
    std::vector<at::Tensor> first;
    for (int run = 0; run < 3; ++run) {
      AttentionInputs x{in.q.clone().requires_grad_(), in.k.clone().requires_grad_(),
                        in.v.clone().requires_grad_(), in.scale};
      const auto got = ops::sparse_attention(x.q, x.k, x.v, selection, x.scale);
      got.out.square().sum().backward();
      const std::vector<at::Tensor> now = {got.out, x.q.grad(), x.k.grad(), x.v.grad()};
      if (run == 0) first = now;
      for (size_t i = 0; i < now.size(); ++i) CHECK(at::equal(first[i], now[i]));
    }
    const auto no_grad = ops::sparse_attention(in.q, in.k, in.v, selection, in.scale);
    CHECK(at::equal(first[0], no_grad.out));
  });
  for_each_backend(Op::kIndexerSelect, shape, at::kFloat, [&](const Backend&) {
    const auto a = ops::indexer_select(index.q, index.k, index.weight, shape.K);
    const at::Tensor q = index.q.clone().requires_grad_();
    const auto b = ops::indexer_select(q, index.k, index.weight, shape.K);
    CHECK(at::equal(a.indices, b.indices));
    CHECK_FALSE(b.indices.requires_grad());
  });
}

TEST_CASE("gradients run on the backend of their forward", "[ops]") {
  const Shape shape{.B = 1, .T = 6, .S = 6, .H = 2, .G = 2, .D = 8, .V = 8, .K = 3};
  AttentionInputs in = attention_inputs(shape, kOpsSeed, at::kFloat);
  in.q.requires_grad_();
  at::Tensor out;
  {
    const UseBackend use("reference");
    out = ops::dense_attention(in.q, in.k, in.v, in.scale).out;
  }
  out.sum().backward();
  const at::Tensor first = in.q.grad().clone();
  in.q.mutable_grad() = at::Tensor();
  {
    const UseBackend use("reference");
    ops::dense_attention(in.q, in.k, in.v, in.scale).out.sum().backward();
  }
  CHECK(at::equal(first, in.q.grad()));
}

TEST_CASE("parallel_for really runs in parallel in this library", "[ops]") {
  if (at::get_num_threads() < 2) SKIP("torch has one thread here");
  std::mutex mutex;
  std::set<std::thread::id> threads;
  at::parallel_for(0, 64, 1, [&](int64_t, int64_t) {
    const std::lock_guard lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  CHECK(threads.size() > 1);
}
