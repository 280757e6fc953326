// Sparse-attention kernels for one ISA; compiled with its flags (CMakeLists.txt).
#include "attention/cpu/attend_impl.h"
#include "attention/cpu/attend_shared_amx_impl.h"
#include "attention/cpu/simd_avx512bf16.h"

namespace dsa::cpu {
namespace {

constexpr AttendKernels amx_kernels() {
  AttendKernels kernels = attend_kernels_of<Avx512Bf16, PairUnits<Avx512Bf16>>();
  kernels.shared_bfloat16 = {shared_amx_scratch, shared_amx_forward};
  // One by one in float32, 4 heads took 12.9 ms where tiles took 11.2 (D = V = 64), and 19 where they
  // took 15 (128); 2 heads 6.6 and 8.6, 9.9 and 10.9.
  kernels.shared_bfloat16_heads = 4;
  return kernels;
}

}  // namespace

constinit const AttendKernels kAttendAmx = amx_kernels();
}  // namespace dsa::cpu
