#include "attention/rows.h"

#include "attention/cpu/bf16.h"
#include "attention/cpu/dispatch.h"
#include "attention/cpu/parallel.h"
#include "attention/cpu/row_kernels.h"
#include "attention/random.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>

#include <mutex>

namespace dsa::rows {
namespace {

using cpu::for_each_range;
using cpu::RowDropout;

constexpr int64_t kRowsAtOnce = 16;
/// Rows whose sums of a scale's gradient are added first: a constant, or threads would change bits.
constexpr int64_t kRowsOfSum = 64;

const cpu::RowwiseKernels& kernels() {
  return *cpu::isa_in_use().rows;
}

/// Elements as kernels see them.
template <class Element>
const Element* read(const at::Tensor& x) {
  return static_cast<const Element*>(x.const_data_ptr());
}
template <class Element>
Element* write(const at::Tensor& x) {
  return static_cast<Element*>(x.mutable_data_ptr());
}

/// work(kernels of the type, a null pointer of its element)
template <class Work>
void with_kernels(at::ScalarType type, const Work& work) {
  if (type == at::kBFloat16)
    work(kernels().bf16, static_cast<cpu::Bf16*>(nullptr));
  else
    work(kernels().f32, static_cast<float*>(nullptr));
}

RowDropout row_dropout(const Dropping& dropping, int64_t row) {
  const uint64_t z = mixed(dropping.seed + 0x9e3779b97f4a7c15u * static_cast<uint64_t>(row));
  const double threshold = -2147483648.0 + dropping.probability * 4294967296.0;
  return {{static_cast<uint32_t>(z), static_cast<uint32_t>(z >> 32)},
          static_cast<int32_t>(threshold),
          static_cast<float>(1 / (1 - dropping.probability))};
}

/// work(row) for every row, rows being those of the last dimension.
template <class Work>
void for_each_row(int64_t rows, const Work& work) {
  for_each_range(rows, kRowsAtOnce, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) work(row);
  });
}

int64_t rows_of(const at::Tensor& x) {
  return x.numel() / x.size(-1);
}

}  // namespace

