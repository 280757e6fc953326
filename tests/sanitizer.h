// What a test cannot measure in a build with AddressSanitizer.
#pragma once
// Defines CHECK too, and the last to do so wins: before Catch2.
#include <c10/util/Logging.h>
#include <catch2/catch_test_macros.hpp>

namespace dsa::testing {

/// Skips the test, in words, where the heap is not the one that its figures are about.
inline void need_plain_heap() {
#if defined(__SANITIZE_ADDRESS__)
#define DSA_TEST_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DSA_TEST_ASAN 1
#endif
#endif
#ifdef DSA_TEST_ASAN
  SKIP(
      "AddressSanitizer's heap adds an eighth of shadow memory, keeps up to 256 MiB of freed "
      "blocks "
      "in quarantine and maps large blocks anew: bounds on memory and page faults need a build "
      "without it");
#undef DSA_TEST_ASAN
#endif
}

}  // namespace dsa::testing
