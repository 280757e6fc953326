// Blocks of 16 queries through UnionProducts: lists, panels, heads and results.
#pragma once
#include "attention/cpu/attend_narrow.h"
#include "attention/cpu/attend_union_amx_impl.h"

namespace dsa::cpu {

/// 256 KiB to 1 MiB made no difference at L = 8192.
inline constexpr int64_t kUnionPanelBytes = int64_t{768} << 10;

/// While it lives, denormals of this thread are 0. A weight far below the largest one is such a number,
/// and one instruction that makes it takes as long as a tile without: 10655 cycles a tile where scores
/// lie between 2^-126 and 2^-149, 339 with this.
class DenormalsAreZero {
 public:
  DenormalsAreZero() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~DenormalsAreZero() { _mm_setcsr(before_); }
  DenormalsAreZero(const DenormalsAreZero&) = delete;
  DenormalsAreZero& operator=(const DenormalsAreZero&) = delete;

 private:
  unsigned before_;
};

inline int64_t whole_lines(int64_t bytes) {
  return (bytes + 63) / 64 * 64;
}

/// Sizes of one call's scratch, in bytes.
struct UnionSizes {
  int64_t blocks, panels, group, tiles;
  int64_t list, masks, head, products;

  explicit UnionSizes(const NarrowBlock& b)
      : blocks((b.queries + kUnionQueries - 1) / kUnionQueries),
        panels((b.rows.keys >> shift(b)) + 1),
        group(b.group),
        tiles(most_union_tiles(b.top_k, b.rows.keys, panels)),
        list(tiles * int64_t{sizeof(UnionTile)} + whole_lines(panels * 4)),
        masks(whole_lines(b.rows.keys * 2)),
        head(kUnionQueries * (b.rows.v_padded * 4 + b.rows.padded * 2 + 8)),
        products(UnionProducts<0, 0>::bytes(b.rows.padded / 32, b.rows.v_padded / 32)) {}

  /// Keys are walked 1 << shift at a time: their rows and the blocks' own data share the L2 cache.
  static int32_t shift(const NarrowBlock& b) {
    const int64_t bytes = 2 * (b.rows.padded + 2 * b.rows.v_padded);
    int32_t shift = 6;
    while (bytes << (shift + 1) <= kUnionPanelBytes) ++shift;
    return shift;
  }

  int64_t total() const { return masks + products + blocks * (list + group * head); }
};

template <int64_t kRegs, int64_t kValueRegs>
class UnionForward {
 public:
  explicit UnionForward(const NarrowBlock& b) : b_(b), n_(b) {
    char* at = static_cast<char*>(b.scratch);
    masks_ = reinterpret_cast<uint16_t*>(at);
    products_ = at + n_.masks;
    lists_ = products_ + n_.products;
    heads_ = lists_ + n_.blocks * n_.list;
  }

  /// The list of one block of 16 queries, in scratch.
  UnionList list_of(int64_t block) {
    clear_masks();
    make_list(block);
    return list(block);
  }

  void run() {
    clear_masks();
    for (int64_t block = 0; block < n_.blocks; ++block) make_list(block);
    const Tiles configured;
    const DenormalsAreZero flushed;
    for (int64_t g = b_.kv_begin; g < b_.kv_end; ++g) {
      for (int64_t block = 0; block < n_.blocks; ++block)
        for (int64_t h = 0; h < n_.group; ++h) begin(block, g * n_.group + h, head(block, h));
      for (int64_t panel = 0; panel < n_.panels; ++panel)
        for (int64_t block = 0; block < n_.blocks; ++block) add(panel, block, g);
      for (int64_t block = 0; block < n_.blocks; ++block)
        for (int64_t h = 0; h < n_.group; ++h) finish(block, g * n_.group + h, head(block, h));
    }
  }

 private:
  UnionList list(int64_t block) const {
    char* at = lists_ + block * n_.list;
    return {reinterpret_cast<UnionTile*>(at),
            reinterpret_cast<int32_t*>(at + n_.tiles * int64_t{sizeof(UnionTile)})};
  }

  UnionHead head(int64_t block, int64_t h) const {
    char* at = heads_ + (block * n_.group + h) * n_.head;
    UnionHead head;
    head.out = reinterpret_cast<float*>(at);
    head.top = head.out + kUnionQueries * b_.rows.v_padded;
    head.sum = head.top + kUnionQueries;
    head.q = reinterpret_cast<uint32_t*>(head.sum + kUnionQueries);
    return head;
  }

