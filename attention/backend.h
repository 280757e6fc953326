// One row per implementation. Adding a kernel = filling a Backend and adding one line to
// backend.cpp; tests, kernel benchmarks and `dsa-bench list` loop over `backends()` and pick it up.
#pragma once
#include "attention/ops.h"

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <optional>
#include <string>
#include <vector>

namespace dsa {

/// Everything a backend needs to know to accept or decline a call.
struct Problem {
  int64_t batch = 1, queries = 0, keys = 0, heads = 0, kv_heads = 0;
  int64_t qk_width = 0, v_width = 0, top_k = 0, index_heads = 0, index_width = 0;
  c10::Device device = c10::kCPU;
  c10::ScalarType dtype = c10::kFloat;
  bool backward = false;        ///< gradients will be asked for as well
  bool values_in_keys = false;  ///< v is a view of the first columns of k, as in MLA's MQA mode
};

struct AttentionGrads {
  at::Tensor dq, dk, dv;  ///< shapes of q, k, v
};
struct IndexerGrads {
  at::Tensor dq, dk, dweight;
};

/// What can be asked of a backend; also the kernel-benchmark families. `name(op)` is the family.
enum class Op {
  kIndexerScores,
  kSelectTopK,
  kIndexerSelect,
  kSelectedScores,
  kSparse,
  kAttentionMass,
  kDense,
};
const char* name(Op op);  ///< "indexer_scores", "select_top_k", "indexer_select", ...

/// Raw kernels: inputs are checked (selections normalised), contiguous (but see `reads_values_in_keys`)
/// and on the right device;
/// nothing is differentiated. A null pointer means "not provided". Scores alone are not checked for
/// NaN at the door (a pass over B*T*S): select_top_k and indexer_select report it themselves, with
/// `throw_nan_score` of attention/door.h.
struct Backend {
  std::string name;         ///< "reference", "cpu", "torch-sdpa": what --backend takes
  std::string description;  ///< one line, printed by `dsa-bench list` and stored in the record
  std::string role;         ///< "ours" | "peer" | "oracle"
  bool is_exact = true;     ///< false: selects by rounded scores; only used when it is pinned
  /// sparse_forward takes a v that is a view of k's first columns as it is; else it gets a copy.
  bool reads_values_in_keys = false;

  /// Why this backend cannot run the problem ("needs float32; q is float64"), or nothing.
  /// Never asked about operations whose pointer is null.
  std::optional<std::string> (*declines)(Op, const Problem&) = nullptr;

  at::Tensor (*indexer_scores)(const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& weight) = nullptr;
  IndexerGrads (*indexer_scores_backward)(const at::Tensor& dscores, const at::Tensor& q,
                                          const at::Tensor& k, const at::Tensor& weight) = nullptr;
  ops::Selection (*select_top_k)(const at::Tensor& scores, int64_t top_k) = nullptr;
  ops::Selection (*indexer_select)(const at::Tensor& q, const at::Tensor& k,
                                   const at::Tensor& weight, int64_t top_k) = nullptr;
  at::Tensor (*selected_scores)(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                                const ops::Selection&) = nullptr;
  IndexerGrads (*selected_scores_backward)(const at::Tensor& dscores, const at::Tensor& q,
                                           const at::Tensor& k, const at::Tensor& weight,
                                           const ops::Selection&) = nullptr;
  ops::AttentionResult (*sparse_forward)(const at::Tensor& q, const at::Tensor& k,
                                         const at::Tensor& v, const ops::Selection&,
                                         double scale) = nullptr;
  AttentionGrads (*sparse_backward)(const at::Tensor& dout, const at::Tensor& q,
                                    const at::Tensor& k, const at::Tensor& v, const ops::Selection&,
                                    const ops::AttentionResult& forward, double scale) = nullptr;
  at::Tensor (*attention_mass)(const at::Tensor& q, const at::Tensor& k, const ops::Selection&,
                               const at::Tensor& lse, double scale) = nullptr;
  ops::AttentionResult (*dense_forward)(const at::Tensor& q, const at::Tensor& k,
                                        const at::Tensor& v, double scale) = nullptr;
  AttentionGrads (*dense_backward)(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                   const at::Tensor& v, const ops::AttentionResult& forward,
                                   double scale) = nullptr;

  /// What this row settled on for a problem it has run ("forward chunk 128"), for labels; or "".
  std::string (*note)(Op, const Problem&) = nullptr;
};

/// Every backend compiled in, fastest first. "reference" is last and accepts everything on the CPU.
const std::vector<Backend>& backends();

/// @throws Error naming the known backends if there is none called `name`.
const Backend& backend(const std::string& name);

/// Does this row provide `op` at all (its forward pointer is not null)?
bool provides(const Backend& backend, Op op);

/// Why `backend` cannot run `op` on `problem`, or nothing: null pointers and `declines` together.
std::optional<std::string> reason_to_decline(const Backend& backend, Op op, const Problem& problem);

/// The pinned backend if there is one, else the first that does not decline. Forward and backward
/// of one call use the same one. @throws Error with the reason when the pinned one declines.
const Backend& choose_backend(Op op, const Problem& problem);

/// Pins one backend for the current scope and thread (benchmarks, tests). A pinned backend never
/// falls back: what it declines throws the reason.
class UseBackend {
 public:
  explicit UseBackend(const std::string& name);
  ~UseBackend();
  UseBackend(const UseBackend&) = delete;
  UseBackend& operator=(const UseBackend&) = delete;

 private:
  const Backend* previous_;
};

/// Instruction set of the `cpu` backend: "auto", "portable", "avx2", "avx512", "avx512bf16", "amx".
/// @throws Error naming the ISAs this machine has when it lacks the one asked for.
void pin_isa(const std::string& isa);
std::string active_isa();                   ///< what the `cpu` backend runs now
std::vector<std::string> available_isas();  ///< on this machine, best last

}  // namespace dsa
