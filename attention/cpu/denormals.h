// Denormals as they are, whatever the caller does with them. Never included by ISA files.
#pragma once
#include "attention/cpu/dispatch.h"

namespace dsa::cpu {

/// While it lives, denormals of this thread are numbers of their own. Top-k walks over the integer
/// order of floats: where the processor compares them as zero (training flushes them), "the value
/// just below 0" equals 0, its counts contradict each other, and it keeps more than K.
class KeepDenormals {
 public:
  KeepDenormals() : before_(use_exact_floats()) {}
  ~KeepDenormals() { restore_floats(before_); }
  KeepDenormals(const KeepDenormals&) = delete;
  KeepDenormals& operator=(const KeepDenormals&) = delete;

 private:
  FloatMode before_;
};

}  // namespace dsa::cpu
