#include "bench/kernel_inputs.h"

#include "attention/random.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace dsa::bench {
namespace {

at::Tensor normal(at::IntArrayRef shape, at::Generator& generator) {
  return at::randn(shape, generator, at::kFloat);
}

struct IndexerTensors {
  at::Tensor q, k, weight;
};

IndexerTensors indexer_tensors(const KernelCase& kernel, at::Generator& generator,
                               const AttentionCapture* captured) {
  const Problem& p = kernel.problem;
  if (captured != nullptr) return {captured->index.q, captured->index.k, captured->index.weight};
  at::Tensor q = normal({1, p.queries, p.index_heads, p.index_width}, generator);
  at::Tensor k = normal({1, p.keys, p.index_width}, generator);
  at::Tensor weight = normal({1, p.queries, p.index_heads}, generator);
  if (kernel.scores == "relu_plateau") {
    // Nine keys of ten point away from every query: their scores are exact zeros.
    const at::Tensor away = at::rand({1, p.keys, 1}, generator, at::kFloat).lt(0.9);
    q = q.abs();
    k = at::where(away, -k.abs(), k);
    weight = weight.abs();
  } else if (kernel.scores == "concentrated") {
    // All scores of a query within a percent of each other: one radix bin holds them all.
    q = 1 + 0.05 * q;
    k = 1 + 0.05 * k;
    weight = weight.abs();
  }
  weight = weight / std::sqrt(static_cast<double>(p.index_heads * p.index_width));
  return {q, k, weight};
}

at::Tensor raw_scores(const KernelCase& kernel, at::Generator& generator,
                      const AttentionCapture* captured) {
  if (captured != nullptr) {
    return ops::indexer_scores(captured->index.q, captured->index.k, captured->index.weight);
  }
  const int64_t queries = kernel.problem.queries, keys = kernel.problem.keys;
  const at::Tensor x = normal({1, queries, keys}, generator);
  const std::string& scores = kernel.scores;
  if (scores == "relu_plateau") return (x - 1.28).clamp_min(0);  // 90 % exact zeros
  if (scores == "concentrated") return 1 + 1e-3 * x;
  if (scores == "all_equal") return at::full_like(x, 0.25);
  if (scores == "two_valued") return at::where(x.gt(0), at::ones_like(x), 2 * at::ones_like(x));
  if (scores == "sorted") return std::get<0>(x.sort(-1));
  if (scores == "reverse") return std::get<0>(x.sort(-1, true));
  // The upper 16 bits of all scores are equal: a radix sort's first two digits tell nothing.
  if (scores == "one_radix_bin") return 1 + x.abs().mul(8192).floor().clamp_max(65535) * 0x1p-23;
  if (scores == "denormal") return (x * 1e6).floor() * 0x1p-149;
  if (scores == "signed_zero") return x.sign() * 0.0;
  return x;
}

/// -inf where the key comes after the query, as an indexer leaves it.
void hide_future(at::Tensor& scores) {
  const int64_t queries = scores.size(1), keys = scores.size(2);
  scores.masked_fill_(
      at::ones({queries, keys}, scores.options().dtype(at::kBool)).triu_(keys - queries + 1),
      -std::numeric_limits<double>::infinity());
}

/// Which keys a query takes, given what the name of the distribution promises.
class Chooser {
 public:
  Chooser(const std::string& scores, uint64_t seed) : scores_(scores), random_(seed) {}

