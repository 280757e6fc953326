// Denormals as they are, whatever the caller does with them. Never included by ISA files.
#pragma once
#ifdef __SSE__
#include <xmmintrin.h>
#else
#include <cfenv>
#endif

namespace dsa::cpu {

/// While it lives, denormals of this thread are numbers of their own. Top-k walks over the integer
/// order of floats: where the processor compares them as zero (training flushes them), "the value
/// just below 0" equals 0, its counts contradict each other, and it keeps more than K.
class KeepDenormals {
 public:
#ifdef __SSE__
  // Not fesetenv: the x87 state that it loads too took 2 % of a small call.
  KeepDenormals() : before_(_mm_getcsr()) { _mm_setcsr(kDefault); }
  ~KeepDenormals() { _mm_setcsr(before_); }
#else
  KeepDenormals() {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~KeepDenormals() { std::fesetenv(&before_); }
#endif
  KeepDenormals(const KeepDenormals&) = delete;
  KeepDenormals& operator=(const KeepDenormals&) = delete;

 private:
#ifdef __SSE__
  static constexpr unsigned kDefault =
      0x1f80;  ///< all exceptions masked, to nearest, nothing flushed
  unsigned before_;
#else
  std::fenv_t before_;
#endif
};

}  // namespace dsa::cpu
