// Shapes every kernel test loops over, edges before sizes, and seeded inputs of them.
#pragma once
#include "attention/ops.h"

#include <ATen/Functions.h>
#include <ATen/core/Generator.h>

#include <sstream>
#include <string>
#include <vector>

namespace dsa::testing {

struct Shape {
  int64_t B = 1, T = 1, S = 1, H = 1, G = 1, D = 1, V = 1, I = 1, J = 1, K = 1;

  std::string text() const {
    std::ostringstream s;
    s << "B=" << B << " T=" << T << " S=" << S << " H=" << H << " G=" << G << " D=" << D
      << " V=" << V << " I=" << I << " J=" << J << " K=" << K;
    return s.str();
  }
};

/// One token; K = 1, K = S, K > S; widths that fill no vector; GQA, MQA; V != D; T < S; batches.
inline std::vector<Shape> edge_shapes() {
  return {
      {.B = 1, .T = 1, .S = 1, .H = 1, .G = 1, .D = 1, .V = 1, .I = 1, .J = 1, .K = 1},
      {.B = 1, .T = 1, .S = 1, .H = 2, .G = 2, .D = 8, .V = 8, .I = 2, .J = 8, .K = 4},
      {.B = 2, .T = 7, .S = 7, .H = 3, .G = 3, .D = 5, .V = 3, .I = 3, .J = 7, .K = 1},
      {.B = 1, .T = 17, .S = 17, .H = 4, .G = 2, .D = 16, .V = 16, .I = 4, .J = 16, .K = 17},
      {.B = 2, .T = 9, .S = 9, .H = 4, .G = 1, .D = 24, .V = 16, .I = 1, .J = 32, .K = 40},
      {.B = 1, .T = 1, .S = 33, .H = 4, .G = 4, .D = 32, .V = 32, .I = 4, .J = 32, .K = 8},
      {.B = 2, .T = 5, .S = 40, .H = 6, .G = 2, .D = 33, .V = 65, .I = 5, .J = 19, .K = 11},
      {.B = 1, .T = 97, .S = 97, .H = 2, .G = 2, .D = 64, .V = 64, .I = 4, .J = 64, .K = 24},
      {.B = 2, .T = 130, .S = 130, .H = 2, .G = 1, .D = 32, .V = 32, .I = 8, .J = 32, .K = 31},
  };
}

struct AttentionInputs {
  at::Tensor q, k, v;
  double scale = 1;
};
struct IndexerInputs {
  at::Tensor q, k, weight;
};

inline at::Tensor randn(at::IntArrayRef sizes, at::Generator generator,
                        c10::ScalarType dtype = at::kDouble) {
  return at::randn(sizes, generator, at::TensorOptions().dtype(at::kDouble)).to(dtype);
}

AttentionInputs attention_inputs(const Shape& shape, uint64_t seed, c10::ScalarType dtype);
IndexerInputs indexer_inputs(const Shape& shape, uint64_t seed, c10::ScalarType dtype);

/// Small whole numbers: every score is exact in every dtype, so ids must agree everywhere. Weights
/// of both signs and many exact ties.
IndexerInputs integer_indexer_inputs(const Shape& shape, uint64_t seed, c10::ScalarType dtype);

/// K random visible keys of each query, ascending, as select_top_k lays them out.
ops::Selection random_selection(const Shape& shape, uint64_t seed);

}  // namespace dsa::testing
