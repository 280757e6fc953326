// Sparse-attention kernels for one ISA; compiled with its flags (CMakeLists.txt).
#include "attention/cpu/attend_impl.h"
#include "attention/cpu/simd_avx512.h"

namespace dsa::cpu {
constinit const AttendKernels kAttendAvx512 = attend_kernels_of<Avx512>();
}