  int64_t queries_of(int64_t block) const {
    return least(kUnionQueries, b_.queries - block * kUnionQueries);
  }

  void clear_masks() {
    for (int64_t s = 0; s < n_.masks; s += 64)
      _mm512_store_si512(reinterpret_cast<char*>(masks_) + s, _mm512_setzero_si512());
  }

  void make_list(int64_t block) {
    const int64_t first = block * kUnionQueries;
    UnionLister(masks_, UnionSizes::shift(b_), n_.panels)
        .list(b_.ids + first * b_.top_k, b_.counts + first, b_.top_k, queries_of(block),
              list(block));
  }

  /// q transposed in pairs of columns; nothing summed.
  void begin(int64_t block, int64_t h, const UnionHead& head) {
    const Bf16* q =
        static_cast<const Bf16*>(b_.q) + block * kUnionQueries * b_.q_token + h * b_.width;
    const int64_t queries = queries_of(block);
    // The largest score is looked for before scaling, so the sign of a negative scale goes to q.
    const __m512i sign = _mm512_set1_epi16(b_.scale < 0 ? int16_t(-0x8000) : int16_t(0));
    for (int64_t x = 0; x < b_.rows.padded; x += 32) {
      const int64_t left = b_.width - x;
      const __mmask32 columns = columns_left(left);
      Avx512::Reg rows[16];
#pragma GCC unroll 16
      for (int64_t t = 0; t < 16; ++t)
        rows[t] = Avx512::as_float(_mm512_xor_si512(
            sign, _mm512_maskz_loadu_epi16(t < queries ? columns : 0, q + t * b_.q_token + x)));
      Avx512::transpose(rows);
#pragma GCC unroll 16
      for (int64_t j = 0; j < 16; ++j)
        Avx512::store(reinterpret_cast<float*>(head.q + (x / 2 + j) * 16), rows[j]);
    }
    for (int64_t i = 0; i < kUnionQueries * b_.rows.v_padded; i += 16)
      _mm512_store_ps(head.out + i, _mm512_setzero_ps());
    _mm512_store_ps(head.top, _mm512_set1_ps(kNoTop));
    _mm512_store_ps(head.sum, _mm512_setzero_ps());
  }

  void add(int64_t panel, int64_t block, int64_t g) {
    const UnionList tiles = list(block);
    const int64_t first = panel == 0 ? 0 : tiles.panel_ends[panel - 1];
    for (int64_t h = 0; h < n_.group; ++h)
      UnionProducts<kRegs, kValueRegs>(b_.rows, g, factor(), head(block, h), products_)
          .add(tiles.tiles + first, tiles.tiles + tiles.panel_ends[panel]);
  }

  float factor() const { return (b_.scale < 0 ? -b_.scale : b_.scale) * kLog2E; }

  void finish(int64_t block, int64_t h, const UnionHead& head) {
    for (int64_t t = 0; t < queries_of(block); ++t) {
      const int64_t query = block * kUnionQueries + t;
      const bool empty = b_.counts[query] == 0;
      const float log2_sum = factor() * head.top[t] + __builtin_log2f(head.sum[t]);
      b_.lse[query * b_.lse_token + h] = empty ? -__builtin_inff() : log2_sum * kLn2;
      store_row(head.out + t * b_.rows.v_padded, empty ? 0.0f : 1.0f / head.sum[t],
                static_cast<Bf16*>(b_.out) + query * b_.out_token + h * b_.v_width);
    }
  }

  /// Undoes the order of columns that interleave_rows made.
  void store_row(const float* sums, float inverse, Bf16* out) {
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    const __m512 by = _mm512_set1_ps(inverse);
    for (int64_t x = 0; x < b_.v_width; x += 32) {
      const __m512 a = _mm512_mul_ps(by, _mm512_load_ps(sums + x));
      const __m512 b = _mm512_mul_ps(by, _mm512_load_ps(sums + x + 16));
      store16(out + x, _mm512_permutex2var_ps(a, first, b), b_.v_width - x);
      store16(out + x + 16, _mm512_permutex2var_ps(a, second, b), b_.v_width - x - 16);
    }
  }

  const NarrowBlock& b_;
  const UnionSizes n_;
  uint16_t* masks_;
  char *products_, *lists_, *heads_;
};

}  // namespace dsa::cpu
