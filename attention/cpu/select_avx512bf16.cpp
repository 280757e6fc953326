// Indexer scores of bfloat16 inputs; compiled with the flags of AVX512-BF16 (CMakeLists.txt). What
// follows them, the selection, is that of AVX-512.
#include "attention/cpu/score_tile_impl.h"
#include "attention/cpu/simd_avx512bf16.h"

namespace dsa::cpu {
constinit const IndexerKernels<Bf16> kIndexerAvx512Bf16 =
    TileScorer<Avx512Bf16, PairTerms<Avx512Bf16>>::kernels();
}
