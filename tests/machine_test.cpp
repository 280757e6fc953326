// Facts of machine and build are true here and now, and unknown ones are absent.
#include "harness/machine.h"

#include "attention/backend.h"
#include "tests/sanitizer.h"

#include <catch2/catch_test_macros.hpp>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <regex>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

using namespace dsa;

TEST_CASE("machine facts hold no empty entry and agree with the standard library", "[machine]") {
  const auto facts = machine_facts();
  for (const auto& [name, value] : facts) {
    CAPTURE(name);
    CHECK(!value.empty());
  }
  REQUIRE(facts.contains("cores"));
  CHECK(std::stoul(facts.at("cores")) == std::thread::hardware_concurrency());
  REQUIRE(facts.contains("memory_bytes"));
  CHECK(std::stod(facts.at("memory_bytes")) > 1e8);
  CHECK(facts.contains("os"));
#if defined(__x86_64__)
  CHECK(facts.at("architecture") == "x86_64");
  const bool avx2 = (" " + facts.at("isa") + " ").find(" avx2 ") != std::string::npos;
  CHECK(avx2 == static_cast<bool>(__builtin_cpu_supports("avx2")));
#endif
}

TEST_CASE("build facts name commit, compiler, LibTorch and cost model", "[machine]") {
  const auto facts = build_facts();
  if (facts.contains("git")) {
    CHECK(std::regex_match(facts.at("git"), std::regex("[0-9a-f]{40}")));
    CHECK((facts.at("dirty") == "true" || facts.at("dirty") == "false"));
  }
  CHECK(std::regex_match(facts.at("torch"), std::regex("2\\.[0-9]+\\.[0-9]+.*")));
  CHECK(facts.at("flops_model").starts_with("dsa-cost-"));
  CHECK(facts.at("compiler").find(' ') != std::string::npos);
  CHECK(facts.contains("type"));
}

TEST_CASE("a build that must not be timed says why", "[machine]") {
#if !defined(__OPTIMIZE__) || defined(__SANITIZE_ADDRESS__)
  CHECK(!reason_not_to_time().empty());
#else
  CHECK(reason_not_to_time().empty());
#endif
}

TEST_CASE("measured ceilings are physical, and survive the record", "[machine]") {
  dsa::testing::need_plain_speed();
  Ceilings c = measure_ceilings();
  // A test beside this one may slow one of the two that `believable` compares, but hardly three times.
  for (int again = 0; again < 2 && !believable(c); ++again) c = measure_ceilings();
  CHECK(c.f32_flops > 1e8);
  CHECK(c.l2_bytes > 1e8);
  CHECK(c.dram_bytes > 1e8);
  CHECK(c.gemm_f32 > 1e8);
  // Two roads to one limit: no float32 product is faster than registers.
  CHECK(believable(c));
  Ceilings disturbed = c;
  disturbed.f32_flops = 1;
  CHECK(!believable(disturbed));
  const auto read_back = ceilings_of(facts_of(c));
  REQUIRE(read_back);
  visit_fields(*read_back, [&](const char* name, double value) {
    CAPTURE(name);
    visit_fields(c, [&](const char* other, double before) {
      if (std::string(name) == other) CHECK(std::abs(value - before) <= 1e-3 * before);
    });
  });
  CHECK(!ceilings_of({{"cpu", "unknown"}}));
}

TEST_CASE("the share of the ceiling names what bounds the work", "[machine]") {
  Ceilings c;
  c.f32_flops = 100, c.bf16_flops = 200, c.gemm_bf16 = 50;
  c.l2_bytes = 40, c.l3_bytes = 20, c.dram_bytes = 10, c.l2_size = 1000, c.l3_size = 8000;
  const Cost arithmetic{50, 1, 1}, traffic{0, 3, 2};
  const auto share = [&](const Cost& work, c10::ScalarType dtype, double set) {
    return ceiling_share(c, work, dtype, set, 1);
  };
  CHECK(share(arithmetic, c10::kFloat, 500).percent == 50);
  CHECK(std::string(share(arithmetic, c10::kFloat, 500).bound) == "flops");
  CHECK(share(arithmetic, c10::kBFloat16, 500).percent == 25);
  CHECK(share(arithmetic, c10::kDouble, 500).percent == 100);
  CHECK(std::string(share(traffic, c10::kFloat, 500).bound) == "bytes");
  CHECK(share(traffic, c10::kFloat, 500).percent == 12.5);
  CHECK(share(traffic, c10::kFloat, 5000).percent == 25);
  CHECK(share(traffic, c10::kFloat, 50000).percent == 50);
}

TEST_CASE("what no unit and no cache can do is beyond the ceilings", "[machine]") {
  Ceilings c;
  c.f32_flops = 100, c.bf16_flops = 200, c.gemm_f32 = 90, c.gemm_bf16 = 250;
  c.l2_bytes = 40, c.l3_bytes = 20, c.dram_bytes = 10;
  CHECK(beyond_ceilings(c, {1000, 1, 1}, 2) == 1);  // int8: twice the best of bfloat16
  CHECK(beyond_ceilings(c, {1000, 1, 1}, 1) == 2);
  CHECK(beyond_ceilings(c, {1, 700, 100}, 1) == 2);  // L1: four bytes an operation
  Ceilings other;
  other.f32_flops = 300, other.l2_bytes = 1;
  const Ceilings both = larger(c, other);
  CHECK(both.f32_flops == 300);
  CHECK(both.l2_bytes == 40);
  CHECK(both.gemm_bf16 == 250);
}

TEST_CASE("CPU time of others grows with the work of another process", "[machine]") {
  const auto burn = [](double seconds) {
    const std::clock_t start = std::clock();
    while (static_cast<double>(std::clock() - start) < seconds * CLOCKS_PER_SEC) {
    }
  };
  const auto before = cpu_seconds_of_others();
  if (!before) SKIP("the system does not tell");
  const pid_t child = fork();
  if (child == 0) {
    burn(0.3);
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(*cpu_seconds_of_others() - *before > 0.25);
}

TEST_CASE("our own CPU time is not that of others", "[machine]") {
  const auto before = cpu_seconds_of_others();
  if (!before) SKIP("the system does not tell");
  const auto cpus = static_cast<double>(sysconf(_SC_NPROCESSORS_ONLN));
  const auto start = std::chrono::steady_clock::now();
  const std::clock_t ours_before = std::clock();
  const auto wall = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < static_cast<int>(cpus); ++i)
    threads.emplace_back([&] {
      while (wall() < 0.4) {
      }
    });
  for (auto& thread : threads) thread.join();
  const double others = *cpu_seconds_of_others() - *before, seconds = wall();
  const double ours = static_cast<double>(std::clock() - ours_before) / CLOCKS_PER_SEC;
  REQUIRE(ours > 0.1);
  // What we used nobody else can have had; the system counts in steps of 0.01 s a CPU.
  CHECK(others < seconds * cpus - ours + 0.03 * cpus);
}

TEST_CASE("a crowd is what our threads had to share", "[machine]") {
  CHECK(crowd(1.0, 2.0, 2, 2).others == 0.5);
  CHECK(crowd(1.0, 2.0, 2, 2).missing == 0.5);
  CHECK(crowd(1.0, 2.0, 2, 8).missing == 0);
  CHECK(crowd(-0.01, 2.0, 2, 2).others == 0);
  CHECK(crowd(9.0, 2.0, 2, 2).missing == 2);
}
