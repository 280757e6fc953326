// The cost model against counts made one pair and one tensor at a time.
#include "attention/cost.h"
#include "tests/shapes.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>

using namespace dsa;
using namespace dsa::testing;
using Catch::Approx;

namespace {

Problem problem_of(const Shape& x) {
  Problem p;
  p.batch = x.B, p.queries = x.T, p.keys = x.S, p.heads = x.H, p.kv_heads = x.G;
  p.qk_width = x.D, p.v_width = x.V, p.top_k = x.K, p.index_heads = x.I, p.index_width = x.J;
  return p;
}

struct Counted {
  double visible = 0, selected = 0;
};

Counted counted_pairs(const Shape& x) {
  Counted n;
  for (int64_t t = 0; t < x.T; ++t) {
    int64_t seen = 0;
    for (int64_t s = 0; s <= t + x.S - x.T; ++s) {
      n.visible += 1;
      if (seen++ < x.K) n.selected += 1;
    }
  }
  return n;
}

/// Multiply-adds of the loops a reader would write, 2 FLOPs each.
double counted_flops(Op op, const Shape& x) {
  double flops = 0;
  for (int64_t b = 0; b < x.B; ++b)
    for (int64_t t = 0; t < x.T; ++t) {
      const int64_t visible = t + x.S - x.T + 1, selected = std::min(visible, x.K);
      switch (op) {
        case Op::kDense:
          flops += double(visible * x.H * 2 * (x.D + x.V));
          break;
        case Op::kSparse:
          flops += double(selected * x.H * 2 * (x.D + x.V));
          break;
        case Op::kIndexerScores:
        case Op::kIndexerSelect:
          flops += double(visible * x.I * 2 * x.J);
          break;
        case Op::kSelectedScores:
          flops += double(selected * x.I * 2 * x.J);
          break;
        case Op::kAttentionMass:
          flops += double(selected * x.H * 2 * x.D);
          break;
        case Op::kSelectTopK:
          break;
      }
    }
  return flops;
}

const std::vector<Op> kOps = {Op::kIndexerScores,  Op::kSelectTopK, Op::kIndexerSelect,
                              Op::kSelectedScores, Op::kSparse,     Op::kAttentionMass,
                              Op::kDense};

}  // namespace

TEST_CASE("pairs and FLOPs equal those counted one by one", "[cost]") {
  for (const Shape& shape : edge_shapes()) {
    CAPTURE(shape.text());
    const Counted n = counted_pairs(shape);
    CHECK(visible_pairs(shape.T, shape.S) == n.visible);
    CHECK(selected_pairs(shape.T, shape.S, shape.K) == n.selected);
    for (const Op op : kOps) {
      CAPTURE(name(op));
      CHECK(cost(op, Pass::kForward, problem_of(shape)).flops == counted_flops(op, shape));
    }
  }
}

TEST_CASE("backward costs what algorithm.md says", "[cost]") {
  const Shape shape{.B = 2, .T = 7, .S = 9, .H = 4, .G = 2, .D = 8, .V = 6, .I = 3, .J = 5, .K = 4};
  const Problem p = problem_of(shape);
  const Counted n = counted_pairs(shape);
  const auto backward = [&](Op op) {
    return cost(op, Pass::kForwardBackward, p).flops - cost(op, Pass::kForward, p).flops;
  };
  CHECK(backward(Op::kDense) == 2.5 * counted_flops(Op::kDense, shape));
  CHECK(backward(Op::kSparse) == 2.0 * 2 * n.selected * 4 * (3 * 8 + 2 * 6));
  CHECK(backward(Op::kIndexerScores) == 3 * counted_flops(Op::kIndexerScores, shape));
  CHECK(backward(Op::kSelectedScores) == 3 * counted_flops(Op::kSelectedScores, shape));
}

TEST_CASE("forward bytes are those of the tensors that go in and come out", "[cost]") {
  const Shape shape{.B = 2, .T = 7, .S = 9, .H = 4, .G = 2, .D = 8, .V = 6, .I = 3, .J = 5, .K = 4};
  const AttentionInputs in = attention_inputs(shape, 1, at::kFloat);
  const IndexerInputs index = indexer_inputs(shape, 1, at::kFloat);
  const auto selection = random_selection(shape, 1);
  const auto bytes = [](std::initializer_list<at::Tensor> tensors) {
    double sum = 0;
    for (const at::Tensor& x : tensors) sum += double(x.nbytes());
    return sum;
  };
  const auto check = [&](Op op, double read, double written) {
    const Cost c = cost(op, Pass::kForward, problem_of(shape));
    CAPTURE(name(op));
    CHECK(c.bytes_read == read);
    CHECK(c.bytes_written == written);
  };
  const double ids = bytes({selection.indices, selection.count});
  const auto dense = ops::dense_attention(in.q, in.k, in.v, 1);
  check(Op::kDense, bytes({in.q, in.k, in.v}), bytes({dense.out, dense.lse}));
  check(Op::kSparse, bytes({in.q, in.k, in.v}) + ids, bytes({dense.out, dense.lse}));
  const double scores = double(shape.B * shape.T * shape.S * 4);
  check(Op::kIndexerScores, bytes({index.q, index.k, index.weight}), scores);
  check(Op::kIndexerSelect, bytes({index.q, index.k, index.weight}), ids);
  check(Op::kAttentionMass, bytes({in.q, in.k, dense.lse}) + ids, double(2 * 7 * 4 * 4));
  check(Op::kSelectTopK, counted_pairs(shape).visible * 2 * 4, ids);
}

TEST_CASE("one query reads only the keys it selected", "[cost]") {
  Problem p =
      problem_of({.B = 1, .T = 1, .S = 1 << 20, .H = 1, .G = 1, .D = 64, .V = 64, .K = 256});
  const double read = cost(Op::kSparse, Pass::kForward, p).bytes_read;
  CHECK(read == 4.0 * (64 + 256 * 128) + 4 * 257);
  p.v_width = 48, p.values_in_keys = true;
  CHECK(cost(Op::kSparse, Pass::kForward, p).bytes_read == 4.0 * (64 + 256 * 64) + 4 * 257);
}

TEST_CASE("the FLOP ratio of DeepSeek-V3.2 is the published one", "[cost]") {
  Problem dense, sparse;
  dense.heads = sparse.heads = 128;
  dense.kv_heads = 128, sparse.kv_heads = 1;
  dense.qk_width = 192, dense.v_width = 128;
  sparse.qk_width = 576, sparse.v_width = 512;
  sparse.index_heads = 64, sparse.index_width = 128, sparse.top_k = 2048;
  const auto ratio = [&](int64_t length) {
    for (Problem* p : {&dense, &sparse}) p->queries = p->keys = length;
    return flop_ratio(dense, sparse);
  };
  CHECK(ratio(8 << 10) == Approx(0.59).margin(0.005));
  CHECK(ratio(16 << 10) == Approx(1.00).margin(0.005));
  CHECK(ratio(32 << 10) == Approx(1.63).margin(0.005));
  CHECK(ratio(128 << 10) == Approx(3.27).margin(0.005));
  CHECK(ratio(int64_t(1) << 40) == Approx(5.0).margin(0.005));
}

TEST_CASE("where K >= L nothing is saved, so DSA costs more than dense attention", "[cost]") {
  const Shape shape{.T = 64, .S = 64, .H = 8, .G = 8, .D = 64, .V = 64, .I = 4, .J = 64, .K = 64};
  CHECK(flop_ratio(problem_of(shape)) < 1);
}
