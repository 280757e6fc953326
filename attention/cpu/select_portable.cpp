// Indexer and selection kernels for one ISA; compiled with its flags (CMakeLists.txt).
#include "attention/cpu/select_impl.h"
#include "attention/cpu/simd_portable.h"

namespace dsa::cpu {
const SelectKernels kSelectPortable = select_kernels_of<Portable>();
}
