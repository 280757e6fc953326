#include "attention/ceilings.h"

#include "attention/cpu/dispatch.h"
#include "attention/cpu/peak_kernels.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <unistd.h>
#include <vector>

namespace dsa {
namespace {

using Clock = std::chrono::steady_clock;
constexpr double kMiB = 1024.0 * 1024;

template <class Work>
double seconds_of(const Work& work) {
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// work(thread) on every thread at once; the seconds until the last has finished.
template <class Work>
double seconds_on_all_threads(const Work& work) {
  const int64_t threads = at::get_num_threads();
  return seconds_of([&] {
    at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
      for (int64_t thread = first; thread < last; ++thread) work(thread);
    });
  });
}

/// Rounds of work(rounds) on this thread that last about 5 ms. Alone, because on a busy machine the
/// start of a parallel region can last longer than all the work.
template <class Work>
int64_t rounds_of_5_ms(const Work& work) {
  int64_t rounds = 1;
  double seconds = 0;
  while (seconds < 5e-4 && rounds < (int64_t{1} << 40)) {
    rounds *= 4;
    // The least of three: one interruption must not end the search.
    seconds = seconds_of([&] { work(rounds); });
    for (int i = 0; i < 2; ++i) seconds = std::min(seconds, seconds_of([&] { work(rounds); }));
  }
  return std::max<int64_t>(1, static_cast<int64_t>(5e-3 / seconds * double(rounds)));
}

/// `units` x rounds per second of all threads together, each running work(thread, rounds); best of
/// eight.
template <class Work>
double best_rate(double units, const Work& work) {
  const int64_t rounds = rounds_of_5_ms([&](int64_t n) { work(0, n); });
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 8; ++i)
    best = std::min(best, seconds_on_all_threads([&](int64_t thread) { work(thread, rounds); }));
  return units * double(at::get_num_threads()) * double(rounds) / best;
}

template <class Loop>
double register_peak(int64_t flops, const Loop& loop) {
  std::vector<float> sinks(static_cast<size_t>(at::get_num_threads()) * 64);
  return best_rate(double(flops), [&](int64_t thread, int64_t rounds) {
    loop(rounds, &sinks[static_cast<size_t>(thread) * 64]);
  });
}

/// Every thread reads its own part of `bytes`, again and again.
double read_rate(double bytes, const cpu::PeakKernels& kernels) {
  const int64_t threads = at::get_num_threads();
  const int64_t part = std::max<int64_t>(256, int64_t(bytes / 4 / double(threads)) / 256 * 256);
  const at::Tensor memory = at::ones({threads, part}, at::kFloat);
  const auto* from = memory.const_data_ptr<float>();
  std::vector<float> sinks(static_cast<size_t>(threads) * 64);
  return best_rate(4.0 * double(part), [&](int64_t thread, int64_t rounds) {
    float sum = 0;
    for (int64_t i = 0; i < rounds; ++i) sum += kernels.read(from + thread * part, part);
    sinks[static_cast<size_t>(thread) * 64] = sum;
  });
}

double cache_bytes(int name) {
  return std::max(0.0, double(sysconf(name)));
}

double gemm_rate(c10::ScalarType dtype) {
  constexpr int64_t n = 2048;
  const at::NoGradGuard no_grad;
  const at::Tensor a = at::rand({n, n}, at::kFloat).to(dtype), b = at::rand_like(a);
  at::Tensor c = at::empty_like(a);
  double best = seconds_of([&] { at::mm_out(c, a, b); });
  // The first call may have packed or compiled something; on a slow machine one more is enough.
  double spent = 0;
  for (int i = 0; i < 3 && spent < 0.15; ++i) {
    const double seconds = seconds_of([&] { at::mm_out(c, a, b); });
    best = std::min(best, seconds);
    spent += seconds;
  }
  return 2.0 * n * n * n / best;
}

}  // namespace

Ceilings measure_ceilings() {
  const cpu::IsaRow& isa = cpu::isa_in_use();
  const double threads = double(at::get_num_threads());
  const double l2 = cache_bytes(_SC_LEVEL2_CACHE_SIZE), l3 = cache_bytes(_SC_LEVEL3_CACHE_SIZE);
  Ceilings c;
  c.f32_flops = register_peak(isa.peak->fma_flops, isa.peak->fma);
  if (isa.bf16_peak != nullptr)
    c.bf16_flops = register_peak(isa.bf16_peak->dot_flops, isa.bf16_peak->dot);
  c.l2_size = (l2 > 0 ? l2 : 256 * 1024.0) * threads;
  c.l3_size = l3;
  c.l2_bytes = read_rate(c.l2_size / 2, *isa.peak);
  if (l3 > c.l2_size) c.l3_bytes = read_rate(std::min(l3 / 2, 64 * kMiB), *isa.peak);
  c.dram_bytes = read_rate(std::clamp(4 * l3, 128 * kMiB, 512 * kMiB), *isa.peak);
  c.gemm_bf16 = gemm_rate(at::kBFloat16);
  c.gemm_f32 = gemm_rate(at::kFloat);
  // Again, half a second later: at the start both threads may have shared one core.
  c.f32_flops = std::max(c.f32_flops, register_peak(isa.peak->fma_flops, isa.peak->fma));
  return c;
}

bool believable(const Ceilings& c) {
  const bool best_isa = active_isa() == available_isas().back();
  return c.f32_flops > 0 && c.l2_bytes > 0 && (!best_isa || c.gemm_f32 < 1.2 * c.f32_flops);
}

CeilingShare ceiling_share(const Ceilings& c, const Cost& work, c10::ScalarType dtype,
                           double working_set, double seconds) {
  double flop_peak = c.f32_flops;
  if (dtype == at::kBFloat16) flop_peak = std::max({c.f32_flops, c.bf16_flops, c.gemm_bf16});
  if (dtype == at::kDouble) flop_peak = c.f32_flops / 2;
  double byte_peak = c.dram_bytes;
  if (working_set <= c.l3_size && c.l3_bytes > 0) byte_peak = c.l3_bytes;
  if (working_set <= c.l2_size) byte_peak = c.l2_bytes;
  const double flops = 100 * work.flops / seconds / flop_peak;
  const double bytes = 100 * (work.bytes_read + work.bytes_written) / seconds / byte_peak;
  return flops >= bytes ? CeilingShare{flops, "flops"} : CeilingShare{bytes, "bytes"};
}

double beyond_ceilings(const Ceilings& c, const Cost& work, double seconds) {
  const double flop_peak = std::max({c.f32_flops, c.gemm_f32, 2 * c.bf16_flops, 2 * c.gemm_bf16});
  // The L1 cache gives a unit at most four bytes for each of its operations.
  const double byte_peak = std::max({4 * c.f32_flops, c.l2_bytes, c.l3_bytes, c.dram_bytes});
  return std::max(work.flops / flop_peak, (work.bytes_read + work.bytes_written) / byte_peak) /
         seconds;
}

Ceilings larger(const Ceilings& a, const Ceilings& b) {
  Ceilings out = a;
  std::vector<double> other;
  visit_fields(b, [&](const char*, double rate) { other.push_back(rate); });
  size_t i = 0;
  visit_fields(out, [&](const char*, double& rate) { rate = std::max(rate, other[i++]); });
  return out;
}

}  // namespace dsa
