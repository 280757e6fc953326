// Indexer and selection of the `cpu` backend: splits tensors into blocks of queries or keys, gives
// every thread its scratch, and calls the kernels of the ISA in use.
#include "attention/backend_cpu.h"
#include "attention/backend_cpu_few.h"

#include <vector>

namespace dsa::cpu {
namespace {

/// Calls run(batch, kernels) with the dense kernels for the type of q: those for bfloat16 where this
/// ISA has them, else those for float32 on converted inputs.
template <class Run>
void with_dense_kernels(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                        const Run& run) {
  const IsaRow& isa = isa_in_use();
  const at::Tensor weight_float = as_float(weight);
  if (q.scalar_type() == at::kBFloat16 && isa.indexer_bf16 != nullptr)
    return run(IndexerBatch<Bf16>(q, k, weight_float), *isa.indexer_bf16);
  const at::Tensor q_float = as_float(q), k_float = as_float(k);
  run(IndexerBatch<float>(q_float, k_float, weight_float), isa.select->indexer);
}

/// Calls work(b, tiles, queries) for every block of queries.
template <class Work>
void for_each_tiled_block(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                          const Work& work) {
  with_dense_kernels(q, k, weight, [&](auto batch, const auto& kernels) {
    pack(batch, kernels);
    for_each_tiled_block(batch, kernels, work);
  });
}

SelectedKeys selected_keys(const ops::Selection& selection, int64_t b) {
  const int64_t queries = selection.indices.size(1), top_k = selection.indices.size(2);
  return {selection.indices.const_data_ptr<int32_t>() + b * queries * top_k,
          selection.count.const_data_ptr<int32_t>() + b * queries, top_k};
}

/// The transpose of one sequence's selection, in this thread's scratch. A counting sort in query
/// order: entries of a key ascend in query.
KeyLists key_lists(const SelectedKeys& selected, const float* dscores, int64_t queries,
                   int64_t keys) {
  auto* begin = scratch<int64_t>(Slot::kSelectTask, keys + 2);
  std::fill_n(begin, keys + 2, 0);
  // Counted two places up and summed, so that filling the lists leaves begin[s + 1] at key s's end.
  for (int64_t t = 0; t < queries; ++t)
    for (int64_t slot = 0; slot < selected.count[t]; ++slot)
      ++begin[selected.ids[t * selected.top_k + slot] + 2];
  for (int64_t s = 2; s < keys + 2; ++s) begin[s] += begin[s - 1];
  const int64_t pairs = begin[keys + 1];
  auto* query = scratch<int32_t>(Slot::kSelectBuffer, 2 * pairs);
  auto* gradient = reinterpret_cast<float*>(query + pairs);
  for (int64_t t = 0; t < queries; ++t) {
    for (int64_t slot = 0; slot < selected.count[t]; ++slot) {
      const int64_t pair = t * selected.top_k + slot;
      const int64_t place = begin[selected.ids[pair] + 1]++;
      query[place] = static_cast<int32_t>(t);
      gradient[place] = dscores[pair];
    }
  }
  return {begin, query, gradient};
}

IndexerGrads rounded(const IndexerGrads& grads, at::ScalarType type) {
  return {grads.dq.to(type), grads.dk.to(type), grads.dweight.to(type)};
}

}  // namespace

at::Tensor indexer_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight) {
  const SelectKernels& kernels = *isa_in_use().select;
  const int64_t queries = q.size(1), keys = k.size(1);
  at::Tensor scores = at::empty({q.size(0), queries, keys}, at::kFloat);
  auto* out = scores.mutable_data_ptr<float>();
  for_each_tiled_block(q, k, weight, [&](int64_t b, const ScoreTiles& tiles, Range range) {
    kernels.indexer_scores(tiles, range, score_tile(), out + b * queries * keys);
  });
  return scores;
}

IndexerGrads indexer_scores_backward(const at::Tensor& dscores, const at::Tensor& q,
                                     const at::Tensor& k, const at::Tensor& weight) {
  if (q.scalar_type() != at::kFloat)
    return rounded(
        cpu::indexer_scores_backward(dscores, as_float(q), as_float(k), as_float(weight)),
        q.scalar_type());
  const SelectKernels& kernels = *isa_in_use().select;
  IndexerBatch<float> batch(q, k, weight);
  pack(batch, kernels.indexer);
  IndexerGrads grads{at::empty(q.sizes(), at::kFloat), at::empty(k.sizes(), at::kFloat),
                     at::empty(weight.sizes(), at::kFloat)};
  auto* dq = grads.dq.mutable_data_ptr<float>();
  auto* dk = grads.dk.mutable_data_ptr<float>();
  auto* dweight = grads.dweight.mutable_data_ptr<float>();
  const auto* from = dscores.const_data_ptr<float>();
  const int64_t rows = batch.queries * batch.heads;
  for_each_range(batch.batch, batch.queries, kQueryBlock, [&](int64_t b, Range queries) {
    auto* memory = scratch<float>(Slot::kSelectTask, kernels.query_gradient_scratch(batch.heads));
    kernels.scores_backward_queries(batch.sequence(b), from + b * batch.queries * batch.keys,
                                    queries, memory, dq + b * rows * batch.width,
                                    dweight + b * rows);
  });
  for_each_range(batch.batch, batch.keys, kernels.indexer.key_block, [&](int64_t b, Range keys) {
    auto* memory = scratch<float>(Slot::kSelectTask, kernels.key_gradient_scratch(batch.heads));
    kernels.scores_backward_keys(batch.sequence(b), from + b * batch.queries * batch.keys, keys,
                                 memory, dk + b * batch.keys * batch.width);
  });
  return grads;
}

