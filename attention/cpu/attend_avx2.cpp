// Sparse-attention kernels for one ISA; compiled with its flags (CMakeLists.txt).
#include "attention/cpu/attend_impl.h"
#include "attention/cpu/simd_avx2.h"

namespace dsa::cpu {
constinit const AttendKernels kAttendAvx2 = attend_kernels_of<Avx2>();
}
