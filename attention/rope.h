// Rotary position embedding. The pairing of dimensions is an explicit choice because public code
// disagrees about it: DeepSeek-V3.2 pairs neighbours in its MLA heads and halves in its indexer.
#pragma once
#include "attention/fields.h"

#include <ATen/core/Tensor.h>

#include <string>

namespace dsa {

/// Which two dimensions turn together: (2i, 2i + 1), or (i, i + width / 2).
enum class RopeLayout { kInterleaved, kHalfSplit };

/// @throws Error naming `field` and both layouts if `name` is neither "interleaved" nor "half_split".
RopeLayout rope_layout(const std::string& name, const char* field = "rope-layout");

/// The base at which the slowest pair of `width` turned dimensions takes `factor` times as many tokens for
/// a turn, and the fastest as many as before: a model reads texts so much longer than it was trained on
/// ("NTK-aware" scaling). width > 2.
double stretched_rope_base(double base, int64_t width, double factor);

/// Turns the leading `width` dimensions of every head by position * base^(-2i / width). The angles
/// are computed in float64 and kept until other positions are asked for.
class Rope {
 public:
  /// @param width  even, at most the width of a head
  Rope(RopeLayout layout, int64_t width, double base);
  /// Differentiable in x.
  /// @param x          [B, T, heads, D], D >= width
  /// @param positions  int64 [T]
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& positions);

 private:
  void prepare(const at::Tensor& positions, const at::Tensor& like);

  RopeLayout layout_;
  int64_t width_;
  double base_;
  at::Tensor positions_, cos_, sin_;  ///< tables [T, 1, width / 2] of positions_
};

}  // namespace dsa
