// The ISAs of a build for anything but x86-64: the portable kernels alone.
#include "attention/cpu/attend_kernels.h"
#include "attention/cpu/dispatch.h"
#include "attention/cpu/peak_kernels.h"
#include "attention/cpu/row_kernels.h"
#include "attention/cpu/select_kernels.h"

#include <cfenv>
#include <cstring>

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

FloatMode use_exact_floats() {
  static_assert(sizeof(std::fenv_t) <= sizeof(FloatMode));
  std::fenv_t mode;
  std::fegetenv(&mode);
  std::fesetenv(FE_DFL_ENV);
  FloatMode before{};
  std::memcpy(&before, &mode, sizeof mode);
  return before;
}

void restore_floats(const FloatMode& before) {
  std::fenv_t mode;
  std::memcpy(&mode, &before, sizeof mode);
  std::fesetenv(&mode);
}

}  // namespace dsa::cpu
