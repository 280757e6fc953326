// Private: the kernels of the `cpu` backend as tensor functions, and its row for backend.cpp.
// Inputs are checked, contiguous and on the CPU (attention/backend.h says what is promised).
#pragma once
#include "attention/backend.h"

namespace dsa::cpu {

ops::AttentionResult sparse_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                    const ops::Selection& selection, double scale);
AttentionGrads sparse_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const ops::Selection& selection,
                               const ops::AttentionResult& forward, double scale);
at::Tensor attention_mass(const at::Tensor& q, const at::Tensor& k, const ops::Selection& selection,
                          const at::Tensor& lse, double scale);

/// What this thread's last sparse_forward did where few heads share a kv head: blocks of up to 256
/// queries, those of them that looked at the keys of 16 (float32: 32) queries together, and what was
/// measured to decide: keys that so many neighbouring queries select together, over those that one
/// selects. No blocks if the kernels did not run.
struct NarrowCount {
  int64_t blocks = 0, by_union = 0;
  double overlap = 0;
  int64_t neighbours = 0;  ///< 16 or 32
};
NarrowCount last_narrow();
/// How this thread's last sparse_forward ran, if it was of exactly this shape and there was a choice:
/// "together 30 of 32 blocks, U16/K 3.9", "heads together", "heads one by one" or "".
std::string narrow_note(const Problem& problem);
/// For tests: every block goes one way, or as measured.
enum class NarrowChoice : int32_t;
void choose_narrow(NarrowChoice choice);

}  // namespace dsa::cpu

namespace dsa {

const Backend& cpu_backend();

namespace cpu {  // backend_cpu_select.cpp

at::Tensor indexer_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight);
IndexerGrads indexer_scores_backward(const at::Tensor& dscores, const at::Tensor& q,
                                     const at::Tensor& k, const at::Tensor& weight);
ops::Selection select_top_k(const at::Tensor& scores, int64_t top_k);
ops::Selection indexer_select(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                              int64_t top_k);
/// Queries of this thread's last indexer_select: screened in bfloat16, and those of them that had to
/// be scored in float32 against all keys.
struct ScreenCount {
  int64_t tried = 0, undecided = 0;
};
ScreenCount last_screen();
at::Tensor selected_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                           const ops::Selection& selection);
IndexerGrads selected_scores_backward(const at::Tensor& dscores, const at::Tensor& q,
                                      const at::Tensor& k, const at::Tensor& weight,
                                      const ops::Selection& selection);

}  // namespace cpu

}  // namespace dsa
