// What the two files of the `reference` backend share. It is the oracle of every test: plain loops
// in float64 whatever the input, rounded once at the end. Slow on purpose; keep it obvious.
#pragma once
#include "attention/backend.h"

#include <ATen/Functions.h>

#include <cstdint>

namespace dsa::reference {

inline at::Tensor as_double(const at::Tensor& x) {
  return x.to(at::kDouble).contiguous();
}

/// The keys of one query: those selected, or 0..visible-1 where there is no selection.
struct KeyList {
  const int32_t* ids = nullptr;
  int64_t count = 0;
  int64_t operator[](int64_t i) const { return ids ? ids[i] : i; }
};

class KeyLists {
 public:
  KeyLists(const ops::Selection* selection, int64_t queries, int64_t keys)
      : selection_(selection), queries_(queries), keys_(keys) {}

  KeyList of(int64_t b, int64_t t) const {
    if (!selection_) return {nullptr, t + keys_ - queries_ + 1};
    const int64_t row = b * queries_ + t;
    return {selection_->indices.const_data_ptr<int32_t>() + row * selection_->indices.size(2),
            selection_->count.const_data_ptr<int32_t>()[row]};
  }

 private:
  const ops::Selection* selection_;
  int64_t queries_, keys_;
};

inline double dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// y += factor * x
inline void add_scaled(double* y, double factor, const double* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

at::Tensor indexer_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight);
IndexerGrads indexer_scores_backward(const at::Tensor& dscores, const at::Tensor& q,
                                     const at::Tensor& k, const at::Tensor& weight);
at::Tensor selected_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                           const ops::Selection& selection);
IndexerGrads selected_scores_backward(const at::Tensor& dscores, const at::Tensor& q,
                                      const at::Tensor& k, const at::Tensor& weight,
                                      const ops::Selection& selection);
ops::Selection select_top_k(const at::Tensor& scores, int64_t top_k);
ops::Selection indexer_select(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                              int64_t top_k);

}  // namespace dsa::reference
