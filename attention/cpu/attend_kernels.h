// Raw kernels of sparse attention, one or some kv heads a call. Rows of k and v (and of q and dout in the
// backward pass) are packed: one head, [tokens][padded width], the padding zero. `padded` is the
// width rounded up to `lanes`. ids are a selection's: [queries][top_k], ascending, valid ones first.
#pragma once
#include "attention/cpu/kernels.h"

namespace dsa::cpu {

/// How the forward pass works where few heads share a kv head: neighbouring queries (16 in bfloat16, 32 in
/// float32) against all keys that they selected together, or every query by itself.
enum class NarrowChoice : int32_t { kMeasured, kUnion, kAlone };

/// A block of queries and the heads that share one kv head.
struct QueryBlock {
  bool bf16;        ///< element type of q and out; float32 otherwise
  const void* q;    ///< first query, first head; heads side by side, `width` elements each
  int64_t q_token;  ///< elements from one query to the next
  int64_t queries;
  int64_t heads;   ///< query heads of this kv head
  int64_t width;   ///< D, as stored in q
  int64_t padded;  ///< D in the packed k
  const float* k;  ///< packed [S][padded]
  const int32_t* ids;
  const int32_t* counts;
  int64_t top_k;
  float scale;
  int64_t keys;
  int32_t panel_shift;  ///< 1 << panel_shift keys are walked at a time, their rows in the L2 cache
  int32_t* order;       ///< query_order_words(block) words, filled by query_order; null: made in scratch
  float* scratch;       ///< of the size the kernel's *_scratch function gives, in floats
};

/// Some kv heads, one after the other: what is made of the ids serves all of them.
struct ForwardBlock {
  QueryBlock query;  ///< of the first kv head; rows of the next begin `keys` rows later
  int64_t kv_heads;
  const float* v;   ///< packed [S][v_padded]
  int64_t v_width;  ///< V, as stored in out
  int64_t v_padded;
  void* out;  ///< first query, first head; heads side by side
  int64_t out_token;
  float* lse;  ///< natural logarithm; heads side by side
  int64_t lse_token;
};

/// A block of queries and the heads that share one kv head, where those are many.
struct SharedBlock {
  const void* q;    ///< first query, [heads][width]
  int64_t q_token;  ///< elements from one query to the next
  int64_t queries;
  int64_t heads, width, v_width;
  const void* k;               ///< row of key 0
  const void* v;               ///< k itself where a row of values is the beginning of one of keys
  int64_t k_stride, v_stride;  ///< elements from one key's row to the next
  const int32_t* ids;
  const int32_t* counts;
  int64_t top_k;
  float scale;
  void* out;  ///< first query, [heads][v_width]
  int64_t out_token;
  float* lse;  ///< natural logarithm; heads side by side
  int64_t lse_token;
  float* scratch;  ///< of the size SharedKernel::scratch gives, in floats; at a cache line
};

/// Heads from which packing the rows for a dense product pays in float32.
inline constexpr int64_t kSharedFloatHeads = 16;
/// The same where pairs of bfloat16 are multiplied in one step.
inline constexpr int64_t kSharedBfloatHeads = 8;

/// For one element type of q, k, v and out.
struct SharedKernel {
  int64_t (*scratch)(const SharedBlock&);
  void (*forward)(const SharedBlock&);
};

/// Rows of one batch element, packed for every kv head: in bfloat16, or as SplitKernel says. Widths are
/// padded to 32 and keys to 32, with zeros.
struct NarrowRows {
  int64_t keys, padded, v_padded;
  void* k;            ///< [kv_heads][keys][padded]
  void* v;            ///< [kv_heads][keys][v_padded]
  uint32_t* v_pairs;  ///< [kv_heads][keys / 2][v_padded], columns in the kernel's order
};

/// Some keys of one kv head, as tensors hold them.
struct NarrowSource {
  const void *k, *v;           ///< row of key `begin`
  int64_t k_stride, v_stride;  ///< elements from one key's row to the next
  int64_t width, v_width;
  int64_t kv_head;
  int64_t begin, end;  ///< keys; begin is a multiple of 32, end too or the last key's successor
};

/// A block of queries of one batch element and some of its heads.
struct NarrowBlock {
  const void* q;  ///< first query, first of all heads; heads side by side, `width` elements each
  int64_t q_token;
  int64_t queries, group, width, v_width;  ///< group: query heads of a kv head
  int64_t kv_begin, kv_end;                ///< kv heads to do
  NarrowRows rows;
  const int32_t* ids;  ///< [queries][top_k]
  const int32_t* counts;
  int64_t top_k;
  float scale;
  void* out;  ///< first query, first of all heads; heads side by side
  int64_t out_token;
  float* lse;
  int64_t lse_token;
  bool finite;  ///< all of k and v: only then may rows that a query did not select be touched
  NarrowChoice choice;
  void* scratch;  ///< of as many bytes as the kernel's `scratch` says
};

/// Which way a block goes, and why: what 16 or 32 queries in its middle have selected.
struct NarrowFacts {
  bool by_union;
  int64_t pairs;     ///< selected (query, key) pairs of those queries
  int64_t together;  ///< keys they select together
};

struct NarrowKernel {
  int64_t (*scratch)(const NarrowBlock&);
  bool (*pack)(const NarrowSource&, const NarrowRows&);  ///< whether all is finite
  NarrowFacts (*forward)(const NarrowBlock&);
};

/// float32 as sums of three bfloat16, 32 neighbouring queries together. In NarrowBlock rows.k and rows.v
/// are [kv_heads][keys / 32] tiles of kSplitRowBytes a row and 32 columns; `finite` and `choice` are the
/// caller's.
struct SplitKernel {
  int64_t (*scratch)(const NarrowBlock&);
  NarrowFacts (*facts)(const NarrowBlock&);  ///< of 32 queries in its middle
  bool (*pack)(const NarrowSource&,
               const NarrowRows&);      ///< false: some numbers are beyond the terms
  bool (*forward)(const NarrowBlock&);  ///< false: those of q are, and nothing is written
};
inline constexpr int64_t kSplitRowBytes = 192;

struct MassBlock {
  QueryBlock query;
  const float* lse;  ///< of the forward pass
  int64_t lse_token;
  float weight;  ///< of one head in the mean
  float* mass;   ///< [queries][top_k]; the heads are added to it
};

/// One head of the backward pass: a range of centres, each with its list of neighbours. Centres
/// are queries and neighbours keys (query_grads), or the other way round (key_grads).
struct GradBlock {
  int64_t begin, end;         ///< centres
  const float* centre_qk;     ///< packed q (or k)
  const float* centre_v;      ///< packed dout (or v)
  const float* neighbour_qk;  ///< packed k (or q)
  const float* neighbour_v;   ///< packed v (or dout)
  int64_t padded, v_padded;
  const int64_t* first;  ///< ids of centre c: ids[first[c]] to ids[first[c] + count[c]]
  const int32_t* count;
  const int32_t* ids;  ///< ascending neighbours
  const float* lse2;   ///< of each query, to base 2
  const float* delta;  ///< of each query: dout . out
  float scale;
  int64_t neighbours;
  int32_t panel_shift;  ///< 1 << panel_shift neighbours are walked at a time
  float* grad_qk;       ///< [centres][padded], added to: dq (or dk)
  float* grad_v;        ///< [centres][v_padded], added to: dv; query_grads leaves it alone
  int32_t* order;  ///< grad_order_words(block) words, filled by grad_order; the same for every head
};

/// Rows as tensors hold them, float32 or bfloat16, to and from packed float32 rows. Strides count
/// elements.
struct RowKernels {
  /// dst[i][0..padded) = src[i * stride][0..width) and zeros.
  void (*pack)(const void* src, int64_t stride, int64_t rows, int64_t width, int64_t padded,
               float* dst);
  /// dst[i * stride][0..width) = src[i][0..width)
  void (*unpack)(const float* src, int64_t padded, int64_t rows, int64_t width, void* dst,
                 int64_t stride);
  /// out[i] = a[i * stride][0..width) . b[i * stride][0..width)
  void (*dots)(const void* a, const void* b, int64_t stride, int64_t rows, int64_t width,
               float* out);
};

struct AttendKernels {
  int64_t lanes;  ///< floats in a register

