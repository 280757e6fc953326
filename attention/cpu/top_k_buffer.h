// What a query keeps of the scores it was offered; top_k_impl.h fills it.
#pragma once
#include <cstdint>

namespace dsa::cpu {

/// Scores and ids kept so far, in ascending id order. Made by TopK::buffer, never by a constructor: code
/// of every ISA shares this header.
struct TopKBuffer {
  float* scores;
  int32_t* ids;
  float* spare;  ///< scratch of the same room, shared by the buffers of one thread
  int64_t capacity;
  int64_t top_k;
  int64_t filled;
  float threshold;    ///< only scores above it can still be selected, once `is_selective`
  bool is_selective;  ///< false: everything is kept, -inf included
  int64_t nan_id;     ///< first key whose score is NaN, or -1
  /// Scores that far below the K-th best are kept too, for who knows them only that well.
  float margin;
  bool is_overfull;  ///< more scores lay within the margin than there is room for
  /// The score that a sample promises K others lie above, while nothing proves it; -inf: none.
  float guess;
  bool is_plateau;  ///< the sample of that guess has one value, so most of the row may pass
};

}  // namespace dsa::cpu
