// What this machine can do at most, measured in a second: the ceilings that kernel rows are compared
// with. Peak rates of all threads in use, in the instruction set the `cpu` backend runs now.
#pragma once
#include "attention/cost.h"

namespace dsa {

struct Ceilings {
  double f32_flops = 0;   ///< FLOP/s of float32 multiply-adds that never leave registers
  double bf16_flops = 0;  ///< FLOP/s of the bfloat16 dot product; 0: the ISA in use has none
  double l2_bytes = 0;    ///< bytes/s read from the threads' L2 caches
  double l3_bytes = 0;    ///< bytes/s read from the last-level cache; 0: there is none
  double dram_bytes = 0;  ///< bytes/s read from memory
  double l2_size = 0;     ///< bytes, of all threads' cores together
  double l3_size = 0;     ///< bytes
  double gemm_f32 = 0;    ///< FLOP/s of torch's matrix product 2048 x 2048 x 2048
  double gemm_bf16 = 0;   ///< the same in bfloat16
};

/// Every field with its name in a record's `machine`.
template <class C, class V>
  requires is_a<C, Ceilings>
void visit_fields(C& c, V&& v) {
  auto& [f32_flops, bf16_flops, l2_bytes, l3_bytes, dram_bytes, l2_size, l3_size, gemm_f32,
         gemm_bf16] = c;
  v("ceiling_f32_flops", f32_flops), v("ceiling_bf16_flops", bf16_flops);
  v("ceiling_l2_bytes", l2_bytes), v("ceiling_l3_bytes", l3_bytes);
  v("ceiling_dram_bytes", dram_bytes), v("ceiling_l2_size", l2_size);
  v("ceiling_l3_size", l3_size), v("torch_gemm_f32", gemm_f32), v("torch_gemm_bf16", gemm_bf16);
}

/// Best of a few short rounds each: other load on the machine only makes rounds slower.
Ceilings measure_ceilings();

/// False if torch's product was faster than registers: other load then slowed the loops down.
bool believable(const Ceilings& ceilings);

/// How much of what is possible a call used, and what bounds it.
struct CeilingShare {
  double percent = 0;
  const char* bound = "";  ///< flops | bytes
};

/// The larger of FLOP rate over FLOP peak and rate of compulsory bytes over the bandwidth of the
/// cache that holds `working_set` bytes. bfloat16 work is compared with the dot-product
/// instruction, or with torch's matrix product if that is faster (AMX); float64 work with half the
/// float32 peak. Traffic between caches is not compulsory and not counted: a kernel that gathers
/// from L2 may be at its limit far below 100 %.
CeilingShare ceiling_share(const Ceilings& ceilings, const Cost& work, c10::ScalarType dtype,
                           double working_set, double seconds);

/// How many times more than any unit and any cache of this machine can do a call would have done: above
/// 1 the clock or the cost model is wrong, or the work was not done. Whatever the element type: float32
/// results may be made of bfloat16 products, and int8 units do twice as many as those of bfloat16.
double beyond_ceilings(const Ceilings& ceilings, const Cost& work, double seconds);

/// The larger of each rate: other load only makes a measurement smaller.
Ceilings larger(const Ceilings& a, const Ceilings& b);

}  // namespace dsa