ops::Selection select_top_k(const at::Tensor& scores, int64_t top_k) {
  const SelectKernels& kernels = *isa_in_use().select;
  const int64_t batch = scores.size(0), queries = scores.size(1), keys = scores.size(2);
  ops::Selection selection = empty_selection(batch, queries, top_k);
  const auto* from = scores.const_data_ptr<float>();
  auto* ids = selection.indices.mutable_data_ptr<int32_t>();
  auto* count = selection.count.mutable_data_ptr<int32_t>();
  for_each_share(batch * queries, [&](const auto& next) {
    const KeepDenormals exact;
    auto* buffer =
        scratch<float>(Slot::kSelectBuffer, kernels.select_scratch(std::min(top_k, keys), 1));
    for (int64_t row = next(); row >= 0; row = next()) {
      const int64_t visible = row % queries + 1 + keys - queries;
      count[row] =
          kernels.select_row(from + row * keys, {keys, visible}, top_k, buffer, ids + row * top_k);
    }
  });
  throw_if_nan(selection.count);
  return selection;
}

namespace {

/// Keys packed for the screen, and bounds over those of each sequence.
struct ScreenKeys {
  const float* packed;
  int64_t packed_floats;  ///< of one sequence
  std::vector<KeyBounds> bounds;
};

ScreenKeys pack(const IndexerBatch<float>& batch, const ScreenKernels& screen) {
  const int64_t blocks = blocks_of(batch.keys, screen.key_block);
  const int64_t floats = blocks * screen.key_block * screen.packed_width(batch.width);
  auto* packed = scratch<float>(Slot::kScreenCall, batch.batch * floats);
  std::vector<KeyBounds> of_block(static_cast<size_t>(batch.batch * blocks));
  for_each_block(batch.batch * blocks, [&](int64_t block) {
    const int64_t b = block / blocks, first = block % blocks;
    auto* memory = scratch<float>(Slot::kSelectTask, screen.pack_scratch(batch.width));
    of_block[static_cast<size_t>(block)] =
        screen.pack_keys(batch.sequence(b), {first, first + 1}, memory, packed + b * floats);
  });
  ScreenKeys keys{packed, floats, std::vector<KeyBounds>(static_cast<size_t>(batch.batch))};
  for (int64_t block = 0; block < batch.batch * blocks; ++block) {
    KeyBounds& all = keys.bounds[static_cast<size_t>(block / blocks)];
    const KeyBounds& one = of_block[static_cast<size_t>(block)];
    all = {std::max(all.norm, one.norm), std::max(all.error, one.error)};
  }
  return keys;
}

thread_local ScreenCount last_count;

/// Selects by the screen; by scores of float32 where too many queries turn out undecided.
void select_screened(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                     const IsaRow& isa, ops::Selection& selection) {
  const SelectKernels& kernels = *isa.select;
  IndexerBatch<float> batch(q, k, weight);
  pack(batch, kernels.indexer);
  const ScreenKeys keys = pack(batch, *isa.screen);
  const int64_t top_k = selection.indices.size(2), kept = std::min(top_k, batch.keys);
  // The result is the same either way, so who came before may say what is worth trying.
  std::atomic<int64_t> tried{0}, undecided{0};
  const auto memory = [&](const ScreenInputs& in) {
    return scratch<float>(Slot::kSelectTask, isa.screen->select_scratch(in.exact, top_k));
  };
  const auto inputs = [&](int64_t b, ScoringTime* time) {
    return ScreenInputs{batch.sequence(b), keys.packed + b * keys.packed_floats,
                        keys.bounds[static_cast<size_t>(b)], time};
  };
  FusedStages stages;
  const auto select = [&](int64_t b, Range queries, ScoringTime* time) {
    const KeepDenormals exact;
    const ScreenInputs in = inputs(b, time);
    const SelectionOutput out = output(selection, b);
    if (undecided <= 2 * kQueryBlock + tried / 4) {
      tried += queries.last - queries.first;
      undecided += isa.screen->select(in, queries, out, memory(in));
      return;
    }
    auto* buffers = scratch<float>(Slot::kSelectBuffer, kernels.select_scratch(kept, kQueryBlock));
    kernels.indexer_select({&in.exact, kernels.indexer.score_tile, kernels.indexer.chunk,
                            batch.queries, batch.keys, time},
                           queries, out, false, score_tile(), buffers);
  };
  for_each_range(batch.batch, batch.queries, kQueryBlock, [&](int64_t b, Range queries) {
    stages.block([&](ScoringTime* time) { select(b, queries, time); });
  });
  for (int64_t b = 0; undecided > 0 && b < batch.batch; ++b) {
    const SelectionOutput out = output(selection, b);
    std::vector<int64_t> left;
    for (int64_t t = 0; t < batch.queries; ++t)
      if (out.count[t] == kUndecided) left.push_back(t);
    for_each_range(1, static_cast<int64_t>(left.size()), kQueryBlock, [&](int64_t, Range part) {
      stages.block([&](ScoringTime* time) {
        const KeepDenormals exact;
        const ScreenInputs in = inputs(b, time);
        isa.screen->select_exact(in, left.data() + part.first, part.last - part.first, out,
                                 memory(in));
      });
    });
  }
  last_count = {tried, undecided};
}

}  // namespace

