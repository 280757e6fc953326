// The frame of the `cpu` backend: instruction sets, their arithmetic, and scratch.
#include "attention/backend.h"
#include "attention/cpu/attend_kernels.h"
#include "attention/cpu/dispatch.h"
#include "attention/cpu/scratch.h"

#include <catch2/catch_test_macros.hpp>

#include <cmath>
#include <string>
#include <vector>

using namespace dsa;

TEST_CASE("2^x of every ISA is right to 2e-7, never a denormal, and 0 below -100", "[isa]") {
  for (const cpu::IsaRow& row : cpu::isa_rows()) {
    if (!row.supported()) continue;
    INFO("isa " << row.name);
    std::vector<float> x, y(5003);
    for (int i = 0; i < 5003; ++i) x.push_back(-130.0f + 0.026f * static_cast<float>(i));
    row.attend->exp2_row(x.data(), 5003, y.data());
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = std::exp2(static_cast<double>(x[i]));
      INFO("2^" << x[i] << " = " << exact << ", found " << y[i]);
      if (x[i] > -100.0f)
        REQUIRE(std::abs(y[i] - exact) <= 2e-7 * exact);
      else
        REQUIRE(y[i] == 0.0f);
    }
  }
}

TEST_CASE("an unknown ISA is refused by name, and pinning one is seen", "[isa]") {
  REQUIRE_THROWS_AS(pin_isa("avx1024"), Error);
  for (const std::string& isa : available_isas()) {
    pin_isa(isa);
    REQUIRE(active_isa() == isa);
  }
  pin_isa("auto");
  REQUIRE(active_isa() == available_isas().back());
}

TEST_CASE("scratch grows, never shrinks, and is counted", "[isa]") {
  cpu::release_scratch();
  const int64_t before = cpu::scratch_live_bytes();
  float* small = cpu::scratch<float>(cpu::Slot::kSelectBuffer, 1000);
  REQUIRE(reinterpret_cast<uintptr_t>(small) % 64 == 0);
  REQUIRE(cpu::scratch<float>(cpu::Slot::kSelectBuffer, 10) == small);
  REQUIRE(cpu::scratch_live_bytes() >= before + 4000);
  cpu::scratch<float>(cpu::Slot::kSelectBuffer, 1 << 20);
  REQUIRE(cpu::scratch_live_bytes() >= before + (4 << 20));
  cpu::release_scratch();
  REQUIRE(cpu::scratch_live_bytes() == before);
}
