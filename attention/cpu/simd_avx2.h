// AVX2 + FMA + BMI2 as a struct with the members of Avx512 (simd_avx512.h, where they are
// described). Include it only from files compiled with the AVX2 flags of CMakeLists.txt.
#pragma once
#include <cstdint>
#include <immintrin.h>

namespace dsa::cpu {

struct Avx2 {
  using Reg = __m256;
  using Int = __m256i;
  struct Mask {
    __m256 lanes;  ///< all bits of a lane set or none
  };
  static constexpr int64_t kWidth = 8;

  static Reg zero() { return _mm256_setzero_ps(); }
  static Reg set1(float x) { return _mm256_set1_ps(x); }
  static Reg load(const float* p) { return _mm256_loadu_ps(p); }
  static Reg load(const float* p, Mask m) {
    return _mm256_maskload_ps(p, _mm256_castps_si256(m.lanes));
  }
  static void store(float* p, Reg x) { _mm256_storeu_ps(p, x); }
  static void store(float* p, Reg x, Mask m) {
    _mm256_maskstore_ps(p, _mm256_castps_si256(m.lanes), x);
  }
  static Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
  static Reg sub(Reg a, Reg b) { return _mm256_sub_ps(a, b); }
  static Reg mul(Reg a, Reg b) { return _mm256_mul_ps(a, b); }
  static Reg div(Reg a, Reg b) { return _mm256_div_ps(a, b); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
  static Reg max(Reg a, Reg b) { return _mm256_max_ps(a, b); }
  static Reg min(Reg a, Reg b) { return _mm256_min_ps(a, b); }
  static Mask gt(Reg a, Reg b) { return {_mm256_cmp_ps(a, b, _CMP_GT_OQ)}; }
  static Mask not_le(Reg a, Reg b) { return {_mm256_cmp_ps(a, b, _CMP_NLE_UQ)}; }
  static Mask eq(Reg a, Reg b) { return {_mm256_cmp_ps(a, b, _CMP_EQ_OQ)}; }
  static Reg keep(Mask m, Reg x) { return _mm256_and_ps(m.lanes, x); }
  static Reg blend(Mask m, Reg yes, Reg no) { return _mm256_blendv_ps(no, yes, m.lanes); }
  static float reduce_add(Reg x) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
  static float reduce_max(Reg x) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
  }
  static float reduce_min(Reg x) {
    __m128 s = _mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_min_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_min_ss(s, _mm_movehdup_ps(s)));
  }

  static Mask first(int64_t n) {
    const int32_t lanes = n >= kWidth ? int32_t{kWidth} : static_cast<int32_t>(n);
    return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), iota()))};
  }
  static uint32_t bits(Mask m) { return static_cast<uint32_t>(_mm256_movemask_ps(m.lanes)); }
  static Mask from_bits(uint32_t b) {
    const Int one_bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const Int kept = _mm256_and_si256(_mm256_set1_epi32(static_cast<int32_t>(b)), one_bit);
    return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(kept, one_bit))};
  }
  static Mask both(Mask a, Mask b) { return {_mm256_and_ps(a.lanes, b.lanes)}; }
  static Mask either(Mask a, Mask b) { return {_mm256_or_ps(a.lanes, b.lanes)}; }
  static int64_t popcount(Mask m) { return __builtin_popcount(bits(m)); }

  static Int iset1(int32_t x) { return _mm256_set1_epi32(x); }
  static Int iload(const int32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static void istore(int32_t* p, Int x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x); }
  static Int iota() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
  static Int iadd(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int imul(Int a, Int b) { return _mm256_mullo_epi32(a, b); }
  static Int ixor(Int a, Int b) { return _mm256_xor_si256(a, b); }
  static Int imax(Int a, Int b) { return _mm256_max_epi32(a, b); }
  static Int imin(Int a, Int b) { return _mm256_min_epi32(a, b); }
  static Mask igt(Int a, Int b) { return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(a, b))}; }
  static Mask ieq(Int a, Int b) { return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b))}; }
  template <int n>
  static Int shift_left(Int x) {
    return _mm256_slli_epi32(x, n);
  }
  template <int n>
  static Int shift_right(Int x) {
    return _mm256_srli_epi32(x, n);
  }
  template <int n>
  static Int shift_right_signed(Int x) {
    return _mm256_srai_epi32(x, n);
  }
  static Int count(Int total, Mask m) {  // a set lane is -1
    return _mm256_sub_epi32(total, _mm256_castps_si256(m.lanes));
  }
  static int64_t ireduce_add(Int x) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
  }
  static Int as_int(Reg x) { return _mm256_castps_si256(x); }
  static Reg as_float(Int x) { return _mm256_castsi256_ps(x); }

  static void compress_store(float* p, Mask m, Reg x) {
    _mm256_storeu_ps(p, _mm256_permutevar8x32_ps(x, packed_lanes(m)));
  }
  static void compress_store(int32_t* p, Mask m, Int x) {
    istore(p, _mm256_permutevar8x32_epi32(x, packed_lanes(m)));
  }
  static void compress_store_few(float* p, Mask m, Reg x) {
    _mm_storeu_ps(p, _mm256_castps256_ps128(_mm256_permutevar8x32_ps(x, packed_lanes(m))));
  }
  static void compress_store_few(int32_t* p, Mask m, Int x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(x, packed_lanes(m))));
  }

  [[gnu::always_inline]] static Reg sum_each(const Reg (&a)[8]) {
    const Reg b0 = _mm256_hadd_ps(a[0], a[1]), b1 = _mm256_hadd_ps(a[2], a[3]);
    const Reg b2 = _mm256_hadd_ps(a[4], a[5]), b3 = _mm256_hadd_ps(a[6], a[7]);
    const Reg c0 = _mm256_hadd_ps(b0, b1), c1 = _mm256_hadd_ps(b2, b3);
    return add(_mm256_permute2f128_ps(c0, c1, 0x20), _mm256_permute2f128_ps(c0, c1, 0x31));
  }

 private:
  // The numbers of the set lanes, side by side: one byte a lane, widened to 32 bits.
  static Int packed_lanes(Mask m) {
    const uint64_t byte_mask = _pdep_u64(bits(m), 0x0101010101010101u) * 0xffu;
    const uint64_t lanes = _pext_u64(0x0706050403020100u, byte_mask);
    return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(lanes)));
  }
};

}  // namespace dsa::cpu
