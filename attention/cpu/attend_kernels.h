// Raw kernels of sparse attention. Layouts are head-major, one head at a time; ids are a
// selection's: ascending, valid ones first.
#pragma once
#include "attention/cpu/kernels.h"

namespace dsa::cpu {

struct AttendKernels {
  /// out[i] = 2^x[i]; the softmax's exponential, here so that tests can reach it.
  void (*exp2_row)(const float* x, int64_t n, float* out);
};

extern const AttendKernels kAttendPortable;
extern const AttendKernels kAttendAvx2;
extern const AttendKernels kAttendAvx512;

}  // namespace dsa::cpu
