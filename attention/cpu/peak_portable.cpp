// Peak loops for one ISA; compiled with its flags (CMakeLists.txt).
#include "attention/cpu/peak_impl.h"
#include "attention/cpu/simd_portable.h"

namespace dsa::cpu {
const PeakKernels kPeakPortable = peak_kernels_of<Portable>();
}
