// The selection of one batch element seen from the keys: which queries read each key.
#pragma once
#include <cstdint>

namespace dsa::cpu {

/// Lives in the calling thread's scratch until the next call.
struct TransposedSelection {
  const int64_t*
      first;  ///< [S]: the queries of key s are ids[first[s]] to ids[first[s] + count[s]]
  const int32_t* count;    ///< [S]
  const int32_t* queries;  ///< ascending for each key
};

/// Counting sort over torch's pool; the same result for every number of threads.
/// @param ids [queries][top_k], @param counts [queries]: valid ids of each row, in front
TransposedSelection transposed(const int32_t* ids, const int32_t* counts, int64_t queries,
                               int64_t keys, int64_t top_k);

}  // namespace dsa::cpu
