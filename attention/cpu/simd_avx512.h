// AVX-512 as a struct: what every kernel template is written against. Include it only from files
// compiled with the AVX-512 flags of CMakeLists.txt. Everything here is a static member of Avx512,
// so no other translation unit can pick up a copy of it.
#pragma once
#include <cstdint>
#include <immintrin.h>

namespace dsa::cpu {

struct Avx512 {
  using Reg = __m512;
  using Int = __m512i;
  using Mask = __mmask16;
  static constexpr int64_t kWidth = 16;

  static Reg zero() { return _mm512_setzero_ps(); }
  static Reg set1(float x) { return _mm512_set1_ps(x); }
  static Reg load(const float* p) { return _mm512_loadu_ps(p); }
  static Reg load(const float* p, Mask m) { return _mm512_maskz_loadu_ps(m, p); }
  static void store(float* p, Reg x) { _mm512_storeu_ps(p, x); }
  static void store(float* p, Reg x, Mask m) { _mm512_mask_storeu_ps(p, m, x); }
  static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
  static Reg sub(Reg a, Reg b) { return _mm512_sub_ps(a, b); }
  static Reg mul(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
  static Reg div(Reg a, Reg b) { return _mm512_div_ps(a, b); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }  ///< a * b + c
  static Reg max(Reg a, Reg b) { return _mm512_max_ps(a, b); }
  static Reg min(Reg a, Reg b) { return _mm512_min_ps(a, b); }
  static Mask gt(Reg a, Reg b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
  static Mask not_le(Reg a, Reg b) {  ///< a > b, or one is NaN
    return _mm512_cmp_ps_mask(a, b, _CMP_NLE_UQ);
  }
  static Mask eq(Reg a, Reg b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
  static Reg keep(Mask m, Reg x) { return _mm512_maskz_mov_ps(m, x); }  ///< zero elsewhere
  static Reg blend(Mask m, Reg yes, Reg no) { return _mm512_mask_blend_ps(m, no, yes); }
  static float reduce_add(Reg x) { return _mm512_reduce_add_ps(x); }
  static float reduce_max(Reg x) { return _mm512_reduce_max_ps(x); }
  static float reduce_min(Reg x) { return _mm512_reduce_min_ps(x); }

  /// The upper halves of kWidth floats: to registers, and back from rounded bits.
  static Reg load_upper(const uint16_t* p) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return as_float(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }
  static void store_upper(uint16_t* p, Int x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(x, 16)));
  }

  static Mask first(int64_t n) {  ///< the first n lanes, n from 0 to kWidth (or more: all)
    return n >= kWidth ? Mask(0xffff) : Mask((1u << n) - 1u);
  }
  static uint32_t bits(Mask m) { return m; }  ///< lane i is bit i
  static Mask from_bits(uint32_t b) { return Mask(b); }
  static Mask both(Mask a, Mask b) { return Mask(a & b); }
  static Mask either(Mask a, Mask b) { return Mask(a | b); }
  static int64_t popcount(Mask m) { return __builtin_popcount(m); }

  static Int iset1(int32_t x) { return _mm512_set1_epi32(x); }
  static Int iload(const int32_t* p) { return _mm512_loadu_si512(p); }
  static void istore(int32_t* p, Int x) { _mm512_storeu_si512(p, x); }
  static Int iota() {
    return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  }
  static Int iadd(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static Int imul(Int a, Int b) { return _mm512_mullo_epi32(a, b); }  ///< lower half
  static Int ixor(Int a, Int b) { return _mm512_xor_si512(a, b); }
  static Int imax(Int a, Int b) { return _mm512_max_epi32(a, b); }
  static Int imin(Int a, Int b) { return _mm512_min_epi32(a, b); }
  static Mask igt(Int a, Int b) { return _mm512_cmpgt_epi32_mask(a, b); }
  static Mask ieq(Int a, Int b) { return _mm512_cmpeq_epi32_mask(a, b); }
  template <int n>
  static Int shift_left(Int x) {
    return _mm512_slli_epi32(x, n);
  }
  template <int n>
  static Int shift_right(Int x) {  ///< unsigned
    return _mm512_srli_epi32(x, n);
  }
  template <int n>
  static Int shift_right_signed(Int x) {
    return _mm512_srai_epi32(x, n);
  }
  static Int count(Int total, Mask m) {  ///< total + 1 in the lanes of m
    return _mm512_mask_add_epi32(total, m, total, _mm512_set1_epi32(1));
  }
  static int64_t ireduce_add(Int x) { return _mm512_reduce_add_epi32(x); }
  static Int as_int(Reg x) { return _mm512_castps_si512(x); }    ///< same bits
  static Reg as_float(Int x) { return _mm512_castsi512_ps(x); }  ///< same bits

  /// Writes the lanes of m side by side. All kWidth places at p are overwritten (register
  /// compress + full store: the memory form of vpcompress is slow on Zen 4).
  static void compress_store(float* p, Mask m, Reg x) {
    _mm512_storeu_ps(p, _mm512_maskz_compress_ps(m, x));
  }
  static void compress_store(int32_t* p, Mask m, Int x) {
    _mm512_storeu_si512(p, _mm512_maskz_compress_epi32(m, x));
  }

  /// Lane j of a[i] and lane i of a[j] change places.
  [[gnu::always_inline]] static void transpose(Reg (&a)[16]) {
    __m512i b[16], c[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      b[2 * i] = as_int(_mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]));
      b[2 * i + 1] = as_int(_mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        c[4 * i + 2 * j] = _mm512_unpacklo_epi64(b[4 * i + j], b[4 * i + j + 2]);
        c[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(b[4 * i + j], b[4 * i + j + 2]);
      }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m512i d0 = _mm512_shuffle_i32x4(c[j], c[4 + j], 0x88);
      const __m512i d1 = _mm512_shuffle_i32x4(c[j], c[4 + j], 0xdd);
      const __m512i d2 = _mm512_shuffle_i32x4(c[8 + j], c[12 + j], 0x88);
      const __m512i d3 = _mm512_shuffle_i32x4(c[8 + j], c[12 + j], 0xdd);
      a[j] = as_float(_mm512_shuffle_i32x4(d0, d2, 0x88));
      a[4 + j] = as_float(_mm512_shuffle_i32x4(d1, d3, 0x88));
      a[8 + j] = as_float(_mm512_shuffle_i32x4(d0, d2, 0xdd));
      a[12 + j] = as_float(_mm512_shuffle_i32x4(d1, d3, 0xdd));
    }
  }

  /// The same for at most kWidth / 2 lanes, which may overwrite fewer places: stores of whole registers
  /// that cross a cache line cost almost three cycles.
  static void compress_store_few(float* p, Mask m, Reg x) {
    _mm256_storeu_ps(p, _mm512_castps512_ps256(_mm512_maskz_compress_ps(m, x)));
  }
  static void compress_store_few(int32_t* p, Mask m, Int x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_castsi512_si256(_mm512_maskz_compress_epi32(m, x)));
  }

  /// Lane i of the result is the sum of the lanes of a[i].
  [[gnu::always_inline]] static Reg sum_each(const Reg (&a)[16]) {
    Reg b[8], c[4];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i)
      b[i] = add(_mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]),
                 _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]));
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m512d x = _mm512_castps_pd(b[2 * i]), y = _mm512_castps_pd(b[2 * i + 1]);
      c[i] = add(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                 _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
    }
    const Reg d0 = add_128bit_pairs(c[0], c[1]), d1 = add_128bit_pairs(c[2], c[3]);
    return add_128bit_pairs(d0, d1);
  }

 private:
  [[gnu::always_inline]] static Reg add_128bit_pairs(Reg a, Reg b) {
    return add(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  }
};

}  // namespace dsa::cpu
