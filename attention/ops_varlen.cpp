#include "attention/ops_varlen.h"

#include "attention/door.h"

#include <ATen/ops/cat.h>

#include <vector>

namespace dsa::ops {
namespace {

struct PackedSequence {
  int64_t query, queries, key, keys;

  /// Its rows of a packed tensor, as a batch of one.
  at::Tensor query_rows(const at::Tensor& packed) const {
    return packed.narrow(0, query, queries).unsqueeze(0);
  }
  at::Tensor key_rows(const at::Tensor& packed) const {
    return packed.narrow(0, key, keys).unsqueeze(0);
  }
};

std::vector<int64_t> checked_offsets(const char* op, const char* name, const at::Tensor& offsets,
                                     int64_t tokens) {
  require(offsets.defined() && offsets.dim() == 1 && offsets.size(0) >= 2 &&
              (offsets.scalar_type() == at::kInt || offsets.scalar_type() == at::kLong),
          op, ": the ", name, " offsets must be int32 or int64 [N + 1] for N sequences");
  const at::Tensor on_cpu = offsets.to(at::kCPU, at::kLong).contiguous();
  const int64_t* data = on_cpu.const_data_ptr<int64_t>();
  std::vector<int64_t> all(data, data + on_cpu.numel());
  require(all.front() == 0 && all.back() == tokens, op, ": the ", name, " offsets run from ",
          all.front(), " to ", all.back(), "; they must run from 0 to the ", tokens, " tokens");
  for (size_t i = 1; i < all.size(); ++i)
    require(all[i] >= all[i - 1], op, ": sequence ", i - 1, " has ", all[i] - all[i - 1], " ", name,
            " tokens; offsets must not descend");
  return all;
}

/// Sequences with at least one query.
std::vector<PackedSequence> sequences(const char* op, const at::Tensor& q, const at::Tensor& k,
                                      const SequenceOffsets& offsets) {
  require(q.defined() && q.dim() >= 1 && k.defined() && k.dim() >= 1, op,
          ": q and k must be packed tensors, tokens first");
  const auto query = checked_offsets(op, "query", offsets.queries, q.size(0));
  const auto key = checked_offsets(op, "key", offsets.keys, k.size(0));
  require(query.size() == key.size(), op, ": ", query.size() - 1, " sequences of queries but ",
          key.size() - 1, " of keys; they must agree");
  std::vector<PackedSequence> all;
  for (size_t i = 0; i + 1 < query.size(); ++i) {
    const PackedSequence s{query[i], query[i + 1] - query[i], key[i], key[i + 1] - key[i]};
    require(s.keys >= s.queries, op, ": sequence ", i, " has ", s.queries, " queries but only ",
            s.keys, " keys; the last keys sit at the queries' positions");
    if (s.queries > 0) all.push_back(s);
  }
  require(!all.empty(), op, ": no sequence has a query");
  return all;
}

void require_rows(const char* op, const char* name, const at::Tensor& x, int64_t rows) {
  require(x.defined() && x.dim() >= 1 && x.size(0) == rows, op, ": ", name, " has ",
          x.defined() && x.dim() >= 1 ? x.size(0) : 0, " rows; it needs ", rows);
}

at::Tensor joined(const std::vector<at::Tensor>& parts) {
  return at::cat(parts, 1).squeeze(0);
}

/// @param attend  the result for one sequence
template <class Attend>
AttentionResult each_sequence(const std::vector<PackedSequence>& all, const Attend& attend) {
  std::vector<at::Tensor> out, lse;
  for (const PackedSequence& s : all) {
    AttentionResult one = attend(s);
    out.push_back(std::move(one.out));
    lse.push_back(std::move(one.lse));
  }
  return {joined(out), joined(lse)};
}

}  // namespace

Selection indexer_select(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                         const SequenceOffsets& offsets, int64_t top_k) {
  const char* op = "indexer_select";
  std::vector<at::Tensor> indices, count;
  const auto all = sequences(op, q, k, offsets);
  require_rows(op, "weight", weight, q.size(0));
  for (const PackedSequence& s : all) {
    Selection one = indexer_select(s.query_rows(q), s.key_rows(k), s.query_rows(weight), top_k);
    indices.push_back(std::move(one.indices));
    count.push_back(std::move(one.count));
  }
  return {joined(indices), joined(count)};
}

AttentionResult sparse_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const Selection& selection, const SequenceOffsets& offsets,
                                 double scale) {
  const char* op = "sparse_attention";
  const auto all = sequences(op, q, k, offsets);
  require_rows(op, "v", v, k.size(0));
  require_rows(op, "selection.indices", selection.indices, q.size(0));
  if (selection.count.defined()) require_rows(op, "selection.count", selection.count, q.size(0));
  return each_sequence(all, [&](const PackedSequence& s) {
    const Selection own{s.query_rows(selection.indices), selection.count.defined()
                                                             ? s.query_rows(selection.count)
                                                             : selection.count};
    return sparse_attention(s.query_rows(q), s.key_rows(k), s.key_rows(v), own, scale);
  });
}

AttentionResult dense_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const SequenceOffsets& offsets, double scale) {
  const char* op = "dense_attention";
  const auto all = sequences(op, q, k, offsets);
  require_rows(op, "v", v, k.size(0));
  return each_sequence(all, [&](const PackedSequence& s) {
    return dense_attention(s.query_rows(q), s.key_rows(k), s.key_rows(v), scale);
  });
}

}  // namespace dsa::ops
