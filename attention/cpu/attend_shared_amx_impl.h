// Sparse-attention forward in bfloat16 on AMX where many heads share one kv head (MQA, and MLA in
// MQA mode). Bound by reads: the rows of a query from L3 (3 ns a line of 64 bytes), and tiles from L2
// (22 cycles each, where a product of two takes 16). Where v is a view of k, a chunk's rows are still
// in L2 when its values are summed: L3 gives each once. Fetching the next chunk's rows meanwhile
// changed nothing (H = 128) or cost a fifth (H = 16).
//
// Scores are K Q^T (lanes are heads), so K's rows are an operand as they lie; they are copied to
// whole tiles on the way. Values are P V with V's rows side by side in pairs, made on the way too:
// neither copy leaves L1.
#pragma once
#include "attention/cpu/amx.h"
#include "attention/cpu/attend_kernels.h"
#include "attention/cpu/attend_rows.h"
#include "attention/cpu/bf16.h"
#include "attention/cpu/shared_amx_tiles.h"

namespace dsa::cpu {

/// Sizes of a call, and of its scratch in bytes.
struct SharedAmxSizes {
  int64_t head_tiles;
  int64_t slices;    ///< of 32 columns of q and k
  int64_t v_slices;  ///< the same of v, even
  int64_t chunk;     ///< keys done at a time

  explicit SharedAmxSizes(const SharedBlock& b)
      : head_tiles((b.heads + kTileRows - 1) / kTileRows),
        slices((b.width + kTilePairs - 1) / kTilePairs),
        v_slices((b.v_width + 2 * kTilePairs - 1) / (2 * kTilePairs) * 2),
        chunk(head_tiles == 1 ? 512 : 256) {}

  int64_t q_bytes() const { return head_tiles * slices * kTileBytes; }
  int64_t out_bytes() const { return head_tiles * v_slices * 2 * kTileBytes; }
  int64_t head_bytes() const { return head_tiles * kTileRows * int64_t{sizeof(float)}; }
  int64_t score_bytes() const { return head_tiles * chunk * 64; }
  int64_t weight_bytes() const { return head_tiles * chunk * 32; }
  int64_t key_bytes() const { return slices * 2 * kTileBytes; }
  int64_t value_bytes() const { return chunk * 64; }
  int64_t total() const {
    return q_bytes() + out_bytes() + 4 * head_bytes() + score_bytes() + weight_bytes() +
           key_bytes() + value_bytes() + 4 * kTileBytes + chunk * 16;
  }
};

class SharedAmx {
 public:
  explicit SharedAmx(const SharedBlock& b) : b_(b), n_(b) {
    char* at = reinterpret_cast<char*>(b.scratch);
    const auto take = [&](int64_t bytes) {
      char* part = at;
      at += (bytes + 63) / 64 * 64;
      return part;
    };
    keys_ = take(n_.key_bytes());
    values_ = take(n_.value_bytes());
    sums_ = reinterpret_cast<float*>(take(4 * kTileBytes));
    scores_ = take(n_.score_bytes());
    weights_ = take(n_.weight_bytes());
    k_rows_ = reinterpret_cast<const Bf16**>(take(n_.chunk * 8));
    v_rows_ = reinterpret_cast<const Bf16**>(take(n_.chunk * 8));
    q_ = take(n_.q_bytes());
    out_ = take(n_.out_bytes());
    largest_ = reinterpret_cast<float*>(take(n_.head_bytes()));
    ratio_ = reinterpret_cast<float*>(take(n_.head_bytes()));
    inverse_ = reinterpret_cast<float*>(take(n_.head_bytes()));
    sum_ = reinterpret_cast<float*>(take(n_.head_bytes()));
  }

  void forward() {
    const Tiles tiles;
    for (int64_t i = 0; i < b_.queries; ++i) b_.counts[i] == 0 ? store_nothing(i) : query(i);
  }

 private:
  static constexpr int64_t kGroup = 32;  ///< keys in a step of the value product

