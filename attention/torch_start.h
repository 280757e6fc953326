// What torch needs before threads may compute together.
#pragma once

namespace dsa {

/// Calls MKL's vector mathematics once, on this thread. Call it before anything computes: when the first
/// at::exp, at::log, ... of a process runs on several threads, one of them can get a less exact kernel
/// (float64 exp off by 3e-9 on its half of the elements; torch 2.13's MKL, 26 of 600 processes), and
/// the same seed then gives other bits.
void start_vector_math();

}  // namespace dsa
