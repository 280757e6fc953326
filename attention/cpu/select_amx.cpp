// Indexer scores of bfloat16 and int8 inputs by AMX, and the screen for float32 inputs that is made of
// the former; compiled with its flags (CMakeLists.txt). Every other kernel is that of AVX-512.
#include "attention/cpu/quantize_avx512.h"
#include "attention/cpu/score_tile_amx.h"
#include "attention/cpu/screen_impl.h"

namespace dsa::cpu {
constinit const IndexerKernels<Bf16> kIndexerAmx = AmxScorer<Bf16>::kernels();
constinit const ScreenKernels kScreenAmx = Screen<Avx512, AmxScorer<Bf16>>::kernels();
constinit const Int8Kernels kInt8Amx = {AmxScorer<int8_t>::kernels(), Quantizer<float>::rows,
                                        Quantizer<Bf16>::rows};
}  // namespace dsa::cpu
