// Peak memory counts what the work needed, whatever the heap kept from before.
#include "harness/memory.h"

#include "harness/denormals.h"
#include "tests/sanitizer.h"

#include <ATen/ops/full.h>
#include <catch2/catch_test_macros.hpp>

#include <cstring>
#include <limits>
#include <memory>
#include <sys/resource.h>

using namespace dsa;

namespace {

constexpr size_t kMebibyte = 1 << 20;

void touch(size_t bytes) {
  const auto block = std::make_unique<char[]>(bytes);
  std::memset(block.get(), 1, bytes);
  // Without this the compiler may leave block and memset out.
  asm volatile("" : : "r"(block.get()) : "memory");
}

int64_t page_faults() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

double denormal_share() {
  const at::Tensor small = at::full({1 << 20}, 1e-30f).mul_(1e-10f);  // 1e-40
  const auto* values = small.data_ptr<float>();
  int64_t found = 0;
  for (int64_t i = 0; i < small.numel(); ++i) {
    uint32_t bits;  // not a comparison of floats: with denormals-are-zero they all equal 0
    std::memcpy(&bits, values + i, sizeof bits);
    found += bits != 0;
  }
  return static_cast<double>(found) / static_cast<double>(small.numel());
}

}  // namespace

TEST_CASE("peak_bytes sees what the work held at once", "[memory]") {
  dsa::testing::need_plain_heap();
  if (!peak_bytes([] {})) SKIP("the high-water mark cannot be reset here");
  CHECK(*peak_bytes([] {}) < 2.0 * kMebibyte);
  const double one = *peak_bytes([] { touch(100 * kMebibyte); });
  CHECK(one > 99.0 * kMebibyte);
  CHECK(one < 104.0 * kMebibyte);
  const double in_turn = *peak_bytes([] {
    touch(60 * kMebibyte);
    touch(60 * kMebibyte);
  });
  CHECK(in_turn > 59.0 * kMebibyte);
  CHECK(in_turn < 64.0 * kMebibyte);
}

TEST_CASE("memory kept from earlier work does not hide a peak", "[memory]") {
  if (!peak_bytes([] {})) SKIP("the high-water mark cannot be reset here");
  keep_freed_memory();
  touch(300 * kMebibyte);
  CHECK(*peak_bytes([] { touch(100 * kMebibyte); }) > 99.0 * kMebibyte);
}

TEST_CASE("freed memory is kept and reused without page faults", "[memory]") {
  dsa::testing::need_plain_heap();
  keep_freed_memory();
  touch(128 * kMebibyte);
  const int64_t before = page_faults();
  for (int i = 0; i < 10; ++i) touch(128 * kMebibyte);
  CHECK(page_faults() - before < 100);  // 32768 for each block mapped anew
}

TEST_CASE("an exception of the work leaves the allocator as it was", "[memory]") {
  dsa::testing::need_plain_heap();
  keep_freed_memory();
  CHECK_THROWS_AS(peak_bytes([] { throw std::runtime_error("work failed"); }), std::runtime_error);
  touch(128 * kMebibyte);
  const int64_t before = page_faults();
  touch(128 * kMebibyte);
  CHECK(page_faults() - before < 100);
}

TEST_CASE("denormals are flushed on every thread, and only inside the scope", "[memory]") {
  CHECK(denormal_share() == 1);
  {
    const FlushDenormals outer(true);
    CHECK(denormal_share() == 0);
    {
      const FlushDenormals inner(true);
      CHECK(denormal_share() == 0);
    }
    CHECK(denormal_share() == 0);
  }
  CHECK(denormal_share() == 1);
  const FlushDenormals off(false);
  CHECK(denormal_share() == 1);
}
