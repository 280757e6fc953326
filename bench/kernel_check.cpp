#include "bench/kernel_check.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <sstream>

namespace dsa::bench {
namespace {

using Tensors = std::vector<at::Tensor>;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
/// Of a selection by rounded scores: less is a bug, not rounding (int8 keeps 0.98 of Gaussian inputs').
constexpr double kLeastRecall = 0.8;
/// Results of a backward pass of attention: out, dq, dk, then dv, which does not cancel.
constexpr size_t kFirstOfValues = 3;

double scale_of(const KernelCase& kernel) {
  return 1 / std::sqrt(static_cast<double>(kernel.problem.qk_width));
}

Tensors forward(const KernelCase& kernel, const InputSet& s) {
  switch (kernel.op) {
    case Op::kIndexerScores:
      return {ops::indexer_scores(s.q, s.k, s.weight)};
    case Op::kSelectTopK: {
      const auto chosen = ops::select_top_k(s.scores, kernel.problem.top_k);
      return {chosen.indices, chosen.count};
    }
    case Op::kIndexerSelect: {
      const auto chosen = ops::indexer_select(s.q, s.k, s.weight, kernel.problem.top_k);
      return {chosen.indices, chosen.count};
    }
    case Op::kSelectedScores:
      return {ops::selected_scores(s.q, s.k, s.weight, s.selection)};
    case Op::kSparse: {
      const auto result = ops::sparse_attention(s.q, s.k, s.v, s.selection, scale_of(kernel));
      return {result.out, result.lse};
    }
    case Op::kAttentionMass:
      return {ops::selected_attention_mass(s.q, s.k, s.selection, s.lse, scale_of(kernel))};
    case Op::kDense: {
      const auto result = ops::dense_attention(s.q, s.k, s.v, scale_of(kernel));
      return {result.out, result.lse};
    }
  }
  return {};
}

Tensors measured(const KernelCase& kernel, const InputSet& s) {
  namespace torch_calls = yardsticks_of_torch;
  const int64_t top_k = kernel.problem.top_k;
  if (kernel.gemm > 0) return {torch_calls::gemm(s.q, s.k)};
  if (kernel.op == Op::kSelectTopK) return torch_calls::top_k(s.scores, top_k);
  if (kernel.op == Op::kIndexerSelect)
    return torch_calls::indexer_top_k(s.q, s.k, s.weight, top_k,
                                      kernel.backend == "torch-einsum-causal");
  throw std::logic_error("yardstick " + kernel.backend + " has no call");
}

/// A yardstick's blocks of scores and ids as one selection [1, T, K]: ascending, -1 at the end.
at::Tensor as_selection(const Tensors& blocks, int64_t top_k) {
  Tensors rows;
  for (size_t i = 0; i + 1 < blocks.size(); i += 2) {
    const at::Tensor ids = at::constant_pad_nd(blocks[i + 1], {0, top_k - blocks[i + 1].size(1)});
    const at::Tensor scores =
        at::constant_pad_nd(blocks[i], {0, top_k - blocks[i].size(1)}, -kInfinity);
    constexpr int64_t kLast = std::numeric_limits<int32_t>::max();
    rows.push_back(ids.masked_fill(scores.eq(-kInfinity), kLast));
  }
  const at::Tensor sorted = std::get<0>(at::cat(rows).sort(-1));
  return sorted.masked_fill(sorted.eq(std::numeric_limits<int32_t>::max()), -1).unsqueeze(0);
}

/// The problem of queries [first, first + count) alone: exact, because the last T of S keys are the
/// queries' own positions. In float64.
InputSet slice_of(const KernelCase& kernel, const InputSet& set, int64_t first, int64_t count) {
  const auto queries = [&](const at::Tensor& t) {
    if (!t.defined()) return t;
    const at::Tensor part = t.narrow(1, first, count);
    return part.is_floating_point() ? part.to(at::kDouble) : part.contiguous();
  };
  const int64_t seen = keys_before(kernel) + first + count;
  const auto keys = [&](const at::Tensor& t) {
    return t.defined() ? t.narrow(1, 0, seen).to(at::kDouble) : t;
  };
  InputSet part;
  part.q = queries(set.q), part.weight = queries(set.weight), part.lse = queries(set.lse);
  part.k = keys(set.k), part.v = keys(set.v);
  if (set.scores.defined()) part.scores = queries(set.scores).narrow(2, 0, seen).contiguous();
  part.selection = {queries(set.selection.indices), queries(set.selection.count)};
  part.dout = queries(set.dout);
  // Score gradients have one column a key.
  if (kernel.op == Op::kIndexerScores) part.dout = part.dout.narrow(2, 0, seen).contiguous();
  return part;
}

std::vector<std::pair<int64_t, int64_t>> slices(int64_t queries, int64_t checked) {
  if (queries <= 3 * checked) return {{0, queries}};
  return {{0, checked}, {queries / 2, checked}, {queries - checked, checked}};
}

/// Row norms over the last dimension; a vector of single numbers is rows of one.
at::Tensor norms(const at::Tensor& t) {
  return (t * t).sum(-1).sqrt();
}

at::Tensor visible_part(const at::Tensor& scores, int64_t first, int64_t count) {
  const int64_t seen = scores.size(2) - scores.size(1) + first + count;
  return scores.narrow(1, first, count).narrow(2, 0, seen).to(at::kDouble);
}

/// How far rounding to `unit` can move a score, per (query, key): docs/attention.md, contracts.
at::Tensor score_slack(const InputSet& part, int64_t width, double unit) {
  const at::Tensor q_norms = norms(part.q);                                 // [1, T, I]
  const at::Tensor k_norms = norms(part.k);                                 // [1, S]
  const at::Tensor weighted = (part.weight.abs() * q_norms).sum(-1, true);  // [1, T, 1]
  return weighted * k_norms.unsqueeze(1) * (4 * unit * std::sqrt(double(width)));
}

Verdict check_selection(const KernelCase& kernel, const InputSet& set, const Tensors& out,
                        int64_t checked) {
  Verdict verdict;
  const UseBackend reference("reference");
  const bool is_yardstick = kernel.yardstick != nullptr;
  const at::Tensor all = is_yardstick ? as_selection(out, kernel.problem.top_k) : out[0];
  // torch rounds every product and sum of a bfloat16 score to bfloat16; backends must not.
  const bool rounds = is_yardstick && kernel.problem.dtype == c10::kBFloat16;
  const double unit = std::ldexp(1.0, rounds ? -8 : -24);
  const bool is_exact = is_yardstick || backend(kernel.backend).is_exact;
  double missed = 0, members = 0;
  for (const auto& [first, count] : slices(kernel.problem.queries, checked)) {
    const InputSet part = slice_of(kernel, set, first, count);
    const at::Tensor ids = all.narrow(1, first, count);
    if (kernel.op == Op::kSelectTopK && is_yardstick) {
      verdict.wrong_members += wrong_members(ids, part.scores, at::zeros({1, 1, 1}, at::kDouble));
    } else if (kernel.op == Op::kSelectTopK) {
      const at::Tensor expected = ops::select_top_k(part.scores, kernel.problem.top_k).indices;
      verdict.wrong_members += ids.ne(expected).sum().item<double>();
    } else {
      const at::Tensor scores = ops::indexer_scores(part.q, part.k, part.weight);
      const at::Tensor slack =
          is_exact ? score_slack(part, kernel.problem.index_width, unit)
                   : at::full({1, 1, 1}, kInfinity, at::kDouble);  // ids in order and visible
      verdict.wrong_members += wrong_members(ids, scores, slack);
      if (is_exact) continue;
      // Every key missed stands opposite one that should not be there.
      missed += wrong_members(ids, scores, at::zeros({1, 1, 1}, at::kDouble)) / 2;
      members += ids.ge(0).sum().item<double>();
    }
  }
  if (!is_exact) verdict.recall = 1 - missed / std::max(members, 1.0);
  return verdict;
}

Verdict check_gemm(const InputSet& set, const at::Tensor& out, int64_t checked) {
  const int64_t rows = std::min(checked, set.q.size(0));
  const auto part = [&](const at::Tensor& t) { return t.narrow(0, 0, rows).to(at::kDouble); };
  return {.error = worst_row_error(part(out), at::mm(part(set.q), set.k.to(at::kDouble)))};
}

Verdict check_forward(const KernelCase& kernel, const InputSet& set, const Tensors& out,
                      int64_t checked) {
  Verdict verdict;
  const UseBackend reference("reference");
  for (const auto& [first, count] : slices(kernel.problem.queries, checked)) {
    const Tensors expected = forward(kernel, slice_of(kernel, set, first, count));
    for (size_t i = 0; i < expected.size(); ++i) {
      if (!out[i].defined()) continue;
      const at::Tensor got = kernel.op == Op::kIndexerScores
                                 ? visible_part(out[i], first, count)
                                 : out[i].narrow(1, first, count).to(at::kDouble);
      // A log-sum-exp is one number a row; as a row of its own it could be near zero by chance.
      const bool single = got.dim() == 3 && has_attention(kernel.op) && i == 1;
      const double error = single
                               ? worst_row_error(got.reshape({1, -1}), expected[i].reshape({1, -1}))
                               : worst_row_error(got, expected[i]);
      verdict.error = std::isnan(error) ? error : std::max(verdict.error, error);
      if (std::isnan(error)) return verdict;
    }
  }
  return verdict;
}

/// The result, then the gradients of every differentiable input.
Tensors with_gradients(const KernelCase& kernel, InputSet set, const at::Tensor& dout) {
  const at::AutoGradMode enabled(true);
  Tensors leaves;
  for (at::Tensor* t : {&set.q, &set.k, &set.v, &set.weight}) {
    if (!t->defined()) continue;
    *t = t->detach().requires_grad_();
    leaves.push_back(*t);
  }
  Tensors results = {forward(kernel, set).front()};
  for (at::Tensor& gradient : torch::autograd::grad(results, leaves, {dout})) {
    results.push_back(std::move(gradient));
  }
  return results;
}

/// Size of dq and dk if their summands, scale * p * |dout| * |v| * |k| with p even, did not cancel but added up
/// at random: where few keys make them cancel, what is left is the rounding of these.
double summand_size(const KernelCase& kernel, const InputSet& set) {
  if (!has_attention(kernel.op)) return 0;
  int64_t keys = set.k.size(1);
  if (has_selection(kernel.op)) keys = std::min(keys, kernel.problem.top_k);
  return scale_of(kernel) * usual_row(set.dout) * usual_row(set.v) *
         std::max(usual_row(set.k), usual_row(set.q)) / std::sqrt(static_cast<double>(keys));
}

/// Gradients of the last queries alone: their keys' gradients come from no other query then.
Verdict check_backward(const KernelCase& kernel, const InputSet& set, int64_t checked) {
  const auto [first, count] = slices(kernel.problem.queries, checked).back();
  at::Tensor dout = at::zeros_like(set.dout);
  dout.narrow(1, first, count).copy_(set.dout.narrow(1, first, count));
  const Tensors got = call(kernel, set, dout);

  const InputSet part = slice_of(kernel, set, first, count);
  const UseBackend reference("reference");
  const Tensors expected = with_gradients(kernel, part, part.dout);
  // Softmax gradients cancel: a query with one key has dq = 0, and rounding decides what is left.
  const double summands = 2 * summand_size(kernel, part);
  double largest = 0;
  for (size_t i = 1; i < expected.size(); ++i) largest = std::max(largest, usual_row(expected[i]));
  Verdict verdict;
  for (size_t i = 1; i < expected.size(); ++i) {
    const bool of_keys = expected[i].size(1) == first + count && count != first + count;
    const at::Tensor rows = of_keys ? got[i] : got[i].narrow(1, first, count);
    const double least = 0.01 * (i < kFirstOfValues ? std::max(largest, summands) : largest);
    const double error = worst_row_error(rows.to(at::kDouble), expected[i], 1, least);
    if (std::isnan(error)) return {.error = error};
    verdict.error = std::max(verdict.error, error);
  }
  return verdict;
}

/// Leaves NaN in the memory the next allocations are likely to get.
void poison(const KernelCase& kernel) {
  const Problem& p = kernel.problem;
  const int64_t width = std::max({p.heads * p.v_width, p.top_k, int64_t{1}});
  at::full({p.queries, width}, std::numeric_limits<float>::quiet_NaN(), at::kFloat);
}

}  // namespace

Tensors call(const KernelCase& kernel, const InputSet& set, const at::Tensor& dout) {
  if (kernel.yardstick != nullptr) {
    const at::NoGradGuard no_grad;
    return measured(kernel, set);
  }
  const UseBackend pinned(kernel.backend);
  if (!kernel.backward()) {
    const at::NoGradGuard no_grad;
    return forward(kernel, set);
  }
  return with_gradients(kernel, set, dout.defined() ? dout : set.dout);
}

namespace {

/// What our sparse attention keeps to at any shape, below what rounding would explain; docs/kernels.md.
double promised_error(const KernelCase& kernel) {
  const Problem& p = kernel.problem;
  if (kernel.op != Op::kSparse || kernel.backend != "cpu")
    return std::numeric_limits<double>::infinity();
  if (p.dtype == c10::kFloat) return kernel.backward() ? 5e-6 : 2e-6;
  if (kernel.backward()) return std::numeric_limits<double>::infinity();
  // Heads that share rows may have their probabilities rounded to bfloat16 too.
  return p.heads > p.kv_heads ? 1.2e-2 : 6e-3;
}

/// Largest error that rounding explains: grows with the square root of the summed terms.
double rounding_error(const KernelCase& kernel) {
  const Problem& p = kernel.problem;
  const bool sparse = has_selection(kernel.op);
  double terms = static_cast<double>(has_attention(kernel.op) && !sparse ? p.keys : p.top_k);
  if (has_indexer(kernel.op)) terms = static_cast<double>(p.index_width * p.index_heads);
  if (kernel.gemm > 0) terms = static_cast<double>(kernel.gemm);
  // A key's gradient sums over the queries that chose it, as many as a query has keys on average.
  if (kernel.backward()) terms *= 4;
  terms = std::max(terms, 64.0);
  if (p.dtype == c10::kDouble) return 16 * std::ldexp(1.0, -53) * std::sqrt(terms);
  // bfloat16: inputs are exact, probabilities and outputs are rounded to 8 bits.
  if (p.dtype == c10::kBFloat16) return kernel.backward() ? 0.06 : 0.02;
  return 16 * std::ldexp(1.0, -24) * std::sqrt(terms);
}

}  // namespace

double tolerance(const KernelCase& kernel) {
  return std::min(rounding_error(kernel), promised_error(kernel));
}

std::string shown(const Verdict& verdict) {
  if (!verdict.recall) return "";
  char text[48];
  std::snprintf(text, sizeof text, "  recall %.4f against float64", *verdict.recall);
  return text;
}

void worsen(Verdict& all, const Verdict& one) {
  all.error = std::max(all.error, one.error);
  all.wrong_members += one.wrong_members;
  if (one.recall) all.recall = std::min(all.recall.value_or(1), *one.recall);
}

double usual_row(const at::Tensor& ref) {
  // Rows of keys that no checked query chose are zero: they say nothing about the usual size.
  const at::Tensor sizes = norms(ref);
  return (sizes.sum() / sizes.gt(0).sum().clamp_min(1)).item<double>();
}

double worst_row_error(const at::Tensor& out, const at::Tensor& ref, double floor, double least) {
  // Infinities are part of the answer (scores of future keys): they must sit at the same places.
  const at::Tensor hidden = ref.isinf();
  if (!at::equal(out.isinf(), hidden)) return std::numeric_limits<double>::infinity();
  const at::Tensor expected = ref.masked_fill(hidden, 0).to(at::kDouble);
  const at::Tensor got = out.masked_fill(hidden, 0).to(at::kDouble);
  const double size = std::max({usual_row(expected) * floor, least, 1e-30});
  return (norms(got - expected) / norms(expected).clamp_min(size)).max().item<double>();
}

double wrong_members(const at::Tensor& ids, const at::Tensor& scores, const at::Tensor& slack) {
  const int64_t queries = scores.size(1), keys = scores.size(2), width = ids.size(2);
  const at::Tensor chosen = ids.to(at::kInt).contiguous();
  const at::Tensor exact = scores.to(at::kDouble).contiguous();
  const at::Tensor allowed = slack.expand_as(scores).contiguous();
  int64_t wrong = 0;
  std::vector<double> sorted;
  std::vector<char> member(static_cast<size_t>(keys));
  for (int64_t t = 0; t < queries; ++t) {
    const double* score = exact.const_data_ptr<double>() + t * keys;
    const double* near = allowed.const_data_ptr<double>() + t * keys;
    const int32_t* row = chosen.const_data_ptr<int32_t>() + t * width;
    const int64_t visible = t + 1 + keys - queries, count = std::min(visible, width);
    sorted.assign(score, score + visible);
    std::nth_element(sorted.begin(), sorted.begin() + (count - 1), sorted.end(), std::greater<>());
    const double threshold = sorted[static_cast<size_t>(count - 1)];
    std::fill(member.begin(), member.end(), 0);
    for (int64_t i = 0; i < width; ++i) {
      const int32_t id = row[i];
      const bool in_place =
          i < count ? id >= 0 && id < visible && (i == 0 || id > row[i - 1]) : id == -1;
      if (!in_place || (i < count && score[id] < threshold - near[id])) ++wrong;
      if (id >= 0 && id < keys) member[static_cast<size_t>(id)] = 1;
    }
    for (int64_t s = 0; s < visible; ++s) {
      if (member[static_cast<size_t>(s)] == 0 && score[s] > threshold + near[s]) ++wrong;
    }
  }
  return static_cast<double>(wrong);
}

/// With the failure in words.
static Verdict judged(const KernelCase& kernel, Verdict verdict) {
  std::ostringstream why;
  if (!(verdict.error <= tolerance(kernel))) {
    why << "error " << verdict.error << " against the float64 reference is above "
        << tolerance(kernel);
  } else if (verdict.wrong_members > 0) {
    why << verdict.wrong_members << " selected or omitted keys are wrong";
  } else if (verdict.recall.value_or(1) < kLeastRecall) {
    why << "its selection holds " << 100 * *verdict.recall
        << " % of the float64 reference's, less than " << 100 * kLeastRecall << " %";
  }
  verdict.failure = why.str();
  return verdict;
}

Verdict verdict_on(const KernelCase& kernel, const InputSet& set, const Tensors& out,
                   int64_t checked_queries) {
  if (kernel.gemm > 0) return judged(kernel, check_gemm(set, out.front(), checked_queries));
  return judged(kernel, kernel.selects() ? check_selection(kernel, set, out, checked_queries)
                                         : check_forward(kernel, set, out, checked_queries));
}

Verdict check(const KernelCase& kernel, const InputSet& set, int64_t checked_queries) {
  poison(kernel);
  if (kernel.backward()) return judged(kernel, check_backward(kernel, set, checked_queries));
  return verdict_on(kernel, set, call(kernel, set), checked_queries);
}

}  // namespace dsa::bench
