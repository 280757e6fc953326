// Indexer scores of bfloat16 inputs by AMX, and the screen for float32 inputs that is made of them;
// compiled with its flags (CMakeLists.txt). Every other kernel is that of AVX-512.
#include "attention/cpu/score_tile_amx.h"
#include "attention/cpu/screen_impl.h"

namespace dsa::cpu {
constinit const IndexerKernels<Bf16> kIndexerAmx = AmxScorer::kernels();
constinit const ScreenKernels kScreenAmx = Screen<Avx512, AmxScorer>::kernels();
}  // namespace dsa::cpu
