// Row kernels for one ISA; compiled with its flags (CMakeLists.txt).
#include "attention/cpu/row_impl.h"
#include "attention/cpu/simd_avx512.h"

namespace dsa::cpu {
const RowwiseKernels kRowsAvx512 = rowwise_kernels_of<Avx512>();
}
