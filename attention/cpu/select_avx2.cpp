// Indexer and selection kernels for one ISA; compiled with its flags (CMakeLists.txt).
#include "attention/cpu/select_impl.h"
#include "attention/cpu/simd_avx2.h"

namespace dsa::cpu {
const SelectKernels kSelectAvx2 = select_kernels_of<Avx2>();
}
