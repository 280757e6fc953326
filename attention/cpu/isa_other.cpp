// The ISAs of a build for anything but x86-64: the portable kernels alone.
#include "attention/cpu/attend_kernels.h"
#include "attention/cpu/dispatch.h"
#include "attention/cpu/peak_kernels.h"
#include "attention/cpu/row_kernels.h"
#include "attention/cpu/select_kernels.h"

namespace dsa::cpu {
namespace {

bool always() {
  return true;
}

constexpr IsaRow kRows[] = {
    {"portable", always, &kAttendPortable, &kSelectPortable, &kPeakPortable, &kRowsPortable}};

}  // namespace

std::span<const IsaRow> isa_rows() {
  return kRows;
}

}  // namespace dsa::cpu
