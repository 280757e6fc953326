// Indexer scores of bfloat16 inputs, and the screen for float32 inputs that is made of them; compiled
// with the flags of AVX512-BF16 (CMakeLists.txt). Every other kernel is that of AVX-512.
#include "attention/cpu/screen_impl.h"
#include "attention/cpu/simd_avx512bf16.h"

namespace dsa::cpu {
constinit const IndexerKernels<Bf16> kIndexerAvx512Bf16 =
    TileScorer<Avx512Bf16, PairTerms<Avx512Bf16>>::kernels();
constinit const ScreenKernels kScreenAvx512Bf16 =
    Screen<Avx512Bf16, TileScorer<Avx512Bf16, PairTerms<Avx512Bf16>>>::kernels();
}  // namespace dsa::cpu