  void store_nothing(int64_t i) {
    Bf16* out = static_cast<Bf16*>(b_.out) + i * b_.out_token;
    for (int64_t x = 0; x < b_.heads * b_.v_width; ++x) out[x].bits = 0;
    for (int64_t h = 0; h < b_.heads; ++h) b_.lse[i * b_.lse_token + h] = -__builtin_inff();
  }

  void query(int64_t i) {
    pack(i);
    look_ahead(i);
    const int64_t count = b_.counts[i];
    for (int64_t slot = 0; slot < count; slot += n_.chunk) {
      const int64_t keys = count - slot < n_.chunk ? count - slot : n_.chunk;
      const SharedChunk c{.keys = keys,
                          .groups = (keys + kGroup - 1) / kGroup,
                          .first = slot == 0,
                          .last = slot + keys == count,
                          .result = static_cast<Bf16*>(b_.out) + i * b_.out_token,
                          .lse = b_.lse + i * b_.lse_token};
      find_rows(c, b_.ids + i * b_.top_k + slot);
      score(c);
      weigh(c);
      add_values(c);
    }
  }

  void pack(int64_t i) {
    const Bf16* q = static_cast<const Bf16*>(b_.q) + i * b_.q_token;
    for (int64_t g = 0; g < n_.head_tiles; ++g)
      for (int64_t x = 0; x < n_.slices; ++x)
        pack_heads(q + g * kTileRows * b_.width + x * kTilePairs, b_.width,
                   b_.heads - g * kTileRows, b_.width - x * kTilePairs, b_.scale < 0,
                   q_ + (g * n_.slices + x) * kTileBytes);
    for (int64_t h = 0; h < n_.head_tiles * kTileRows; ++h) largest_[h] = kLowest, sum_[h] = 0;
  }

  /// What the scores of query i fetch meanwhile.
  void look_ahead(int64_t i) {
    const int64_t q_bytes = b_.heads * b_.width * 2, out_bytes = b_.heads * b_.v_width * 2;
    ahead_.q = static_cast<const char*>(b_.q) + (i + 1) * b_.q_token * 2;
    ahead_.q_end = i + 1 < b_.queries ? ahead_.q + q_bytes : ahead_.q;
    ahead_.out = static_cast<char*>(b_.out) + i * b_.out_token * 2;
    ahead_.out_end = ahead_.out + out_bytes;
    const int64_t steps =
        (b_.counts[i] + kGroup - 1) / kGroup * n_.slices * ((n_.head_tiles + 1) / 2);
    const int64_t bytes = q_bytes > out_bytes ? q_bytes : out_bytes;
    ahead_.lines = bytes / (64 * (steps + 1)) + 1;
  }

  /// The last key stands in for those that fill up a group: a row of a key that was not selected
  /// must not enter, even with weight 0, for it may hold NaN.
  void find_rows(const SharedChunk& c, const int32_t* ids) {
    for (int64_t j = 0; j < c.groups * kGroup; ++j) {
      const int64_t id = ids[j < c.keys ? j : c.keys - 1];
      k_rows_[j] = static_cast<const Bf16*>(b_.k) + id * b_.k_stride;
      v_rows_[j] = static_cast<const Bf16*>(b_.v) + id * b_.v_stride;
    }
    // The softmax leaves the caches alone, so it fetches the values; with one head tile it is too
    // short for that.
    const int64_t bytes = b_.v_width * 2;
    values_ahead_ = {.rows = v_rows_,
                     .count = n_.head_tiles > 1 ? c.keys : 0,
                     .row_bytes = bytes,
                     .lines = kGroup * bytes / (64 * 16 * n_.head_tiles) + 1,
                     .offset = 0};
  }