bool serves(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

Dropping dropping(double probability, bool is_training) {
  if (!is_training || probability == 0) return {};
  at::Generator stream = at::detail::getDefaultCPUGenerator();
  const std::lock_guard lock(stream.mutex());
  return {probability, at::check_generator<at::CPUGeneratorImpl>(stream)->random64()};
}

void cross_entropy(at::Tensor& logits, const at::Tensor& targets, double share, bool with_gradient,
                   const at::Tensor& losses, const at::Tensor& correct) {
  const int64_t vocab = logits.size(1);
  const auto* target = targets.const_data_ptr<int64_t>();
  auto* loss = losses.mutable_data_ptr<float>();
  auto* hit = correct.mutable_data_ptr<bool>();
  const float factor = with_gradient ? static_cast<float>(share) : -1.0f;
  with_kernels(logits.scalar_type(), [&]<class E>(const cpu::RowwiseKernelsOf<E>& k, E*) {
    E* row = write<E>(logits);
    for_each_range(logits.size(0), 1, [&](int64_t t, int64_t) {
      const cpu::RowLoss result = k.cross_entropy(row + t * vocab, vocab, target[t], factor);
      loss[t] = result.nats, hit[t] = result.is_first_maximum;
    });
  });
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& scale, double epsilon,
                    at::ScalarType type, const at::Tensor& factors) {
  const int64_t width = x.size(-1);
  at::Tensor out = at::empty(x.sizes(), x.options().dtype(type));
  const auto *from = read<float>(x), *by = read<float>(scale);
  auto* factor = write<float>(factors);
  with_kernels(type, [&]<class E>(const cpu::RowwiseKernelsOf<E>& k, E*) {
    E* to = write<E>(out);
    for_each_row(rows_of(x), [&](int64_t row) {
      factor[row] =
          k.rms_norm(from + row * width, by, width, static_cast<float>(epsilon), to + row * width);
    });
  });
  return out;
}

NormGradients rms_norm_backward(const at::Tensor& dout, const at::Tensor& x,
                                const at::Tensor& scale, const at::Tensor& factors) {
  const int64_t width = x.size(-1), rows = rows_of(x);
  const at::Tensor dx = at::empty_like(x);
  const at::Tensor sums = at::zeros({(rows + kRowsOfSum - 1) / kRowsOfSum, width}, x.options());
  const auto *from = read<float>(x), *by = read<float>(scale), *factor = read<float>(factors);
  auto *to = write<float>(dx), *sum = write<float>(sums);
  with_kernels(dout.scalar_type(), [&]<class E>(const cpu::RowwiseKernelsOf<E>& k, E*) {
    const E* gradient = read<E>(dout);
    for_each_range(rows, kRowsOfSum, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row)
        k.rms_norm_backward(gradient + row * width, from + row * width, by, factor[row], width,
                            to + row * width, sum + begin / kRowsOfSum * width);
    });
  });
  return {dx, sums.sum(0)};
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                  bool interleaved, double direction) {
  const int64_t length = x.size(1), pairs = cos.size(-1);
  at::Tensor out = at::empty(x.sizes(), x.options());
  const cpu::RowRotation rotation{x.size(2), x.size(3), 2 * pairs, interleaved,
                                  static_cast<float>(direction)};
  const auto *c = read<float>(cos), *s = read<float>(sin);
  with_kernels(x.scalar_type(), [&]<class E>(const cpu::RowwiseKernelsOf<E>& k, E*) {
    const E* from = read<E>(x);
    E* to = write<E>(out);
    const int64_t batch_stride = x.stride(0), token_stride = x.stride(1);
    const int64_t width = x.size(2) * x.size(3);
    for_each_row(x.size(0) * length, [&](int64_t row) {
      const int64_t b = row / length, t = row % length;
      k.rotate(from + b * batch_stride + t * token_stride, c + t * pairs, s + t * pairs, rotation,
               to + row * width);
    });
  });
  return out;
}

at::Tensor add_dropped(const at::Tensor& x, const at::Tensor& branch, const Dropping& dropping) {
  const int64_t width = x.size(-1);
  at::Tensor out = at::empty_like(x);
  const auto* from = read<float>(x);
  auto* to = write<float>(out);
  with_kernels(branch.scalar_type(), [&]<class E>(const cpu::RowwiseKernelsOf<E>& k, E*) {
    const E* with = read<E>(branch);
    for_each_row(rows_of(x), [&](int64_t row) {
      k.add_dropped(from + row * width, with + row * width, row_dropout(dropping, row), width,
                    to + row * width);
    });
  });
  return out;
}

void add_to(const at::Tensor& sum, const at::Tensor& part) {
  const int64_t width = sum.size(-1);
  auto* to = write<float>(sum);
  with_kernels(part.scalar_type(), [&]<class E>(const cpu::RowwiseKernelsOf<E>& k, E*) {
    const E* from = read<E>(part);
    for_each_row(rows_of(sum), [&](int64_t row) {
      float* at = to + row * width;
      k.add_dropped(at, from + row * width, row_dropout({}, row), width, at);
    });
  });
}

at::Tensor dropped(const at::Tensor& x, const Dropping& dropping, at::ScalarType type) {
  const int64_t width = x.size(-1);
  at::Tensor out = at::empty(x.sizes(), x.options().dtype(type));
  const auto* from = read<float>(x);
  with_kernels(type, [&]<class E>(const cpu::RowwiseKernelsOf<E>& k, E*) {
    E* to = write<E>(out);
    for_each_row(rows_of(x), [&](int64_t row) {
      k.dropped(from + row * width, row_dropout(dropping, row), width, to + row * width);
    });
  });
  return out;
}

