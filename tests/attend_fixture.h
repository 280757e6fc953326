// What the tests of the `cpu` backend's sparse attention share.
#pragma once
#include "attention/backend_cpu.h"
#include "attention/cpu/attend_kernels.h"
#include "attention/cpu/dispatch.h"
#include "tests/sparse_oracle.h"
#include "tests/threads.h"

#include <ATen/ops/equal.h>
#include <catch2/catch_test_macros.hpp>

namespace dsa::test {

struct Isa {  // pins an ISA for the current scope
  explicit Isa(const std::string& name) { pin_isa(name); }
  ~Isa() { pin_isa("auto"); }
};

struct Way {  // pins how blocks of queries go, for the current scope
  Threads threads;
  explicit Way(cpu::NarrowChoice choice, int n = 2) : threads(n) { cpu::choose_narrow(choice); }
  ~Way() { cpu::choose_narrow(cpu::NarrowChoice::kMeasured); }
};

/// @param allowed  how far a log-sum-exp of that size may be off
template <class Allowed>
void check_lse(const Oracle& exact, const at::Tensor& found, const Allowed& allowed) {
  const float* lse = found.const_data_ptr<float>();
  for (size_t i = 0; i < exact.lse.size(); ++i) {
    INFO("lse of row " << i << ": " << lse[i] << ", exact " << exact.lse[i]);
    if (std::isinf(exact.lse[i]))
      REQUIRE(lse[i] == -INFINITY);
    else
      REQUIRE(std::abs(lse[i] - exact.lse[i]) <= allowed(std::abs(exact.lse[i])));
  }
}

/// In float32.
inline void check_lse(const Oracle& exact, const at::Tensor& found) {
  check_lse(exact, found, [](double size) { return 2e-6 * std::max(1.0, size); });
}

inline void check(const char* what, WorstRow worst, double bound) {
  INFO(what << ": worst row " << worst.row << " has error " << worst.error);
  CHECK(worst.error <= bound);
}

// B T S H G D V K
inline const AttendCase kCases[] = {
    {1, 1, 1, 1, 1, 16, 16, 1},            // one token
    {1, 1, 1, 2, 1, 1, 1, 5},              // width 1, K > S
    {1, 40, 40, 2, 2, 64, 64, 64},         // K > S: dense
    {1, 150, 150, 2, 2, 64, 64, 32},       // whole registers
    {2, 70, 70, 4, 2, 32, 48, 17},         // batch, GQA
    {1, 33, 60, 6, 1, 3, 17, 9},           // T < S, MQA, odd widths
    {1, 60, 60, 3, 3, 17, 72, 20},         //
    {2, 37, 45, 4, 4, 72, 3, 11},          //
    {1, 24, 40, 16, 1, 576, 512, 20},      // MLA in MQA form
    {1, 20, 40, 2, 1, 576, 576, 20},       // the widest
    {1, 9, 700, 17, 1, 33, 17, 600},       // many heads on one row, more than one chunk of keys
    {2, 20, 30, 32, 2, 24, 100, 7},        // GQA with many heads
    {1, 30, 30, 24, 1, 40, 20, 8, 7, 3},   // the same with empty rows
    {1, 3000, 3000, 1, 1, 128, 64, 40},    // several panels of keys and of queries
    {1, 130, 130, 2, 2, 64, 64, 33, 7, 3}  // every third query selects nothing
};

}  // namespace dsa::test
