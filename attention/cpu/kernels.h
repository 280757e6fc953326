// The raw kernels of the `cpu` backend, one struct of function pointers a subject, one constant an
// ISA. Pointers and int64 sizes only: ISA files include this, intrinsics and nothing of torch or
// the standard containers (an inline function compiled with -mavx512f may be the copy the linker
// keeps for everyone).
#pragma once
#include <cstdint>

namespace dsa::cpu {

struct AttendKernels;  // attend_kernels.h
struct SelectKernels;  // select_kernels.h
struct ScreenKernels;  // select_kernels.h
struct Int8Kernels;    // select_kernels.h
struct Bf16;           // bf16.h
template <class Element>
struct IndexerKernels;
struct PeakKernels;     // peak_kernels.h
struct RowwiseKernels;  // row_kernels.h
struct Bf16Peak;        // peak_kernels.h

/// One instruction set: its name (what --isa takes), and its kernels.
struct IsaRow {
  const char* name;
  bool (*supported)();  ///< by this machine and its operating system
  const AttendKernels* attend;
  const SelectKernels* select;
  const PeakKernels* peak;
  const RowwiseKernels* rows;
  /// Scores of bfloat16 inputs; null: convert them to float32 and use `select`.
  const IndexerKernels<Bf16>* indexer_bf16 = nullptr;
  const ScreenKernels* screen = nullptr;      ///< null: float32 is selected by float32 scores alone
  const Bf16Peak* bf16_peak = nullptr;        ///< null: bfloat16 is computed as float32
  const Int8Kernels* indexer_int8 = nullptr;  ///< null: no products of int8
};

}  // namespace dsa::cpu
