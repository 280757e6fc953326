// What ops.cpp checks before any kernel sees a tensor, and the errors kernels may raise themselves.
// Private to attention/.
#pragma once
#include "attention/backend.h"

namespace dsa {

/// Shapes, dtypes and devices of indexer inputs. @throws Error beginning with `op`
Problem indexer_problem(const char* op, const at::Tensor& q, const at::Tensor& k,
                        const at::Tensor& weight);

/// The same of attention inputs; `v` undefined where there are no values.
Problem attention_problem(const char* op, const at::Tensor& q, const at::Tensor& k,
                          const at::Tensor& v);

/// Is `v` the first columns of a contiguous `k`: the same memory, row for row?
bool values_in_keys(const at::Tensor& k, const at::Tensor& v);

/// Scores of `select_top_k`.
Problem scores_problem(const char* op, const at::Tensor& scores, int64_t top_k);

/// Does `selection` have one row per query of `problem`? Ids are the business of `ops::checked`.
void require_selection(const char* op, const ops::Selection& selection, const Problem& problem);

/// dtype of scores and of lse for inputs of `dtype`: float64 for float64, else float32.
c10::ScalarType accumulation_dtype(c10::ScalarType dtype);

/// The Error of a selector that met a NaN: the first one in (b, t, s) order.
[[noreturn]] void throw_nan_score(int64_t b, int64_t t, int64_t s);

}  // namespace dsa
