// Memory of the sparse-attention kernels: scratch they keep, and peaks beyond what they return.
#include "tests/attend_fixture.h"
#include "tests/memory_of.h"

using namespace dsa;
using namespace dsa::test;

namespace {

constexpr double kThreads = 2;

}  // namespace

TEST_CASE("a forward call holds 4 MiB a thread and packed rows of k and v", "[attend]") {
  const Threads two(2);
  const int64_t length = 16384, heads = 2, width = 64;
  const AttendInputs in = inputs_of({1, length, length, heads, heads, width, width, 32});
  const auto [scratch, peak] =
      memory_of([&] { cpu::sparse_forward(in.q, in.k, in.v, in.selection, in.scale); });
  INFO("scratch " << scratch << " bytes");
  const double packed = 4 * 2.0 * static_cast<double>(length * heads * width);
  REQUIRE(scratch > 4 * static_cast<double>(length * heads * width));
  REQUIRE(scratch <= kThreads * kPerThread + packed);
}

TEST_CASE("decoding copies the selected rows alone, and its bits are those of copying all",
          "[attend]") {
  const Threads two(2);
  const AttendInputs in =
      inputs_of({1, 3, 16384, 4, 2, 40, 24, 64});  // copies are the calling thread's
  for (const std::string& isa : available_isas()) {
    INFO(isa);
    const Isa pinned(isa);
    ops::AttentionResult few, all;
    const auto forward = [&] {
      return cpu::sparse_forward(in.q, in.k, in.v, in.selection, in.scale);
    };
    const double scratch = memory_of([&] { few = forward(); }).first;
    cpu::choose_narrow(cpu::NarrowChoice::kAlone);
    const double scratch_all = memory_of([&] { all = forward(); }).first;
    cpu::choose_narrow(cpu::NarrowChoice::kMeasured);
    REQUIRE(at::equal(few.out, all.out));
    REQUIRE(at::equal(few.lse, all.lse));
    REQUIRE(scratch <= 1 << 20);
    REQUIRE(scratch_all >= 16384 * (40 + 24) * 4);  // the measurement sees the copies of a head
  }
}

namespace {

/// Of one forward and one backward call: 4 MiB a thread and packed rows; backward ids turned round too.
void check_peaks(at::ScalarType dtype, int64_t heads, int64_t kv_heads, int64_t width,
                 int64_t v_width) {
  const Threads two(2);
  const int64_t length = 16384, top_k = 32;
  AttendInputs in = inputs_of({1, length, length, heads, kv_heads, width, v_width, top_k});
  for (at::Tensor* t : {&in.q, &in.k, &in.v, &in.dout}) *t = t->to(dtype);
  const auto bytes = [](at::TensorList tensors) {
    double sum = 0;
    for (const at::Tensor& t : tensors) sum += static_cast<double>(t.nbytes());
    return sum;
  };
  const double tokens = static_cast<double>(length), threads = kThreads * kPerThread + kUnseen;
  const double row = 4 * static_cast<double>(width + v_width);
  ops::AttentionResult forward;
  const double forward_peak = memory_of([&] {
                                forward =
                                    cpu::sparse_forward(in.q, in.k, in.v, in.selection, in.scale);
                              }).second -
                              bytes({forward.out, forward.lse});
  CAPTURE(forward_peak);
  CHECK(forward_peak <= threads + tokens * row * static_cast<double>(kv_heads));
  // Packed rows of a head, which heads together do without: the measurement sees them.
  if (heads == kv_heads) CHECK(forward_peak > tokens * row / 2);
  AttentionGrads grads;
  const double backward_peak =
      memory_of([&] {
        grads = cpu::sparse_backward(in.dout, in.q, in.k, in.v, in.selection, forward, in.scale);
      }).second -
      bytes({grads.dq, grads.dk, grads.dv});
  CAPTURE(backward_peak);
  // One head's q, dq, dout, k, dk, v, dv; 16 bytes a selected pair and 256 a token.
  const double one_head = tokens * 4 * static_cast<double>(4 * width + 3 * v_width);
  CHECK(backward_peak <= threads + one_head + tokens * (16.0 * static_cast<double>(top_k) + 256));
  CHECK(backward_peak > tokens * row);  // the measurement sees the rows
}

}  // namespace

// A test each: what one call gave back to malloc the next would not show.
TEST_CASE("peak memory beyond results, float32", "[attend]") {
  check_peaks(at::kFloat, 4, 4, 64, 64);
}
TEST_CASE("peak memory beyond results, bfloat16", "[attend]") {
  check_peaks(at::kBFloat16, 4, 4, 64, 64);
}
TEST_CASE("peak memory beyond results, many heads on one kv head, float32", "[attend]") {
  check_peaks(at::kFloat, 16, 1, 96, 64);
}
TEST_CASE("peak memory beyond results, many heads on one kv head, bfloat16", "[attend]") {
  check_peaks(at::kBFloat16, 16, 1, 96, 64);
}

TEST_CASE("peak memory beyond the result, attention mass", "[attend]") {
  const Threads two(2);
  const int64_t length = 16384, heads = 4, width = 64, top_k = 32;
  const AttendInputs in = inputs_of({1, length, length, heads, heads, width, width, top_k});
  const auto forward = cpu::sparse_forward(in.q, in.k, in.v, in.selection, in.scale);
  at::Tensor mass;
  const double peak = memory_of([&] {
                        mass = cpu::attention_mass(in.q, in.k, in.selection, forward.lse, in.scale);
                      }).second -
                      static_cast<double>(mass.nbytes());
  CAPTURE(peak);
  CHECK(peak <=
        kThreads * kPerThread + kUnseen + 4.0 * static_cast<double>(length * heads * width));
}

TEST_CASE("memory of forward and backward grows with L and L * K, not with L * L", "[attend]") {
  const Threads two(2);
  const int64_t width = 64, top_k = 32;
  const auto bytes = [&](int64_t length) {
    const AttendInputs in = inputs_of({1, length, length, 2, 2, width, width, top_k});
    return memory_of([&] {
      const auto forward = cpu::sparse_forward(in.q, in.k, in.v, in.selection, in.scale);
      cpu::sparse_backward(in.dout, in.q, in.k, in.v, in.selection, forward, in.scale);
      cpu::attention_mass(in.q, in.k, in.selection, forward.lse, in.scale);
    });
  };
  const auto [scratch_8k, peak_8k] = bytes(8192);
  const auto [scratch_16k, peak_16k] = bytes(16384);
  INFO("scratch " << scratch_8k << " and " << scratch_16k << " bytes, peak growth " << peak_8k
                  << " and " << peak_16k << " bytes");
  REQUIRE(scratch_16k <= 2.3 * scratch_8k);
  // One head's rows and gradients (more than forward's packed rows in the same place); ids turned round and the
  // orders of both passes.
  const double tokens = 16384, rows = 4 * 7 * tokens * width;
  REQUIRE(scratch_16k <= kThreads * kPerThread + rows + tokens * (16 * top_k + 256));
  REQUIRE(peak_16k < 0.25 * 4.0 * 16384 * 16384);  // far below a float32 score matrix
  REQUIRE(peak_16k > 0.5 * scratch_16k);           // the measurement sees the scratch
}
