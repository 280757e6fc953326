// The row of the `cpu` backend: our kernels, in the instruction set of the machine.
#include "attention/backend_cpu.h"

namespace dsa {
namespace {

std::optional<std::string> declines(Op, const Problem& problem) {
  if (!problem.device.is_cpu()) return "runs on the CPU; q is on " + problem.device.str();
  if (problem.dtype != c10::kFloat)
    return std::string("needs float32; q is ") + c10::toString(problem.dtype);
  return std::nullopt;
}

}  // namespace

const Backend& cpu_backend() {
  static const Backend row{
      .name = "cpu",
      .description = "our SIMD kernels, instruction set chosen at run time",
      .role = "ours",
      .declines = declines,
  };
  return row;
}

}  // namespace dsa
