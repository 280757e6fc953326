// Facts of machine and build are true here and now, and unknown ones are absent.
#include "harness/machine.h"

#include <catch2/catch_test_macros.hpp>

#include <cstdlib>
#include <regex>
#include <thread>

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
