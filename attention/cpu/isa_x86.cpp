// The ISAs of an x86-64 build. __builtin_cpu_supports also asks whether the operating system saves
// the registers.
#include "attention/cpu/attend_kernels.h"
#include "attention/cpu/dispatch.h"
#include "attention/cpu/peak_kernels.h"
#include "attention/cpu/select_kernels.h"

namespace dsa::cpu {
namespace {

bool always() {
  return true;
}

bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi2");
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx512bf16() {
  return has_avx512() && __builtin_cpu_supports("avx512bf16");
}

constexpr IsaRow kRows[] = {
    {"portable", always, &kAttendPortable, &kSelectPortable, &kPeakPortable},
    {"avx2", has_avx2, &kAttendAvx2, &kSelectAvx2, &kPeakAvx2},
    {"avx512", has_avx512, &kAttendAvx512, &kSelectAvx512, &kPeakAvx512},
    {"avx512bf16", has_avx512bf16, &kAttendAvx512Bf16, &kSelectAvx512, &kPeakAvx512,
     &kIndexerAvx512Bf16, &kScreenAvx512Bf16, &kBf16PeakAvx512},
};

}  // namespace

std::span<const IsaRow> isa_rows() {
  return kRows;
}

}  // namespace dsa::cpu
