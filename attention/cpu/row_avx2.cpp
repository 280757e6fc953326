// Row kernels for one ISA; compiled with its flags (CMakeLists.txt).
#include "attention/cpu/row_impl.h"
#include "attention/cpu/simd_avx2.h"

namespace dsa::cpu {
const RowwiseKernels kRowsAvx2 = rowwise_kernels_of<Avx2>();
}
