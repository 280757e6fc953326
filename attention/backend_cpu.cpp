// The row of the `cpu` backend: our kernels, in the instruction set of the machine.
#include "attention/backend_cpu.h"

namespace dsa {
namespace {

std::optional<std::string> declines(Op, const Problem& problem) {
  if (!problem.device.is_cpu()) return "runs on the CPU; q is on " + problem.device.str();
  if (problem.dtype != c10::kFloat && problem.dtype != c10::kBFloat16)
    return std::string("needs float32 or bfloat16; q is ") + c10::toString(problem.dtype);
  return std::nullopt;
}

std::string note(Op op, const Problem& problem) {
  return op == Op::kSparse ? cpu::narrow_note(problem) : "";
}

}  // namespace

const Backend& cpu_backend() {
  static const Backend row{
      .name = "cpu",
      .description = "our SIMD kernels, instruction set chosen at run time",
      .role = "ours",
      .reads_values_in_keys = true,
      .declines = declines,
      .indexer_scores = cpu::indexer_scores,
      .indexer_scores_backward = cpu::indexer_scores_backward,
      .select_top_k = cpu::select_top_k,
      .indexer_select = cpu::indexer_select,
      .selected_scores = cpu::selected_scores,
      .selected_scores_backward = cpu::selected_scores_backward,
      .sparse_forward = cpu::sparse_forward,
      .sparse_backward = cpu::sparse_backward,
      .attention_mass = cpu::attention_mass,
      .note = note,
  };
  return row;
}

}  // namespace dsa
