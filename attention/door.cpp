#include "attention/door.h"

#include <limits>

namespace dsa {
namespace {

void require_rank(const char* op, const char* name, const at::Tensor& x, int64_t rank,
                  const char* shape) {
  require(x.defined(), op, ": ", name, " is undefined; pass a tensor ", shape);
  require(x.dim() == rank, op, ": ", name, " has shape ", x.sizes(), "; it must be ", shape);
  for (int64_t i = 0; i < rank; ++i)
    require(x.size(i) > 0, op, ": ", name, " has shape ", x.sizes(), "; no dimension may be 0");
}

void require_same(const char* op, const char* name, const at::Tensor& x, const at::Tensor& q) {
  require(x.scalar_type() == q.scalar_type(), op, ": ", name, " is ", x.scalar_type(), ", q is ",
          q.scalar_type(), "; convert one of them");
  require(x.device() == q.device(), op, ": ", name, " is on ", x.device(), ", q is on ", q.device(),
          "; move one of them");
}

void require_floating(const char* op, const char* name, const at::Tensor& x) {
  require(x.is_floating_point(), op, ": ", name, " is ", x.scalar_type(),
          "; it must be a floating-point tensor");
}

void require_size(const char* op, const char* what, int64_t found, int64_t wanted) {
  require(found == wanted, op, ": ", what, " is ", found, "; q asks for ", wanted);
}

void require_key_count(const char* op, int64_t queries, int64_t keys) {
  require(keys >= queries, op, ": ", queries, " queries but only ", keys,
          " keys; the last keys sit at the queries' positions, so there must be at least as many");
  require(keys <= std::numeric_limits<int32_t>::max(), op, ": ", keys,
          " keys; ids are int32, so split the sequence");
}

}  // namespace

Problem indexer_problem(const char* op, const at::Tensor& q, const at::Tensor& k,
                        const at::Tensor& weight) {
  require_rank(op, "q", q, 4, "[B, T, I, J]");
  require_rank(op, "k", k, 3, "[B, S, J]");
  require_rank(op, "weight", weight, 3, "[B, T, I]");
  require_floating(op, "q", q);
  require_same(op, "k", k, q);
  require_same(op, "weight", weight, q);
  require_size(op, "batch of k", k.size(0), q.size(0));
  require_size(op, "width of k", k.size(2), q.size(3));
  require_size(op, "batch of weight", weight.size(0), q.size(0));
  require_size(op, "query count of weight", weight.size(1), q.size(1));
  require_size(op, "head count of weight", weight.size(2), q.size(2));
  require_key_count(op, q.size(1), k.size(1));
  Problem p;
  p.batch = q.size(0);
  p.queries = q.size(1);
  p.keys = k.size(1);
  p.index_heads = q.size(2);
  p.index_width = q.size(3);
  p.device = q.device();
  p.dtype = q.scalar_type();
  return p;
}

Problem attention_problem(const char* op, const at::Tensor& q, const at::Tensor& k,
                          const at::Tensor& v) {
  require_rank(op, "q", q, 4, "[B, T, H, D]");
  require_rank(op, "k", k, 4, "[B, S, G, D]");
  require_floating(op, "q", q);
  require_same(op, "k", k, q);
  require_size(op, "batch of k", k.size(0), q.size(0));
  require_size(op, "width of k", k.size(3), q.size(3));
  require(q.size(2) % k.size(2) == 0, op, ": q has ", q.size(2), " heads, k has ", k.size(2),
          "; the key heads must divide the query heads");
  require_key_count(op, q.size(1), k.size(1));
  Problem p;
  p.batch = q.size(0);
  p.queries = q.size(1);
  p.heads = q.size(2);
  p.qk_width = q.size(3);
  p.keys = k.size(1);
  p.kv_heads = k.size(2);
  p.device = q.device();
  p.dtype = q.scalar_type();
  if (!v.defined()) return p;

  require_rank(op, "v", v, 4, "[B, S, G, V]");
  require_same(op, "v", v, q);
  require_size(op, "batch of v", v.size(0), q.size(0));
  require(v.size(1) == k.size(1), op, ": k has ", k.size(1), " keys, v has ", v.size(1),
          "; every key needs one value");
  require(v.size(2) == k.size(2), op, ": k has ", k.size(2), " heads, v has ", v.size(2),
          "; they must agree");
  p.v_width = v.size(3);
  p.values_in_keys = values_in_keys(k, v);
  return p;
}

bool values_in_keys(const at::Tensor& k, const at::Tensor& v) {
  if (!k.is_contiguous() || v.size(3) > k.size(3)) return false;
  if (v.const_data_ptr() != k.const_data_ptr() || v.stride(3) != 1) return false;
  // A dimension of size 1 may have any stride.
  for (int64_t i = 0; i < 3; ++i)
    if (v.size(i) != k.size(i) || (k.size(i) > 1 && v.stride(i) != k.stride(i))) return false;
  return true;
}

Problem scores_problem(const char* op, const at::Tensor& scores, int64_t top_k) {
  require_rank(op, "scores", scores, 3, "[B, T, S]");
  require(scores.scalar_type() == at::kFloat || scores.scalar_type() == at::kDouble, op,
          ": scores are ", scores.scalar_type(), "; they must be float32 or float64");
  require(top_k >= 1, op, ": top_k is ", top_k, "; it must be at least 1");
  require_key_count(op, scores.size(1), scores.size(2));
  Problem p;
  p.batch = scores.size(0);
  p.queries = scores.size(1);
  p.keys = scores.size(2);
  p.top_k = top_k;
  p.device = scores.device();
  p.dtype = scores.scalar_type();
  return p;
}

void require_selection(const char* op, const ops::Selection& selection, const Problem& problem) {
  const at::Tensor& ids = selection.indices;
  require_rank(op, "selection.indices", ids, 3, "[B, T, K]");
  require(ids.size(0) == problem.batch && ids.size(1) == problem.queries, op,
          ": selection.indices has shape ", ids.sizes(), " for ", problem.batch, " x ",
          problem.queries, " queries; it needs one row per query");
  require(ids.device() == problem.device, op, ": selection is on ", ids.device(), ", q is on ",
          problem.device, "; move one of them");
}

c10::ScalarType accumulation_dtype(c10::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

void throw_nan_score(int64_t b, int64_t t, int64_t s) {
  std::ostringstream sentence;
  sentence << "select_top_k: the score of (batch " << b << ", query " << t << ", key " << s
           << ") is NaN; look for the NaN in the indexer's inputs";
  throw Error(sentence.str());
}

}  // namespace dsa
