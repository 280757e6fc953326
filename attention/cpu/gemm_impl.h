// Small matrix products of the indexer's backward passes, for any ISA:
//   c[m][:] += sum_p a[m * a_row + p * a_column] * rows(p)[:]
// with the sum over p in ascending order, whatever the tiling: bits do not depend on it.
#pragma once
#include <cstdint>

namespace dsa::cpu {

/// Rows of a matrix one after the other.
struct ConsecutiveRows {
  const float* first;
  int64_t width;
};

/// Rows picked by id, `stride` floats apart.
struct PickedRows {
  const float* first;
  int64_t width;
  const int32_t* ids;
  int64_t stride;
};

template <class Isa>
struct Gemm {
  using Reg = typename Isa::Reg;
  using Mask = typename Isa::Mask;
  static constexpr int64_t kWidth = Isa::kWidth;
  static constexpr int64_t kVectors = kWidth == 16 ? 4 : 2;  // with 4 rows: the registers there are

  static const float* row(const ConsecutiveRows& rows, int64_t p) {
    return rows.first + p * rows.width;
  }
  static const float* row(const PickedRows& rows, int64_t p) {
    return rows.first + rows.ids[p] * rows.stride;
  }

  struct Left {
    const float* a;
    int64_t row, column;
  };

  template <int64_t kRows, int64_t kColumns, class Rows>
  static void tile(Left left, const Rows& rows, int64_t terms, int64_t column, float* c,
                   int64_t ldc) {
    Reg sum[kRows][kColumns];
#pragma GCC unroll 4
    for (int64_t m = 0; m < kRows; ++m)
#pragma GCC unroll 4
      for (int64_t v = 0; v < kColumns; ++v)
        sum[m][v] = Isa::load(c + m * ldc + column + v * kWidth);
    for (int64_t p = 0; p < terms; ++p) {
      const float* b = row(rows, p) + column;
      Reg x[kColumns];
#pragma GCC unroll 4
      for (int64_t v = 0; v < kColumns; ++v) x[v] = Isa::load(b + v * kWidth);
#pragma GCC unroll 4
      for (int64_t m = 0; m < kRows; ++m) {
        const Reg factor = Isa::set1(left.a[m * left.row + p * left.column]);
#pragma GCC unroll 4
        for (int64_t v = 0; v < kColumns; ++v) sum[m][v] = Isa::fma(factor, x[v], sum[m][v]);
      }
    }
#pragma GCC unroll 4
    for (int64_t m = 0; m < kRows; ++m)
#pragma GCC unroll 4
      for (int64_t v = 0; v < kColumns; ++v)
        Isa::store(c + m * ldc + column + v * kWidth, sum[m][v]);
  }

  /// The last width % kWidth columns.
  template <int64_t kRows, class Rows>
  static void edge(Left left, const Rows& rows, int64_t terms, int64_t column, float* c,
                   int64_t ldc) {
    const Mask valid = Isa::first(rows.width - column);
    Reg sum[kRows];
#pragma GCC unroll 4
    for (int64_t m = 0; m < kRows; ++m) sum[m] = Isa::load(c + m * ldc + column, valid);
    for (int64_t p = 0; p < terms; ++p) {
      const Reg x = Isa::load(row(rows, p) + column, valid);
#pragma GCC unroll 4
      for (int64_t m = 0; m < kRows; ++m)
        sum[m] = Isa::fma(Isa::set1(left.a[m * left.row + p * left.column]), x, sum[m]);
    }
#pragma GCC unroll 4
    for (int64_t m = 0; m < kRows; ++m) Isa::store(c + m * ldc + column, sum[m], valid);
  }

  template <int64_t kRows, class Rows>
  static void strip(Left left, const Rows& rows, int64_t terms, float* c) {
    const int64_t width = rows.width;
    int64_t column = 0;
    for (; column + kVectors * kWidth <= width; column += kVectors * kWidth)
      tile<kRows, kVectors>(left, rows, terms, column, c, width);
    for (; column + kWidth <= width; column += kWidth)
      tile<kRows, 1>(left, rows, terms, column, c, width);
    if (column < width) edge<kRows>(left, rows, terms, column, c, width);
  }

  /// c [count][width] += left [count][terms] * rows [terms][width]
  template <class Rows>
  static void accumulate(Left left, int64_t count, const Rows& rows, int64_t terms, float* c) {
    int64_t m = 0;
    for (; m + 4 <= count; m += 4) {
      strip<4>({left.a + m * left.row, left.row, left.column}, rows, terms, c + m * rows.width);
    }
    for (; m < count; ++m) {
      strip<1>({left.a + m * left.row, left.row, left.column}, rows, terms, c + m * rows.width);
    }
  }
};

}  // namespace dsa::cpu
