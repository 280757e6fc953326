// Sparse-attention kernels for one ISA; compiled with its flags (CMakeLists.txt).
#include "attention/cpu/attend_impl.h"
#include "attention/cpu/attend_narrow_impl.h"
#include "attention/cpu/attend_shared_amx_impl.h"
#include "attention/cpu/attend_split_impl.h"
#include "attention/cpu/simd_avx512bf16.h"

namespace dsa::cpu {
namespace {

constexpr AttendKernels amx_kernels() {
  AttendKernels kernels = attend_kernels_of<Avx512Bf16, PairUnits<Avx512Bf16>>();
  kernels.narrow = &kNarrowAmx;
  kernels.split = &kSplitAmx;
  kernels.shared_bfloat16 = {shared_amx_scratch, shared_amx_forward};
  kernels.shared_bfloat16_heads = kSharedBfloatHeads;
  return kernels;
}

}  // namespace

constinit const AttendKernels kAttendAmx = amx_kernels();
}  // namespace dsa::cpu
