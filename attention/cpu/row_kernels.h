// What a transformer does to rows between its matrix products, each value read once or twice: losses,
// norms, rotations, dropout, activations. Row by row: callers divide rows among threads.
#pragma once
#include "attention/cpu/kernels.h"

namespace dsa::cpu {

/// Dropout of one row. Which values fall is a function of the key and the place in the row, so the
/// backward pass asks again instead of keeping a mask.
struct RowDropout {
  uint32_t key[2];
  int32_t threshold;  ///< a place falls if its hash, a signed number, is below
  float factor;       ///< of what is kept: 1 / (1 - p)
};

struct RowLoss {
  float nats;
  bool is_first_maximum;  ///< the target has the largest logit, and no earlier one is as large
};

/// Which part of a head turns, and how its pairs lie.
struct RowRotation {
  int64_t heads, width;  ///< of the row
  int64_t turned;        ///< leading part of the width, even
  bool interleaved;
  float direction;  ///< 1 or -1
};

/// Element is float or Bf16; sums and what stands between load and store are float32.
template <class Element>
struct RowwiseKernelsOf {
  /// -log softmax(logits)[target]; NaN if any is NaN or +inf. Unless factor is negative the logits
  /// become factor * (softmax - one hot). target -1: no loss, zeros.
  RowLoss (*cross_entropy)(Element* logits, int64_t n, int64_t target, float factor);
  /// out = x / sqrt(mean(x^2) + epsilon) * scale. @return the factor of x
  float (*rms_norm)(const float* x, const float* scale, int64_t n, float epsilon, Element* out);
  /// Writes dx, adds to dscale.
  void (*rms_norm_backward)(const Element* dout, const float* x, const float* scale, float factor,
                            int64_t n, float* dx, float* dscale);
  void (*rotate)(const Element* x, const float* cos, const float* sin, const RowRotation& r,
                 Element* out);
  void (*add_dropped)(const float* x, const Element* branch, const RowDropout& d, int64_t n,
                      float* out);
  void (*dropped)(const float* x, const RowDropout& d, int64_t n, Element* out);
  void (*silu_dropped)(const Element* x, const RowDropout& d, int64_t n, Element* out);
  void (*silu_dropped_backward)(const Element* x, const Element* dout, const RowDropout& d,
                                int64_t n, Element* dx);
  /// out = sum_a shares[a] * rows[places[a]], a row of n values
  void (*mix)(const Element* rows, const int64_t* places, const float* shares, int64_t copies,
              int64_t n, Element* out);
  /// drows[places[a]] = shares[a] * dout; dshares[a] = rows[places[a]] . dout
  void (*mix_backward)(const Element* rows, const int64_t* places, const float* shares,
                       int64_t copies, int64_t n, const Element* dout, Element* drows,
                       float* dshares);
};

struct RowwiseKernels {
  RowwiseKernelsOf<float> f32;
  RowwiseKernelsOf<Bf16> bf16;
  /// The first `seen` scores become dropout(softmax(scale * score)), the others of n zero.
  /// @return the natural log-sum-exp
  float (*softmax_dropped)(float* scores, int64_t seen, int64_t n, float scale,
                           const RowDropout& d);
  /// scores become what softmax_dropped made of them; dout, its gradient, becomes that of the scores.
  /// @param delta  sum of the attention's output times its gradient
  void (*softmax_dropped_backward)(float* scores, float* dout, int64_t seen, int64_t n, float scale,
                                   float lse, float delta, const RowDropout& d);
};

extern const RowwiseKernels kRowsPortable;
extern const RowwiseKernels kRowsAvx2;
extern const RowwiseKernels kRowsAvx512;

}  // namespace dsa::cpu
