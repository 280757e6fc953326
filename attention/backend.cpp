// The table of implementations, and how a call finds its row.
#include "attention/backend.h"

#include "attention/backend_cpu.h"
#include "attention/backend_rows.h"

#include <algorithm>

namespace dsa {
namespace {

thread_local const Backend* pinned = nullptr;

bool provides_backward(const Backend& row, Op op) {
  switch (op) {
    case Op::kIndexerScores:
      return row.indexer_scores_backward != nullptr;
    case Op::kSelectedScores:
      return row.selected_scores_backward != nullptr;
    case Op::kSparse:
      return row.sparse_backward != nullptr;
    case Op::kDense:
      return row.dense_backward != nullptr;
    case Op::kSelectTopK:
    case Op::kIndexerSelect:
    case Op::kAttentionMass:
      return true;  // nothing to differentiate
  }
  return false;
}

}  // namespace

const std::vector<Backend>& backends() {
  static const std::vector<Backend> table = {
      cpu_backend(),        torch_sdpa_backend(),         torch_math_backend(),
      torch_mask_backend(), torch_gather_heads_backend(), torch_gather_backend(),
      cpu_int8_backend(),   reference_backend(),
  };
  return table;
}

const char* name(Op op) {
  switch (op) {
    case Op::kIndexerScores:
      return "indexer_scores";
    case Op::kSelectTopK:
      return "select_top_k";
    case Op::kIndexerSelect:
      return "indexer_select";
    case Op::kSelectedScores:
      return "selected_scores";
    case Op::kSparse:
      return "sparse_attention";
    case Op::kAttentionMass:
      return "attention_mass";
    case Op::kDense:
      return "dense_attention";
  }
  return "unknown";
}

const Backend& backend(const std::string& name) {
  const auto& table = backends();
  const auto found =
      std::find_if(table.begin(), table.end(), [&](const Backend& b) { return b.name == name; });
  if (found != table.end()) return *found;
  std::string known;
  for (const Backend& b : table) known += (known.empty() ? "" : ", ") + b.name;
  throw Error("backend '" + name + "' is not known; choose one of: " + known);
}

bool provides(const Backend& row, Op op) {
  switch (op) {
    case Op::kIndexerScores:
      return row.indexer_scores != nullptr;
    case Op::kSelectTopK:
      return row.select_top_k != nullptr;
    case Op::kIndexerSelect:
      return row.indexer_select != nullptr;
    case Op::kSelectedScores:
      return row.selected_scores != nullptr;
    case Op::kSparse:
      return row.sparse_forward != nullptr;
    case Op::kAttentionMass:
      return row.attention_mass != nullptr;
    case Op::kDense:
      return row.dense_forward != nullptr;
  }
  return false;
}

std::optional<std::string> reason_to_decline(const Backend& row, Op op, const Problem& problem) {
  if (!provides(row, op)) return std::string("it does not provide ") + name(op);
  if (problem.backward && !provides_backward(row, op))
    return std::string("it has no backward of ") + name(op);
  return row.declines ? row.declines(op, problem) : std::nullopt;
}

const Backend& choose_backend(Op op, const Problem& problem) {
  if (pinned) {
    const auto reason = reason_to_decline(*pinned, op, problem);
    require(!reason, "backend '", pinned->name, "' cannot run ", name(op), ": ",
            reason.value_or(""), "; choose another backend or change the problem");
    return *pinned;
  }
  std::string reasons;
  for (const Backend& row : backends()) {
    if (!row.is_exact) continue;
    const auto reason = reason_to_decline(row, op, problem);
    if (!reason) return row;
    reasons += (reasons.empty() ? "" : "; ") + row.name + ": " + *reason;
  }
  throw Error(std::string("no backend can run ") + name(op) + " on " + problem.device.str() + " (" +
              reasons + ")");
}

UseBackend::UseBackend(const std::string& name) : previous_(pinned) {
  pinned = &backend(name);
}

UseBackend::~UseBackend() {
  pinned = previous_;
}

}  // namespace dsa