  /// `count` distinct ids of [0, visible), ascending.
  void choose(int64_t visible, int64_t count, std::vector<int32_t>& ids) {
    taken_.assign(static_cast<size_t>(visible), 0);
    int64_t left = count;
    const auto take = [&](int64_t id) {
      if (left > 0 && taken_[static_cast<size_t>(id)] == 0) {
        taken_[static_cast<size_t>(id)] = 1;
        --left;
      }
    };
    if (scores_ == "relu_plateau") {
      // A tenth of the keys scores above zero; ties at zero go to the earliest keys.
      for (int64_t n = 0; n < visible / 10; ++n) take(below(visible));
      for (int64_t id = 0; id < visible; ++id) take(id);
    } else if (scores_ == "concentrated") {
      // As trained indexers choose: half of the keys recent, half of them where others look too.
      const int64_t recent = std::min(visible, 2 * count);
      for (int64_t n = 0; n < 8 * count && left > count / 2; ++n) take(visible - 1 - below(recent));
      const int64_t pool = std::min(visible, 2 * count);
      for (int64_t n = 0; n < 8 * count && left > 0; ++n) take(below(pool) * (visible / pool));
      for (int64_t id = visible; id-- > 0;) take(id);
    } else if (2 * count > visible) {
      // Few keys stay out: choose those, so that the loop ends soon.
      std::fill(taken_.begin(), taken_.end(), 1);
      for (int64_t out = visible - count; out > 0;) {
        auto& flag = taken_[static_cast<size_t>(below(visible))];
        if (flag != 0) flag = 0, --out;
      }
    } else {
      while (left > 0) take(below(visible));
    }
    ids.clear();
    for (int64_t id = 0; id < visible; ++id) {
      if (taken_[static_cast<size_t>(id)] != 0) ids.push_back(static_cast<int32_t>(id));
    }
  }

 private:
  int64_t below(int64_t n) { return static_cast<int64_t>(random_.below(static_cast<uint64_t>(n))); }

  std::string scores_;
  Random random_;
  std::vector<char> taken_;
};

ops::Selection selection_of(const KernelCase& kernel, uint64_t seed) {
  const Problem& p = kernel.problem;
  at::Tensor indices = at::full({1, p.queries, p.top_k}, -1, at::kInt);
  at::Tensor count = at::empty({1, p.queries}, at::kInt);
  Chooser chooser(kernel.scores, seed);
  std::vector<int32_t> ids;
  for (int64_t t = 0; t < p.queries; ++t) {
    const int64_t visible = t + 1 + p.keys - p.queries;
    chooser.choose(visible, std::min(visible, p.top_k), ids);
    std::copy(ids.begin(), ids.end(), indices.mutable_data_ptr<int32_t>() + t * p.top_k);
    count.mutable_data_ptr<int32_t>()[t] = static_cast<int32_t>(ids.size());
  }
  return {indices, count};
}

at::IntArrayRef output_shape(const KernelCase& kernel, std::vector<int64_t>& shape) {
  const Problem& p = kernel.problem;
  if (kernel.op == Op::kIndexerScores) shape = {1, p.queries, p.keys};
  if (kernel.op == Op::kSelectedScores) shape = {1, p.queries, p.top_k};
  if (kernel.op == Op::kSparse || kernel.op == Op::kDense)
    shape = {1, p.queries, p.heads, p.v_width};
  return shape;
}

/// @param captured  null unless the row's scores are `captured`
InputSet make_set(const KernelCase& kernel, uint64_t seed, const AttentionCapture* captured) {
  const Problem& p = kernel.problem;
  at::Generator generator = at::detail::createCPUGenerator(seed);
  InputSet set;
  if (kernel.gemm > 0) {
    set.q = normal({kernel.gemm, kernel.gemm}, generator).to(p.dtype);
    set.k = normal({kernel.gemm, kernel.gemm}, generator).to(p.dtype);
    return set;
  }
  if (has_indexer(kernel.op)) {
    const IndexerTensors t = indexer_tensors(kernel, generator, captured);
    set.q = t.q.to(p.dtype), set.k = t.k.to(p.dtype), set.weight = t.weight.to(p.dtype);
  }
  if (kernel.op == Op::kSelectTopK) {
    set.scores = raw_scores(kernel, generator, captured);
    hide_future(set.scores);
  }
  if (has_attention(kernel.op)) {
    set.q = normal({1, p.queries, p.heads, p.qk_width}, generator).to(p.dtype);
    set.k = normal({1, p.keys, p.kv_heads, p.qk_width}, generator).to(p.dtype);
    set.v = p.values_in_keys ? set.k.narrow(-1, 0, p.v_width)
                             : normal({1, p.keys, p.kv_heads, p.v_width}, generator).to(p.dtype);
  }
  if (has_selection(kernel.op) && !kernel.selects()) {
    set.selection = captured != nullptr ? captured->selection : selection_of(kernel, seed);
  }
  if (kernel.op == Op::kAttentionMass) {
    const double scale = 1 / std::sqrt(static_cast<double>(p.qk_width));
    set.lse = ops::sparse_attention(set.q, set.k, set.v, set.selection, scale).lse;
  }
  std::vector<int64_t> shape;
  if (!output_shape(kernel, shape).empty()) {
    // Gradients of scores are float32 like the scores, those of attention have the inputs' dtype.
    const bool scores = has_indexer(kernel.op) && p.dtype != c10::kDouble;
    set.dout = normal(shape, generator).to(scores ? c10::kFloat : p.dtype);
  }
  return set;
}

std::string key_of(const KernelCase& kernel, const KernelConfig& config) {
  std::string key = kernel.family();
  for (const auto& [axis, value] : axes(kernel)) {
    if (axis != "pass" && axis != "backend") key += "/" + axis + ":" + value;
  }
  if (kernel.scores == "captured") {
    key += "/layer:" + std::to_string(config.captured_layer) + " of " + config.captured_weights;
  }
  return key + "/seed:" + std::to_string(config.seed);
}

std::vector<at::Tensor> tensors(const InputSet& set) {
  std::vector<at::Tensor> all;
  for (const at::Tensor& t : {set.q, set.k, set.v, set.weight, set.scores, set.lse, set.dout,
                              set.selection.indices, set.selection.count}) {
    if (t.defined()) all.push_back(t);
  }
  return all;
}

}  // namespace

