// Sparse-attention kernels for one ISA; compiled with its flags (CMakeLists.txt).
#include "attention/cpu/attend_impl.h"
#include "attention/cpu/simd_portable.h"

namespace dsa::cpu {
constinit const AttendKernels kAttendPortable = attend_kernels_of<Portable>();
}