  RowKernels float32, bfloat16;
  const RowKernels& rows(bool bf16) const { return bf16 ? bfloat16 : float32; }

  /// out[i] = 2^x[i]: the softmax's exponential, here so that tests can reach it.
  void (*exp2_row)(const float* x, int64_t n, float* out);

  /// In which order a block walks its keys: the same for every head.
  int64_t (*query_order_words)(const QueryBlock&);
  void (*query_order)(const QueryBlock&);

  int64_t (*forward_scratch)(const ForwardBlock&);
  void (*forward)(const ForwardBlock&);

  SharedKernel shared_float32, shared_bfloat16;
  int64_t shared_bfloat16_heads;         ///< fewer are faster one by one
  const NarrowKernel* narrow = nullptr;  ///< null: rows of bfloat16 are widened
  const SplitKernel* split = nullptr;    ///< null: every query of float32 goes alone

  int64_t (*mass_scratch)(const MassBlock&);
  void (*mass)(const MassBlock&);

  int64_t (*grad_order_words)(const GradBlock&);
  void (*grad_order)(const GradBlock&);
  void (*query_grads)(const GradBlock&);
  void (*key_grads)(const GradBlock&);
};

extern const AttendKernels kAttendPortable;
extern const AttendKernels kAttendAvx2;
extern const AttendKernels kAttendAvx512;
extern const AttendKernels kAttendAvx512Bf16;
extern const AttendKernels kAttendAmx;

}  // namespace dsa::cpu