ScreenCount last_screen() {
  return last_count;
}

ops::Selection indexer_select(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                              int64_t top_k) {
  const IsaRow& isa = isa_in_use();
  ops::Selection selection = empty_selection(q.size(0), q.size(1), top_k);
  last_count = {};
  // With narrow indexers (2 heads of 16) the screen was no faster.
  const bool is_worth_it = q.size(2) * q.size(3) >= 128;
  if (q.size(1) <= kQueryBlock) {
    with_dense_kernels(q, k, weight, [&](const auto& batch, const auto& kernels) {
      FewQueries(batch, kernels, *isa.select, selection)();
    });
  } else if (q.scalar_type() == at::kFloat && isa.screen != nullptr && is_worth_it) {
    select_screened(q, k, weight, isa, selection);
  } else {
    TiledSelection select(*isa.select, std::min(top_k, k.size(1)), selection);
    for_each_tiled_block(q, k, weight, [&](int64_t b, const ScoreTiles& tiles, Range queries) {
      select(b, tiles, queries);
    });
  }
  throw_if_nan(selection.count);
  return selection;
}

at::Tensor selected_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& weight,
                           const ops::Selection& selection) {
  if (q.scalar_type() != at::kFloat)
    return cpu::selected_scores(as_float(q), as_float(k), as_float(weight), selection);
  const SelectKernels& kernels = *isa_in_use().select;
  const IndexerBatch<float> batch(q, k, weight);
  at::Tensor scores = at::empty(selection.indices.sizes(), at::kFloat);
  auto* out = scores.mutable_data_ptr<float>();
  for_each_range(batch.batch, batch.queries, kQueryBlock, [&](int64_t b, Range queries) {
    const SelectedKeys selected = selected_keys(selection, b);
    kernels.selected_scores(batch.sequence(b), selected, queries,
                            out + b * batch.queries * selected.top_k);
  });
  return scores;
}

IndexerGrads selected_scores_backward(const at::Tensor& dscores, const at::Tensor& q,
                                      const at::Tensor& k, const at::Tensor& weight,
                                      const ops::Selection& selection) {
  if (q.scalar_type() != at::kFloat)
    return rounded(
        selected_scores_backward(dscores, as_float(q), as_float(k), as_float(weight), selection),
        q.scalar_type());
  const SelectKernels& kernels = *isa_in_use().select;
  const IndexerBatch<float> batch(q, k, weight);
  IndexerGrads grads{at::empty(q.sizes(), at::kFloat), at::empty(k.sizes(), at::kFloat),
                     at::empty(weight.sizes(), at::kFloat)};
  auto* dq = grads.dq.mutable_data_ptr<float>();
  auto* dk = grads.dk.mutable_data_ptr<float>();
  auto* dweight = grads.dweight.mutable_data_ptr<float>();
  const auto* from = dscores.const_data_ptr<float>();
  const int64_t rows = batch.queries * batch.heads, top_k = selection.indices.size(2);
  for_each_range(batch.batch, batch.queries, kQueryBlock, [&](int64_t b, Range queries) {
    auto* memory =
        scratch<float>(Slot::kSelectTask, kernels.selected_gradient_scratch(batch.heads, top_k));
    kernels.selected_backward_queries(batch.sequence(b), selected_keys(selection, b),
                                      from + b * batch.queries * top_k, queries, memory,
                                      dq + b * rows * batch.width, dweight + b * rows);
  });
  constexpr int64_t kKeyRange = 64;
  for (int64_t b = 0; b < batch.batch; ++b) {
    const KeyLists lists = key_lists(selected_keys(selection, b), from + b * batch.queries * top_k,
                                     batch.queries, batch.keys);
    for_each_range(1, batch.keys, kKeyRange, [&](int64_t, Range keys) {
      kernels.selected_backward_keys(batch.sequence(b), lists, keys,
                                     dk + b * batch.keys * batch.width);
    });
  }
  return grads;
}

}  // namespace dsa::cpu
