// Peak loops for one ISA; compiled with its flags (CMakeLists.txt).
#include "attention/cpu/peak_impl.h"
#include "attention/cpu/simd_avx512.h"

namespace dsa::cpu {
const PeakKernels kPeakAvx512 = peak_kernels_of<Avx512>();
}
