// Row kernels for one ISA; compiled with its flags (CMakeLists.txt).
#include "attention/cpu/row_impl.h"
#include "attention/cpu/simd_portable.h"

namespace dsa::cpu {
const RowwiseKernels kRowsPortable = rowwise_kernels_of<Portable>();
}