void silu_dropped(const at::Tensor& x, const Dropping& dropping, int64_t first, at::Tensor& out) {
  const int64_t width = x.size(1);
  with_kernels(x.scalar_type(), [&]<class E>(const cpu::RowwiseKernelsOf<E>& k, E*) {
    const E* from = read<E>(x);
    E* to = write<E>(out);
    for_each_row(x.size(0), [&](int64_t row) {
      k.silu_dropped(from + row * width, row_dropout(dropping, first + row), width,
                     to + row * width);
    });
  });
}

void silu_dropped_backward(const at::Tensor& x, const at::Tensor& dout, const Dropping& dropping,
                           int64_t first, at::Tensor& dx) {
  const int64_t width = x.size(1);
  with_kernels(x.scalar_type(), [&]<class E>(const cpu::RowwiseKernelsOf<E>& k, E*) {
    const E *from = read<E>(x), *gradient = read<E>(dout);
    E* to = write<E>(dx);
    for_each_row(x.size(0), [&](int64_t row) {
      k.silu_dropped_backward(from + row * width, gradient + row * width,
                              row_dropout(dropping, first + row), width, to + row * width);
    });
  });
}

at::Tensor mix(const at::Tensor& rows, const at::Tensor& places, const at::Tensor& shares) {
  const int64_t tokens = shares.size(0), copies = shares.size(1), width = rows.size(1);
  at::Tensor out = at::empty({tokens, width}, rows.options());
  const auto* place = places.const_data_ptr<int64_t>();
  const auto* share = read<float>(shares);
  with_kernels(rows.scalar_type(), [&]<class E>(const cpu::RowwiseKernelsOf<E>& k, E*) {
    const E* from = read<E>(rows);
    E* to = write<E>(out);
    for_each_row(tokens, [&](int64_t t) {
      k.mix(from, place + t * copies, share + t * copies, copies, width, to + t * width);
    });
  });
  return out;
}

MixGradients mix_backward(const at::Tensor& dout, const at::Tensor& rows, const at::Tensor& places,
                          const at::Tensor& shares) {
  const int64_t tokens = shares.size(0), copies = shares.size(1), width = rows.size(1);
  const bool all = rows.size(0) == places.size(0);
  MixGradients gradients{all ? at::empty_like(rows) : at::zeros_like(rows), at::empty_like(shares)};
  const auto* place = places.const_data_ptr<int64_t>();
  const auto* share = read<float>(shares);
  auto* dshare = write<float>(gradients.dshares);
  with_kernels(rows.scalar_type(), [&]<class E>(const cpu::RowwiseKernelsOf<E>& k, E*) {
    const E *from = read<E>(rows), *gradient = read<E>(dout);
    E* to = write<E>(gradients.drows);
    for_each_row(tokens, [&](int64_t t) {
      k.mix_backward(from, place + t * copies, share + t * copies, copies, width,
                     gradient + t * width, to, dshare + t * copies);
    });
  });
  return gradients;
}

void softmax_dropped(at::Tensor& scores, double scale, const Dropping& dropping, int64_t first,
                     const at::Tensor& lse) {
  const int64_t length = scores.size(2);
  auto *row = write<float>(scores), *sum = write<float>(lse);
  for_each_row(rows_of(scores), [&](int64_t r) {
    sum[r] = kernels().softmax_dropped(row + r * length, r % length + 1, length,
                                       static_cast<float>(scale), row_dropout(dropping, first + r));
  });
}

void softmax_dropped_backward(at::Tensor& scores, at::Tensor& dout, double scale,
                              const Dropping& dropping, int64_t first, const at::Tensor& lse,
                              const at::Tensor& delta) {
  const int64_t length = scores.size(2);
  auto *row = write<float>(scores), *gradient = write<float>(dout);
  const auto *sum = read<float>(lse), *along = read<float>(delta);
  for_each_row(rows_of(scores), [&](int64_t r) {
    kernels().softmax_dropped_backward(row + r * length, gradient + r * length, r % length + 1,
                                       length, static_cast<float>(scale), sum[r], along[r],
                                       row_dropout(dropping, first + r));
  });
}

}  // namespace dsa::rows