  void score(const SharedChunk& c) {
    // Half of the columns at a time: the keys' tiles and two head tiles of q then share L1.
    const int64_t half = n_.head_tiles > 2 ? (n_.slices + 1) / 2 : n_.slices;
    ScoreStep step{};
    step.keys = keys_;
    step.width = b_.width;
    step.slots = n_.head_tiles > 2 ? -1 : 3;
    step.ahead = &ahead_;
    for (int64_t group = 0; group < c.groups; ++group) {
      step.rows = k_rows_ + group * kGroup;
      for (step.begin = 0; step.begin < n_.slices; step.begin = step.end) {
        step.end = step.begin + half < n_.slices ? step.begin + half : n_.slices;
        for (int64_t g = 0; g < n_.head_tiles; g += 2) {
          step.q = q_ + g * n_.slices * kTileBytes;
          step.scores = scores_ + g * n_.chunk * 64 + group * 2 * kTileBytes;
          if (g + 1 == n_.head_tiles)
            g == 0 ? score_one<true>(step) : score_one<false>(step);
          else
            g == 0 ? score_two<true>(step, n_.slices * kTileBytes, n_.chunk * 64)
                   : score_two<false>(step, n_.slices * kTileBytes, n_.chunk * 64);
        }
      }
    }
  }

  /// scores_ -> weights_ relative to the largest score so far.
  void weigh(const SharedChunk& c) {
    const float factor = __builtin_fabsf(b_.scale) * kLog2E;
    for (int64_t g = 0; g < n_.head_tiles; ++g) {
      const float* s = reinterpret_cast<const float*>(scores_ + g * n_.chunk * 64);
      weigh_heads(s, c.keys, factor, largest_ + g * kTileRows, sum_ + g * kTileRows,
                  ratio_ + g * kTileRows, weights_ + g * n_.chunk * 32, &values_ahead_);
      if (!c.last) continue;
      for (int64_t h = g * kTileRows; h < (g + 1) * kTileRows; ++h) {
        if (h < b_.heads) c.lse[h] = (largest_[h] + __builtin_log2f(sum_[h])) * kLn2;
        inverse_[h] = 1.0f / sum_[h];
      }
    }
  }

  void add_values(const SharedChunk& c) {
    ValueStep step{};
    step.rows = v_rows_;
    step.groups = c.groups;
    step.width = b_.v_width;
    step.values = values_;
    step.sums = sums_;
    step.weights = weights_;
    if (n_.head_tiles == 1) return add_values_one(c, step);
    const int64_t weights = n_.chunk * 32;
    for (int64_t y = 0; y * kTilePairs < b_.v_width; ++y) {
      step.slice = y;
      for (int64_t g = 0; g < n_.head_tiles; g += 2) {
        const bool two = g + 1 < n_.head_tiles;
        step.weights = weights_ + g * weights;
        if (two)
          g == 0 ? value_two<true>(step, weights) : value_two<false>(step, weights);
        else
          value_one(step);
        store(c, g, y, sums_);
        if (two) store(c, g + 1, y, sums_ + 512);
      }
    }
  }

  void add_values_one(const SharedChunk& c, ValueStep& step) {
    for (int64_t y = 0; y < n_.v_slices; y += 2) {
      step.slice = y;
      value_wide(step);
      store(c, 0, y, sums_);
      store(c, 0, y + 1, sums_ + 512);
    }
  }

  /// The sums of a chunk, head tile g and slice y, to those of the query or to its result.
  void store(const SharedChunk& c, int64_t g, int64_t y, float* sums) {
    float* so_far = reinterpret_cast<float*>(out_ + (g * n_.v_slices + y) * 2 * kTileBytes);
    if (!c.first) add_earlier(ratio_ + g * kTileRows, so_far, sums);
    if (c.last)
      store_slice(sums, inverse_ + g * kTileRows, b_.heads - g * kTileRows,
                  b_.v_width - y * kTilePairs,
                  c.result + g * kTileRows * b_.v_width + y * kTilePairs, b_.v_width);
    else
      __builtin_memcpy(so_far, sums, 2 * kTileBytes);
  }

  const SharedBlock& b_;
  const SharedAmxSizes n_;
  char *keys_, *values_, *scores_, *weights_, *q_, *out_;
  float *sums_, *largest_, *sum_, *ratio_, *inverse_;
  const Bf16 **k_rows_, **v_rows_;
  Ahead ahead_{};
  RowsAhead values_ahead_{};
};

inline int64_t shared_amx_scratch(const SharedBlock& b) {
  return SharedAmxSizes(b).total() / int64_t{sizeof(float)};
}

inline void shared_amx_forward(const SharedBlock& b) {
  SharedAmx(b).forward();
}

}  // namespace dsa::cpu
