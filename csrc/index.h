// Index arithmetic of contiguous arrays, the same on the host and on the device. Offsets are in elements.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define FASTDRAW_HD __host__ __device__
#else
#define FASTDRAW_HD
#endif

namespace fastdraw {

FASTDRAW_HD constexpr int64_t round_up(int64_t size, int64_t multiple) {
  return (size + multiple - 1) / multiple * multiple;
}
static_assert(round_up(0, 16) == 0 && round_up(1, 16) == 16 && round_up(16, 16) == 16 && round_up(17, 16) == 32);

FASTDRAW_HD constexpr int64_t divide_up(int64_t size, int64_t by) { return (size + by - 1) / by; }
FASTDRAW_HD constexpr int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

// Division by a number that is known before the launch: two instructions, where a GPU takes some twenty for any other.
// Exact for n >= 0 with n * by < 2^31.
struct Divisor {
  int by;
  uint32_t factor;

  FASTDRAW_HD constexpr Divisor() : Divisor(1) {}
  FASTDRAW_HD constexpr explicit Divisor(int by)
      : by(by), factor((uint32_t{1} << 31) / static_cast<uint32_t>(by) + 1) {}
  FASTDRAW_HD constexpr int quotient(int n) const { return static_cast<int>(uint64_t{factor} * uint32_t(n) >> 31); }
  FASTDRAW_HD constexpr int rest(int n) const { return n - quotient(n) * by; }
};
static_assert(Divisor(1).quotient(2147483646) == 2147483646 && Divisor(1).rest(5) == 0);
static_assert(Divisor(7).quotient(306783377) == 43826196 && Divisor(7).quotient(306783378) == 43826196);
static_assert(Divisor(7).quotient(306783371) == 43826195 && Divisor(7).rest(306783371) == 6);
static_assert(Divisor(46340).quotient(46340) == 1 && Divisor(46340).quotient(46339) == 0);

// One cell of an LSTM layer, (B, U) counted row by row.
struct CellIndex {
  int64_t b, u;
};
FASTDRAW_HD constexpr CellIndex split_cell(int64_t flat, int64_t U) { return {flat / U, flat % U}; }
FASTDRAW_HD constexpr int64_t join_cell(CellIndex at, int64_t U) { return at.b * U + at.u; }
static_assert(join_cell(split_cell(int64_t{1} << 40, 7), 7) == int64_t{1} << 40);
static_assert(split_cell(399, 400).b == 0 && split_cell(400, 400).u == 0);

// Element u of a gate in (B, 4U); gate 0..3 is i, f, g, o.
FASTDRAW_HD constexpr int64_t gate_offset(CellIndex at, int gate, int64_t U) { return (at.b * 4 + gate) * U + at.u; }
static_assert(gate_offset({0, 6}, 3, 7) == 27 && gate_offset({1, 0}, 0, 7) == 28);
static_assert(gate_offset({1'000'000, 0}, 1, 1'000) == 4'000'001'000);  // beyond 2^31

// Rows of `width` elements in vectors of `lanes`; the last vector of a row may be shorter. Counted row by row.
struct RowVector {
  int64_t row, offset;
  int count;
};
FASTDRAW_HD constexpr RowVector split_rows(int64_t vector, int64_t width, int lanes) {
  const int64_t vectors = divide_up(width, lanes), first = vector % vectors * lanes;
  return {vector / vectors, vector / vectors * width + first, static_cast<int>(lesser(width - first, lanes))};
}
static_assert(split_rows(2, 9, 4).offset == 8 && split_rows(2, 9, 4).count == 1);
static_assert(split_rows(3, 9, 4).row == 1 && split_rows(3, 9, 4).offset == 9 && split_rows(3, 9, 4).count == 4);

// First element of the N x N patch of one channel in (B, parts, C, N, N): draw_read has 2 parts, the image and its
// error; glimpse_read has 1.
FASTDRAW_HD constexpr int64_t patch_offset(int64_t b, int part, int64_t c, int parts, int64_t C, int64_t N) {
  return ((b * parts + part) * C + c) * N * N;
}
static_assert(patch_offset(1, 0, 0, 2, 3, 5) == patch_offset(0, 1, 2, 2, 3, 5) + 25);

// Place of filter i in its row of N, in units of delta from the centre. N = 1: exactly the centre.
FASTDRAW_HD constexpr double filter_offset(int64_t i, int64_t N) {
  return static_cast<double>(i) - static_cast<double>(N - 1) / 2;
}
static_assert(filter_offset(0, 1) == 0 && filter_offset(0, 2) == -0.5 && filter_offset(7, 8) == 3.5);

}  // namespace fastdraw
