// The members of Avx512 (simd_avx512.h, where they are described) in the vector types of g++ and
// clang: SSE2 on any x86-64, NEON on ARM. The kernels' reference on machines without AVX2.
#pragma once
#include <cstdint>
#include <cstring>

namespace dsa::cpu {

struct Portable {
  typedef float Reg __attribute__((vector_size(16)));
  typedef int32_t Int __attribute__((vector_size(16)));
  struct Mask {
    Int lanes;  ///< -1 or 0
  };
  static constexpr int64_t kWidth = 4;

  static Reg zero() { return Reg{0, 0, 0, 0}; }
  static Reg set1(float x) { return Reg{x, x, x, x}; }
  static Reg load(const float* p) {
    Reg x;
    memcpy(&x, p, sizeof x);
    return x;
  }
  static Reg load(const float* p, Mask m) {
    Reg x = zero();
    for (int i = 0; i < kWidth; ++i)
      if (m.lanes[i] != 0) x[i] = p[i];
    return x;
  }
  static void store(float* p, Reg x) { memcpy(p, &x, sizeof x); }
  static void store(float* p, Reg x, Mask m) {
    for (int i = 0; i < kWidth; ++i)
      if (m.lanes[i] != 0) p[i] = x[i];
  }
  static Reg add(Reg a, Reg b) { return a + b; }
  static Reg sub(Reg a, Reg b) { return a - b; }
  static Reg mul(Reg a, Reg b) { return a * b; }
  static Reg div(Reg a, Reg b) { return a / b; }
  static Reg fma(Reg a, Reg b, Reg c) { return a * b + c; }
  static Reg max(Reg a, Reg b) { return a > b ? a : b; }
  static Reg min(Reg a, Reg b) { return a < b ? a : b; }
  static Mask gt(Reg a, Reg b) { return {Int(a > b)}; }
  static Mask not_le(Reg a, Reg b) { return {~Int(a <= b)}; }
  static Mask eq(Reg a, Reg b) { return {Int(a == b)}; }
  static Reg keep(Mask m, Reg x) { return as_float(m.lanes & as_int(x)); }
  static Reg blend(Mask m, Reg yes, Reg no) { return m.lanes ? yes : no; }
  static float reduce_add(Reg x) { return (x[0] + x[2]) + (x[1] + x[3]); }
  static float reduce_max(Reg x) {
    const Reg y = max(x, Reg{x[2], x[3], x[0], x[1]});
    return y[0] > y[1] ? y[0] : y[1];
  }
  static float reduce_min(Reg x) {
    const Reg y = min(x, Reg{x[2], x[3], x[0], x[1]});
    return y[0] < y[1] ? y[0] : y[1];
  }

  static Mask first(int64_t n) {
    const int32_t lanes = n >= kWidth ? int32_t{kWidth} : static_cast<int32_t>(n);
    return {Int(iset1(lanes) > iota())};
  }
  static uint32_t bits(Mask m) {
    return (m.lanes[0] & 1u) | (m.lanes[1] & 2u) | (m.lanes[2] & 4u) | (m.lanes[3] & 8u);
  }
  static Mask from_bits(uint32_t b) {
    const Int one_bit = {1, 2, 4, 8};
    return {Int((iset1(static_cast<int32_t>(b)) & one_bit) == one_bit)};
  }
  static Mask both(Mask a, Mask b) { return {a.lanes & b.lanes}; }
  static Mask either(Mask a, Mask b) { return {a.lanes | b.lanes}; }
  static int64_t popcount(Mask m) { return __builtin_popcount(bits(m)); }

  static Int iset1(int32_t x) { return Int{x, x, x, x}; }
  static Int iload(const int32_t* p) {
    Int x;
    memcpy(&x, p, sizeof x);
    return x;
  }
  static void istore(int32_t* p, Int x) { memcpy(p, &x, sizeof x); }
  static Int iota() { return Int{0, 1, 2, 3}; }
  static Int iadd(Int a, Int b) { return a + b; }
  static Int imul(Int a, Int b) {
    return reinterpret_cast<Int>(reinterpret_cast<Unsigned>(a) * reinterpret_cast<Unsigned>(b));
  }
  static Int ixor(Int a, Int b) { return a ^ b; }
  static Int imax(Int a, Int b) { return a > b ? a : b; }
  static Int imin(Int a, Int b) { return a < b ? a : b; }
  static Mask igt(Int a, Int b) { return {Int(a > b)}; }
  static Mask ieq(Int a, Int b) { return {Int(a == b)}; }
  template <int n>
  static Int shift_left(Int x) {
    return reinterpret_cast<Int>(reinterpret_cast<Unsigned>(x) << n);
  }
  template <int n>
  static Int shift_right(Int x) {
    return reinterpret_cast<Int>(reinterpret_cast<Unsigned>(x) >> n);
  }
  template <int n>
  static Int shift_right_signed(Int x) {
    return x >> n;
  }
  static Int count(Int total, Mask m) { return total - m.lanes; }
  static int64_t ireduce_add(Int x) { return int64_t{x[0]} + x[1] + x[2] + x[3]; }
  static Int as_int(Reg x) { return reinterpret_cast<Int>(x); }
  static Reg as_float(Int x) { return reinterpret_cast<Reg>(x); }

  static void compress_store(float* p, Mask m, Reg x) {
    int next = 0;
    for (int i = 0; i < kWidth; ++i) {
      p[next] = x[i];
      next += m.lanes[i] & 1;
    }
  }
  static void compress_store(int32_t* p, Mask m, Int x) {
    int next = 0;
    for (int i = 0; i < kWidth; ++i) {
      p[next] = x[i];
      next += m.lanes[i] & 1;
    }
  }

  static void compress_store_few(float* p, Mask m, Reg x) { compress_store(p, m, x); }
  static void compress_store_few(int32_t* p, Mask m, Int x) { compress_store(p, m, x); }

  static Reg sum_each(const Reg (&a)[4]) {
    return Reg{reduce_add(a[0]), reduce_add(a[1]), reduce_add(a[2]), reduce_add(a[3])};
  }

 private:
  typedef uint32_t Unsigned __attribute__((vector_size(16)));
};

}  // namespace dsa::cpu
