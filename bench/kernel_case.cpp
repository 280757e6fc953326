#include "bench/kernel_case.h"

#include <algorithm>

namespace dsa::bench {
namespace {

bool wanted(const std::vector<std::string>& list, const std::string& name) {
  return list.empty() || std::find(list.begin(), list.end(), name) != list.end();
}

c10::ScalarType dtype_of(const std::string& name) {
  if (name == "bf16") return c10::kBFloat16;
  return name == "f64" ? c10::kDouble : c10::kFloat;
}

/// Distributions that are given as scores, not as inputs of an indexer.
bool of_rows_only(const std::string& scores) {
  const auto& every = distributions();
  return std::find(every.begin() + kDistributionsOfAll, every.end(), scores) != every.end();
}

bool has_backward(const Backend& backend, Op op) {
  switch (op) {
    case Op::kIndexerScores:
      return backend.indexer_scores_backward != nullptr;
    case Op::kSelectedScores:
      return backend.selected_scores_backward != nullptr;
    case Op::kSparse:
      return backend.sparse_backward != nullptr;
    case Op::kDense:
      return backend.dense_backward != nullptr;
    default:
      return false;
  }
}

/// The product of the axes `op` has; an axis it lacks contributes one empty value.
std::vector<KernelCase> problems(Op op, const KernelConfig& c,
                                 const std::vector<int64_t>& lengths) {
  const std::vector<int64_t> none = {0};
  const std::vector<std::string> no_scores = {""};
  const bool scores_only = op == Op::kSelectTopK;
  std::vector<KernelCase> cases(1);
  const auto cross = [&](const auto& values, auto set) {
    std::vector<KernelCase> product;
    for (const KernelCase& one : cases) {
      for (const auto& value : values) set(product.emplace_back(one), value);
    }
    cases = std::move(product);
  };
  cross(lengths, [](KernelCase& k, int64_t v) { k.problem.keys = v; });
  cross(c.queries, [](KernelCase& k, int64_t v) { k.problem.queries = v; });
  // All L queries are the row without T, and asked for as 0 alone: else it would appear twice.
  std::erase_if(cases, [](const KernelCase& k) { return k.problem.queries >= k.problem.keys; });
  for (KernelCase& k : cases) {
    if (k.problem.queries == 0) k.problem.queries = k.problem.keys;
  }
  cross(has_selection(op) ? c.top_k : none, [](KernelCase& k, int64_t v) { k.problem.top_k = v; });
  cross(has_attention(op) ? c.heads : none, [&](KernelCase& k, int64_t v) {
    k.problem.heads = v;
    k.problem.kv_heads = c.kv_heads == 0 ? v : c.kv_heads;
  });
  cross(has_attention(op) ? c.widths : none, [&](KernelCase& k, int64_t v) {
    k.problem.qk_width = v;
    k.problem.v_width = c.v_width == 0 ? v : c.v_width;
  });
  cross(has_attention(op) ? c.values : std::vector<std::string>{"own"},
        [](KernelCase& k, const std::string& v) { k.problem.values_in_keys = v == "in-keys"; });
  cross(has_indexer(op) ? c.index_heads : none,
        [](KernelCase& k, int64_t v) { k.problem.index_heads = v; });
  cross(has_indexer(op) ? c.index_widths : none,
        [](KernelCase& k, int64_t v) { k.problem.index_width = v; });
  // Scores have float32 whatever the inputs of the indexer were.
  cross(scores_only ? std::vector<std::string>{"f32"} : c.dtypes,
        [](KernelCase& k, const std::string& v) { k.problem.dtype = dtype_of(v); });
  cross(has_selection(op) ? c.scores : no_scores,
        [](KernelCase& k, const std::string& v) { k.scores = v; });
  // What only top-k alone can be given: an indexer's scores follow from its inputs.
  if (!scores_only)
    std::erase_if(cases, [](const KernelCase& k) { return of_rows_only(k.scores); });
  for (KernelCase& k : cases) k.op = op;
  return cases;
}

/// The case on every implementation that is wanted.
void add_backends(const KernelCase& problem, const KernelConfig& c,
                  std::vector<KernelCase>& cases) {
  for (const Backend& row : backends()) {
    if (!wanted(c.backends, row.name) || !provides(row, problem.op)) continue;
    if (problem.backward() && !has_backward(row, problem.op)) continue;
    cases.emplace_back(problem).backend = row.name;
  }
  for (const Yardstick& row : yardsticks()) {
    if (row.family != name(problem.op) || problem.backward() || !wanted(c.backends, row.name))
      continue;
    KernelCase& kernel = cases.emplace_back(problem);
    kernel.backend = row.name;
    kernel.yardstick = &row;
  }
}

void add_gemms(const KernelConfig& c, std::vector<KernelCase>& cases) {
  if (!wanted(c.families, kGemmFamily) || !wanted(c.passes, "fwd")) return;
  for (const Yardstick& row : yardsticks()) {
    if (row.family != kGemmFamily || !wanted(c.backends, row.name)) continue;
    for (const std::string& dtype : c.dtypes) {
      KernelCase& kernel = cases.emplace_back();
      kernel.backend = row.name;
      kernel.yardstick = &row;
      kernel.gemm = kGemmSize;
      kernel.problem.dtype = dtype_of(dtype);
    }
  }
}

}  // namespace

bool has_attention(Op op) {
  return op == Op::kSparse || op == Op::kDense || op == Op::kAttentionMass;
}
bool has_indexer(Op op) {
  return op == Op::kIndexerScores || op == Op::kIndexerSelect || op == Op::kSelectedScores;
}
bool has_selection(Op op) {
  return op != Op::kIndexerScores && op != Op::kDense;
}

const char* dtype_name(c10::ScalarType dtype) {
  if (dtype == c10::kBFloat16) return "bf16";
  return dtype == c10::kDouble ? "f64" : "f32";
}

Cost KernelCase::work() const {
  if (gemm == 0) return cost(op, pass, problem);
  const double n = static_cast<double>(gemm);
  const double matrix = n * n * static_cast<double>(c10::elementSize(problem.dtype));
  return {2 * n * n * n, 2 * matrix, matrix};
}

std::string note_of(const KernelCase& kernel) {
  if (kernel.yardstick != nullptr) return "";
  const Backend& row = backend(kernel.backend);
  return row.note != nullptr ? row.note(kernel.op, kernel.problem) : "";
}

std::string reason_to_decline(const KernelCase& kernel) {
  if (kernel.yardstick != nullptr) return "";
  return dsa::reason_to_decline(backend(kernel.backend), kernel.op, kernel.problem).value_or("");
}

Axes axes(const KernelCase& kernel) {
  const Problem& p = kernel.problem;
  Axes out = {{"pass", kernel.backward() ? "fwdbwd" : "fwd"}, {"backend", kernel.backend}};
  const auto add = [&](bool has, const char* letter, int64_t value) {
    if (has) out.emplace_back(letter, std::to_string(value));
  };
  if (kernel.gemm > 0) {
    add(true, "N", kernel.gemm);
    out.emplace_back("dtype", dtype_name(p.dtype));
    return out;
  }
  add(true, "L", p.keys);
  add(p.queries < p.keys, "T", p.queries);
  add(has_selection(kernel.op), "K", p.top_k);
  add(has_attention(kernel.op), "H", p.heads);
  add(has_attention(kernel.op), "G", p.kv_heads);
  add(has_attention(kernel.op), "D", p.qk_width);
  // The mass needs no values, but shares the inputs of attention: the same axes keep rows comparable.
  add(has_attention(kernel.op), "V", p.v_width);
  if (p.values_in_keys) out.emplace_back("values", "in-keys");
  add(has_indexer(kernel.op), "I", p.index_heads);
  add(has_indexer(kernel.op), "J", p.index_width);
  out.emplace_back("dtype", dtype_name(p.dtype));
  if (has_selection(kernel.op)) out.emplace_back("scores", kernel.scores);
  return out;
}

std::vector<KernelCase> kernel_cases(const KernelConfig& config,
                                     const std::vector<int64_t>& lengths) {
  std::vector<KernelCase> cases;
  for (int op = 0; op <= static_cast<int>(Op::kDense); ++op) {
    if (!wanted(config.families, name(Op(op)))) continue;
    for (KernelCase problem : problems(Op(op), config, lengths)) {
      for (const Pass pass : {Pass::kForward, Pass::kForwardBackward}) {
        const bool backward = pass == Pass::kForwardBackward;
        if (!wanted(config.passes, backward ? "fwdbwd" : "fwd")) continue;
        // Nobody trains on the last tokens alone.
        if (backward && problem.problem.queries < problem.problem.keys) continue;
        problem.pass = pass;
        problem.problem.backward = backward;
        add_backends(problem, config, cases);
      }
    }
  }
  add_gemms(config, cases);
  return cases;
}

}  // namespace dsa::bench
