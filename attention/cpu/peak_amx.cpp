// The bfloat16 product of two tiles at its peak; compiled with the flags of AMX (CMakeLists.txt).
#include "attention/cpu/amx.h"
#include "attention/cpu/peak_kernels.h"

namespace dsa::cpu {
namespace {

constexpr int64_t kProducts = 16;  ///< of one round

void dot(int64_t rounds, float* sink) {
  const Tiles tiles;
  alignas(64) float memory[kTileBytes / sizeof(float)] = {};
  // Zeros times zeros: the unit's time does not depend on values.
  _tile_loadd(6, memory, 64);
  _tile_loadd(7, memory, 64);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < kProducts / 4; ++i) {  // four sums hide the latency
      _tile_dpbf16ps(0, 6, 7);
      _tile_dpbf16ps(1, 6, 7);
      _tile_dpbf16ps(2, 6, 7);
      _tile_dpbf16ps(3, 6, 7);
    }
  }
  _tile_stored(0, memory, 64);
  *sink = memory[0];
}

}  // namespace

constinit const Bf16Peak kBf16PeakAmx = {
    .dot_flops = 2 * kTileRows * kTileRows * kTilePairs * kProducts, .dot = dot};

}  // namespace dsa::cpu
