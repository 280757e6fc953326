// MLA in MQA mode: v is a view of the first columns of k. It must give the bits of a copied v, and k
// the gradients of both its uses.
#include "attention/backend.h"
#include "attention/door.h"
#include "attention/ops.h"
#include "bench/kernel_check.h"
#include "tests/attend_fixture.h"
#include "tests/shapes.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

using namespace dsa;
using dsa::testing::attention_inputs;
using dsa::testing::random_selection;
using dsa::testing::Shape;

namespace {

// Both shared kernels with one, several and half a tile of heads, and more than one chunk of keys;
// the narrow kernels; rows that are packed to float32; several kv heads; a batch; T < S.
const Shape kShapes[] = {
    {.B = 1, .T = 9, .S = 300, .H = 16, .G = 1, .D = 72, .V = 64, .K = 280},
    {.B = 2, .T = 20, .S = 33, .H = 128, .G = 1, .D = 40, .V = 33, .K = 20},
    {.B = 1, .T = 3, .S = 1100, .H = 33, .G = 1, .D = 31, .V = 31, .K = 1050},
    {.B = 1, .T = 21, .S = 21, .H = 16, .G = 2, .D = 24, .V = 5, .K = 7},
    {.B = 2, .T = 40, .S = 60, .H = 2, .G = 1, .D = 64, .V = 48, .K = 17},
    {.B = 1, .T = 1, .S = 2, .H = 16, .G = 1, .D = 8, .V = 4, .K = 3},
};

struct Results {
  at::Tensor out, dq, dk;
};

/// @param copied  v as memory of its own
Results results(const Shape& shape, c10::ScalarType dtype, const char* backend, bool copied) {
  const auto in = attention_inputs(shape, 7, at::kBFloat16);
  const at::Tensor q = in.q.to(dtype).requires_grad_(), k = in.k.to(dtype).requires_grad_();
  const at::Tensor view = k.narrow(-1, 0, shape.V);
  const UseBackend pinned(backend);
  const at::Tensor out = ops::sparse_attention(q, k, copied ? view.clone() : view,
                                               random_selection(shape, 7), in.scale)
                             .out;
  out.backward(at::arange(out.numel(), at::kDouble).sin().view(out.sizes()).to(dtype));
  return {out.detach(), q.grad(), k.grad()};
}

}  // namespace

TEST_CASE("values that are a view of the keys give the bits of a copy, and both gradients",
          "[attend]") {
  for (const Shape& shape : kShapes) {
    const Results exact = results(shape, at::kDouble, "reference", true);
    for (const auto dtype : {at::kFloat, at::kBFloat16})
      for (const std::string& isa : available_isas()) {
        INFO(shape.text() << " " << dtype << " on " << isa);
        const test::Isa pin(isa);
        const Results view = results(shape, dtype, "cpu", false);
        const Results copy = results(shape, dtype, "cpu", true);
        CHECK(at::equal(view.out, copy.out));
        CHECK(at::equal(view.dq, copy.dq));
        CHECK(at::equal(view.dk, copy.dk));
        const double bound = dtype == at::kFloat ? 1e-5 : 0.02;
        CHECK(bench::worst_row_error(view.out, exact.out, 1) <= bound);
        CHECK(bench::worst_row_error(view.dq, exact.dq, 1) <= 3 * bound);
        CHECK(bench::worst_row_error(view.dk, exact.dk, 1) <= 3 * bound);
      }
  }
}

TEST_CASE("every backend takes values that are a view of the keys", "[backends]") {
  const Shape& shape = kShapes[0];
  const Results exact = results(shape, at::kDouble, "reference", true);
  for (const Backend& row : backends()) {
    Problem p;
    p.queries = shape.T, p.keys = shape.S, p.heads = shape.H, p.kv_heads = shape.G;
    p.qk_width = shape.D, p.v_width = shape.V, p.top_k = shape.K, p.backward = true;
    if (reason_to_decline(row, Op::kSparse, p)) continue;
    INFO(row.name);
    const Results found = results(shape, at::kFloat, row.name.c_str(), false);
    CHECK(bench::worst_row_error(found.out, exact.out, 1) <= 1e-5);
    CHECK(bench::worst_row_error(found.dk, exact.dk, 1) <= 3e-5);
  }
}

TEST_CASE("only the first columns of contiguous keys count as values in them", "[attend]") {
  const at::Tensor k = at::zeros({2, 5, 1, 8});
  CHECK(values_in_keys(k, k));
  CHECK(values_in_keys(k, k.narrow(-1, 0, 3)));
  CHECK_FALSE(values_in_keys(k, k.narrow(-1, 1, 3)));
  // The stride of a dimension of size 1 says nothing.
  const at::Tensor one = at::zeros({1, 5, 1, 8});
  CHECK(values_in_keys(one, one.as_strided({1, 5, 1, 3}, {7, 8, 5, 1})));
  CHECK_FALSE(values_in_keys(k, k.narrow(-1, 0, 3).contiguous()));
  const at::Tensor wide = at::zeros({2, 5, 1, 16});
  CHECK_FALSE(values_in_keys(wide.narrow(-1, 0, 8), wide.narrow(-1, 0, 3)));
  // The same first element, but rows of their own length.
  CHECK_FALSE(values_in_keys(k, k.view({-1}).narrow(0, 0, 30).view({2, 5, 1, 3})));
}
