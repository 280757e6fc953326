// Calls of sparse attention where few heads share a kv head and neighbouring queries are looked at
// together.
#include "attention/cpu/attend_narrow_call.h"
#include "attention/cpu/parallel.h"
#include "attention/cpu/scratch.h"

#include <algorithm>
#include <atomic>

namespace dsa::cpu {
namespace {

int64_t rounded(int64_t n) {
  return (n + 31) / 32 * 32;
}

/// Rows [0, keys) of every kv head. @return whether all numbers are what the kernel can do
bool pack(const NarrowCall& call, int64_t keys, const NarrowRows& rows,
          bool (*kernel)(const NarrowSource&, const NarrowRows&)) {
  const AttendShape& n = call.in.n;
  std::atomic<bool> good{true};
  for_each_range(keys, kPackedKeys, [&](int64_t begin, int64_t end) {
    for (int64_t g = 0; g < n.kv_heads; ++g) {
      const int64_t row = (call.b * n.keys + begin) * n.kv_heads + g;
      const NarrowSource source{element(call.in.k, row * n.width),
                                element(call.v, row * n.v_width),
                                n.kv_heads * n.width,
                                n.kv_heads * n.v_width,
                                n.width,
                                n.v_width,
                                g,
                                begin,
                                end};
      if (!kernel(source, rows)) good = false;
    }
  });
  return good;
}

/// What all blocks share.
NarrowBlock whole_call(const NarrowCall& call) {
  const AttendShape& n = call.in.n;
  NarrowBlock whole{};
  whole.q_token = n.heads * n.width;
  whole.group = n.group();
  whole.width = n.width;
  whole.v_width = n.v_width;
  whole.rows = {rounded(n.keys), rounded(n.width), rounded(n.v_width), nullptr, nullptr, nullptr};
  whole.top_k = n.top_k;
  whole.scale = call.in.scale;
  whole.out_token = n.heads * n.v_width;
  whole.lse_token = n.heads;
  whole.choice = call.choice;
  return whole;
}

/// The queries and heads of one task.
NarrowBlock task_block(const NarrowCall& call, const NarrowBlock& whole, QueryRange queries,
                       int64_t part, int64_t parts) {
  const AttendShape& n = call.in.n;
  const int64_t row = call.b * n.queries + queries.begin;
  NarrowBlock block = whole;
  block.queries = queries.end - queries.begin;
  block.q = element(call.in.q, row * n.heads * n.width);
  block.kv_begin = n.kv_heads * part / parts;
  block.kv_end = n.kv_heads * (part + 1) / parts;
  block.ids = call.in.selection.indices.const_data_ptr<int32_t>() + row * n.top_k;
  block.counts = call.in.selection.count.const_data_ptr<int32_t>() + row;
  block.out = mutable_element(call.result.out, row * n.heads * n.v_width);
  block.lse = call.result.lse.mutable_data_ptr<float>() + row * n.heads;
  return block;
}

/// Queries of a block: scratch of at most 3 MiB if it can be. Depends on the shape alone.
int64_t queries_of_block(int64_t (*scratch_of)(const NarrowBlock&), NarrowBlock block,
                         int64_t least) {
  block.queries = 256;
  while (block.queries > least && scratch_of(block) > int64_t{3} << 20) block.queries /= 2;
  return block.queries;
}

double overlap(int64_t neighbours, int64_t together, int64_t pairs) {
  return pairs > 0 ? static_cast<double>(neighbours * together) / static_cast<double>(pairs) : 0.0;
}

/// What was found in the middle of every block.
std::vector<NarrowFacts> facts_of(const NarrowCall& call, const SplitKernel& kernel,
                                  const NarrowBlock& whole, const std::vector<QueryRange>& blocks) {
  std::vector<NarrowFacts> facts(blocks.size());
  for_each_block(static_cast<int64_t>(blocks.size()), [&](int64_t i) {
    const auto at = static_cast<size_t>(i);
    NarrowBlock block = task_block(call, whole, blocks[at], 0, 1);
    block.scratch = scratch<char>(Slot::kAttendTask, kernel.scratch(block));
    facts[at] = kernel.facts(block);
    if (call.choice != NarrowChoice::kMeasured)
      facts[at].by_union = call.choice == NarrowChoice::kUnion;
  });
  return facts;
}

/// Keys from 0 to the last that queries selected.
int64_t keys_of(const NarrowCall& call, QueryRange queries) {
  const AttendShape& n = call.in.n;
  const auto* ids = call.in.selection.indices.const_data_ptr<int32_t>();
  const auto* counts = call.in.selection.count.const_data_ptr<int32_t>();
  int64_t keys = 0;
  for (int64_t row = call.b * n.queries + queries.begin; row < call.b * n.queries + queries.end;
       ++row)
    if (counts[row] > 0) keys = std::max<int64_t>(keys, ids[row * n.top_k + counts[row] - 1] + 1);
  return keys;
}

/// @return whether the numbers of k and v are what the kernel can do
bool pack_split(const NarrowCall& call, const SplitKernel& kernel, int64_t keys,
                NarrowBlock& whole) {
  const int64_t kv_heads = call.in.n.kv_heads;
  whole.rows.keys = rounded(keys);
  const int64_t bytes = kv_heads * whole.rows.keys * kSplitRowBytes / 32;
  char* packed =
      scratch<char>(Slot::kAttendCall, bytes * (whole.rows.padded + whole.rows.v_padded));
  whole.rows.k = packed;
  whole.rows.v = packed + bytes * whole.rows.padded;
  return pack(call, keys, whole.rows, kernel.pack);
}

/// Blocks whose facts say so. @return for each block whether it is done
std::vector<char> run_together(const NarrowCall& call, const SplitKernel& kernel,
                               const NarrowBlock& whole, const std::vector<QueryRange>& blocks,
                               const std::vector<NarrowFacts>& facts) {
  std::vector<size_t> chosen;
  for (size_t i = blocks.size(); i-- > 0;)  // longest first
    if (facts[i].by_union) chosen.push_back(i);
  const auto count = static_cast<int64_t>(chosen.size());
  const int64_t parts = head_parts(count, call.in.n.kv_heads);
  std::vector<std::atomic<bool>> refused(blocks.size());
  for_each_block(count * parts, [&](int64_t task) {
    const size_t i = chosen[static_cast<size_t>(task / parts)];
    NarrowBlock block = task_block(call, whole, blocks[i], task % parts, parts);
    block.scratch = scratch<char>(Slot::kAttendTask, kernel.scratch(block));
    if (!kernel.forward(block)) refused[i] = true;
  });
  std::vector<char> done(blocks.size());
  for (const size_t i : chosen) done[i] = refused[i] ? 0 : 1;
  return done;
}

}  // namespace

NarrowCount narrow_element(const NarrowCall& call, const NarrowKernel& kernel) {
  const AttendShape& n = call.in.n;
  NarrowBlock whole = whole_call(call);
  const int64_t k_bytes = 2 * n.kv_heads * whole.rows.keys * whole.rows.padded;
  const int64_t v_bytes = 2 * n.kv_heads * whole.rows.keys * whole.rows.v_padded;
  char* packed = scratch<char>(Slot::kAttendCall, k_bytes + 2 * v_bytes);
  whole.rows.k = packed;
  whole.rows.v = packed + k_bytes;
  whole.rows.v_pairs = reinterpret_cast<uint32_t*>(packed + k_bytes + v_bytes);
  whole.finite = pack(call, n.keys, whole.rows, kernel.pack);
  const int64_t step = queries_of_block(kernel.scratch, whole, 1);
  const int64_t blocks = (n.queries + step - 1) / step, parts = head_parts(blocks, n.kv_heads);
  std::atomic<int64_t> by_union{0}, pairs{0}, together{0};
  for_each_block(blocks * parts, [&](int64_t task) {
    const int64_t begin = (blocks - 1 - task / parts) * step, part = task % parts;  // longest first
    NarrowBlock block =
        task_block(call, whole, {begin, std::min(begin + step, n.queries)}, part, parts);
    block.scratch = scratch<char>(Slot::kAttendTask, kernel.scratch(block));
    const NarrowFacts facts = kernel.forward(block);
    if (part > 0) return;
    by_union += facts.by_union;
    pairs += facts.pairs;
    together += facts.together;
  });
  return {blocks, by_union, overlap(16, together, pairs), 16};
}

NarrowCount split_element(const NarrowCall& call, const SplitKernel& kernel,
                          std::vector<QueryRange>& left) {
  const AttendShape& n = call.in.n;
  left = {{0, n.queries}};
  if (n.queries < kLeastTogether && call.choice == NarrowChoice::kMeasured) return {};
  NarrowBlock whole = whole_call(call);
  const int64_t step = queries_of_block(kernel.scratch, whole, 32);
  std::vector<QueryRange> blocks;
  for (int64_t begin = 0; begin < n.queries; begin += step)
    blocks.push_back({begin, std::min(begin + step, n.queries)});
  const std::vector<NarrowFacts> facts = facts_of(call, kernel, whole, blocks);
  int64_t keys = 0, pairs = 0, together = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (facts[i].by_union) keys = std::max(keys, keys_of(call, blocks[i]));
    pairs += facts[i].pairs;
    together += facts[i].together;
  }
  NarrowCount count{static_cast<int64_t>(blocks.size()), 0, overlap(32, together, pairs), 32};
  if (keys == 0 || !pack_split(call, kernel, keys, whole)) return count;
  const std::vector<char> done = run_together(call, kernel, whole, blocks, facts);
  left.clear();
  for (size_t i = 0; i < blocks.size(); ++i) {
    count.by_union += done[i];
    if (!done[i]) left.push_back(blocks[i]);
  }
  return count;
}

}  // namespace dsa::cpu
