// The ISAs of an x86-64 build. __builtin_cpu_supports also asks whether the operating system saves
// the registers; for AMX it must be asked to.
#include "attention/cpu/attend_kernels.h"
#include "attention/cpu/dispatch.h"
#include "attention/cpu/peak_kernels.h"
#include "attention/cpu/row_kernels.h"
#include "attention/cpu/select_kernels.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xmmintrin.h>

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

/// AMX with bfloat16 and int8. Linux saves a process's tiles only after it asked for it, once.
bool has_amx() {
#ifdef DSA_EMULATE_AMX
  return has_avx512bf16();
#else
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!has_avx512bf16() || __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;
  if ((~edx & (kBf16 | kTile | kInt8)) != 0) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM of Linux 5.16
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#endif
}

constexpr IsaRow kRows[] = {
    {"portable", always, &kAttendPortable, &kSelectPortable, &kPeakPortable, &kRowsPortable},
    {"avx2", has_avx2, &kAttendAvx2, &kSelectAvx2, &kPeakAvx2, &kRowsAvx2},
    {"avx512", has_avx512, &kAttendAvx512, &kSelectAvx512, &kPeakAvx512, &kRowsAvx512},
    {"avx512bf16", has_avx512bf16, &kAttendAvx512Bf16, &kSelectAvx512, &kPeakAvx512, &kRowsAvx512,
     &kIndexerAvx512Bf16, &kScreenAvx512Bf16, &kBf16PeakAvx512},
    {"amx", has_amx, &kAttendAmx, &kSelectAvx512, &kPeakAvx512, &kRowsAvx512, &kIndexerAmx,
     &kScreenAmx, &kBf16PeakAmx, &kInt8Amx},
};

}  // namespace

std::span<const IsaRow> isa_rows() {
  return kRows;
}

FloatMode use_exact_floats() {
  constexpr unsigned kPowerOn = 0x1f80;  // nothing flushed, to nearest, no exception trapped
  const unsigned before = _mm_getcsr();
  _mm_setcsr(kPowerOn);
  return {{before, 0}};
}

void restore_floats(const FloatMode& before) {
  _mm_setcsr(static_cast<unsigned>(before.words[0]));
}

}  // namespace dsa::cpu
