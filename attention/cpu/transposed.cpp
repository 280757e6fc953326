// Counting sort of (query, key) pairs by key, parallel over contiguous ranges of queries.
#include "attention/cpu/transposed.h"

#include "attention/cpu/parallel.h"
#include "attention/cpu/scratch.h"

#include <algorithm>
#include <utility>

namespace dsa::cpu {

TransposedSelection transposed(const int32_t* ids, const int32_t* counts, int64_t queries,
                               int64_t keys, int64_t top_k) {
  int64_t pairs = 0;
  for (int64_t t = 0; t < queries; ++t) pairs += counts[t];
  const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(at::get_num_threads(), queries));
  // One allocation: first, then the 32-bit arrays.
  int64_t* first =
      scratch<int64_t>(Slot::kAttendLists, keys + (keys * (parts + 1) + pairs) / 2 + 1);
  int32_t* count = reinterpret_cast<int32_t*>(first + keys);
  int32_t* place = count + keys;  // [parts][S]: next place in the list of s, for queries of a part
  int32_t* list = place + parts * keys;

  const auto for_each_pair = [&](int64_t part, const auto& visit) {
    for (int64_t t = queries * part / parts; t < queries * (part + 1) / parts; ++t)
      for (int32_t i = 0; i < counts[t]; ++i) visit(t, ids[t * top_k + i]);
  };
  for_each_block(parts, [&](int64_t part) {
    int32_t* mine = place + part * keys;
    std::fill_n(mine, keys, 0);
    for_each_pair(part, [&](int64_t, int32_t s) { ++mine[s]; });
  });
  int64_t next = 0;
  for (int64_t s = 0; s < keys; ++s) {
    first[s] = next;
    int32_t total = 0;
    for (int64_t part = 0; part < parts; ++part)
      total += std::exchange(place[part * keys + s], total);
    count[s] = total;
    next += total;
  }
  for_each_block(parts, [&](int64_t part) {
    int32_t* mine = place + part * keys;
    for_each_pair(
        part, [&](int64_t t, int32_t s) { list[first[s] + mine[s]++] = static_cast<int32_t>(t); });
  });
  return {first, count, list};
}

}  // namespace dsa::cpu
