// Sparse-attention kernels for one ISA; compiled with its flags (CMakeLists.txt).
#include "attention/cpu/attend_impl.h"
#include "attention/cpu/simd_avx512bf16.h"

namespace dsa::cpu {
constinit const AttendKernels kAttendAmx = attend_kernels_of<Avx512Bf16, PairUnits<Avx512Bf16>>();
}
