// What a test cannot measure in a build with AddressSanitizer.
#pragma once
// Defines CHECK too, and the last to do so wins: before Catch2.
#include <c10/util/Logging.h>
#include <catch2/catch_test_macros.hpp>

namespace dsa::testing {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kAddressSanitizer = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
inline constexpr bool kAddressSanitizer = true;
#else
inline constexpr bool kAddressSanitizer = false;
#endif
#else
inline constexpr bool kAddressSanitizer = false;
#endif

/// Skips the test, in words, where the heap is not the one that its figures are about.
inline void need_plain_heap() {
  if (kAddressSanitizer)
    SKIP(
        "AddressSanitizer's heap adds an eighth of shadow memory, keeps up to 256 MiB of freed "
        "blocks in quarantine and maps large blocks anew: bounds on memory and page faults need a "
        "build without it");
}

/// Skips the test, in words, where our kernels are slowed down and torch's are not.
inline void need_plain_speed() {
  if (kAddressSanitizer)
    SKIP(
        "our peak kernels run with AddressSanitizer's checks and torch's product does not: the "
        "measured ceilings are not this machine's, and dsa-bench refuses them");
}

}  // namespace dsa::testing