uint64_t Inputs::hash() const {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const InputSet& set : sets) {
    for (const at::Tensor& tensor : tensors(set)) {
      const char* bytes = static_cast<const char*>(tensor.const_data_ptr());
      const size_t size = tensor.nbytes();
      for (size_t at = 0; at < size; at += 8) {
        uint64_t word = 0;
        std::memcpy(&word, bytes + at, std::min<size_t>(8, size - at));
        hash = (hash ^ word) * 0x100000001b3ull;
      }
    }
  }
  return hash;
}

double bytes_of_set(const KernelCase& kernel) {
  const Problem& p = kernel.problem;
  const auto t = static_cast<double>(p.queries), s = static_cast<double>(p.keys);
  const auto size = static_cast<double>(c10::elementSize(p.dtype));
  double bytes = 0;
  if (kernel.gemm > 0) return kernel.work().bytes_read;
  if (has_indexer(kernel.op)) {
    const auto heads = static_cast<double>(p.index_heads),
               width = static_cast<double>(p.index_width);
    bytes += size * (t * heads * width + s * width + t * heads);
  }
  if (has_attention(kernel.op)) {
    const auto h = static_cast<double>(p.heads), g = static_cast<double>(p.kv_heads);
    const auto d = static_cast<double>(p.qk_width), v = static_cast<double>(p.v_width);
    bytes += size * (t * h * (d + v) + s * g * (p.values_in_keys ? d : d + v));
  }
  if (kernel.op == Op::kSelectTopK || kernel.op == Op::kIndexerScores) bytes += 4 * t * s;
  if (has_selection(kernel.op)) bytes += 4 * t * static_cast<double>(p.top_k);
  return bytes;
}

std::shared_ptr<const Inputs> InputCache::get(const KernelCase& kernel,
                                              const KernelConfig& config) {
  const std::string key = key_of(kernel, config);
  if (key == key_) return inputs_;
  inputs_.reset();  // before the new ones are made: two problems need not fit side by side
  // One set of a large problem does not fit into any cache: it needs no siblings to be cold.
  const double fit = config.input_memory * 1024 * 1024 / bytes_of_set(kernel);
  const auto count = std::clamp<int64_t>(static_cast<int64_t>(fit), 1, config.input_sets);
  auto made = std::make_shared<Inputs>();
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t seed = config.seed + static_cast<uint64_t>(i) * 1000003;
    if (kernel.scores != "captured") {
      made->sets.push_back(make_set(kernel, seed, nullptr));
      continue;
    }
    const AttentionCapture layer = captured_.layer(kernel, config, i);
    made->sets.push_back(make_set(kernel, seed, &layer));
    if (i == 0) made->facts = facts_of(layer);
  }
  key_ = key;
  inputs_ = made;
  return made;
}

}  // namespace dsa::bench
