#pragma once

// Small matrix products by a block, out of shared memory and in full precision.
//
// A thread makes tiles of 4 x 4 numbers, over 4 terms at a time: 8 accesses of 16 bytes for 64 multiplications.
// Operands have 4 m terms, rows and columns; what lies beyond a matrix is 0 where it is a term, and anything elsewhere.
// Where there are fewer tiles than threads, several threads share the terms of a tile, and their sums are added in a
// fixed order.

#include "cuda/numbers.h"

namespace fastdraw {

constexpr int kTile = 4;

FASTDRAW_HD constexpr int tiles(int n) { return static_cast<int>(divide_up(n, kTile)); }
FASTDRAW_HD constexpr int whole_tiles(int n) { return tiles(n) * kTile; }

// The length of a row of n numbers in shared memory: an odd number of units of 16 bytes, so that what neighbouring
// threads load from neighbouring rows lies in different banks.
template <typename A>
FASTDRAW_HD constexpr int padded(int n) {
  constexpr int kUnit = kVectorBytes / static_cast<int>(sizeof(A));
  return (whole_tiles(n) / kUnit | 1) * kUnit;
}
static_assert(padded<float>(1) == 4 && padded<float>(8) == 12 && padded<float>(9) == 12 && padded<double>(8) == 10);

// Four neighbours in shared memory.
template <typename A>
FASTDRAW_DEVICE void load_four(const A* from, A (&four)[kTile]) {
  constexpr int kVec = kVectorBytes / sizeof(A);
#pragma unroll
  for (int first = 0; first < kTile; first += kVec) {
    const auto pack = load<kVec>(from, first);
#pragma unroll
    for (int q = 0; q < kVec; ++q) four[first + q] = pack.lane[q];
  }
}

template <typename A>
FASTDRAW_DEVICE void store_four(A* to, const A (&four)[kTile]) {
  constexpr int kVec = kVectorBytes / sizeof(A);
#pragma unroll
  for (int first = 0; first < kTile; first += kVec) {
    Pack<A, kVec> pack;
#pragma unroll
    for (int q = 0; q < kVec; ++q) pack.lane[q] = four[first + q];
    store(to, first, pack);
  }
}

// An operand whose number x of term k lies at x + k ld. A thread has four neighbouring x.
template <typename A>
struct Across {
  const A* from;
  int ld;

  FASTDRAW_DEVICE int x(int tile, int q) const { return kTile * tile + q; }
  FASTDRAW_DEVICE void load(int tile, int k, A (&terms)[kTile][kTile]) const {
#pragma unroll
    for (int p = 0; p < kTile; ++p) load_four(from + (k + p) * ld + kTile * tile, terms[p]);
  }
};

// An operand whose number x of term k lies at x ld + k. Neighbouring threads have neighbouring x.
template <typename A>
struct Along {
  const A* from;
  int ld, apart;  // the number of tiles

  FASTDRAW_DEVICE int x(int tile, int q) const { return tile + q * apart; }
  FASTDRAW_DEVICE void load(int tile, int k, A (&terms)[kTile][kTile]) const {
#pragma unroll
    for (int q = 0; q < kTile; ++q) {
      A four[kTile];
      load_four(from + x(tile, q) * ld + k, four);
#pragma unroll
      for (int p = 0; p < kTile; ++p) terms[p][q] = four[p];
    }
  }
};

// How threads share a product of (m, depth) and (depth, n): known before the launch, because it takes divisions.
struct Sharing {
  static constexpr int kBytes = 16 << 10;  // for the sums of threads that share a tile

  int steps, slices;       // of four terms; the threads of a tile, who take a step in turn
  Divisor columns, count;  // tiles in a row, and altogether

  template <typename A>
  static Sharing of(int m, int n, int depth) {
    constexpr int kSums = kBytes / static_cast<int>(kTile * kTile * sizeof(A));
    const int count = tiles(m) * tiles(n), steps = tiles(depth);
    // Fewer than two steps are not worth another sum.
    const int slices = std::max(1, std::min(kSums / count, (steps + 1) / 2));
    return {steps, slices, Divisor(tiles(n)), Divisor(count)};
  }
};

// store(i, j tile, four) for each row i < whole_tiles(m) and each four columns right.x(j tile, 0..3), with
// four = sum_k left[i][k] right[k][j] over k < depth. It may not write what left and right read. partials: memory of
// Sharing::kBytes.
template <typename A, typename Left, typename Right, typename Store>
FASTDRAW_DEVICE void multiply(
    const Block& block, const Sharing& by, const Left& left, const Right& right, A* partials, const Store& store) {
  const int shares = by.count.by * by.slices;
  block.each(shares, [&](int share) {
    const int slice = by.count.quotient(share), tile = by.count.rest(share);
    const int row = by.columns.quotient(tile), column = by.columns.rest(tile);
    A sums[kTile][kTile]{};
    for (int step = slice; step < by.steps; step += by.slices) {
      A a[kTile][kTile], b[kTile][kTile];
      left.load(row, step * kTile, a);
      right.load(column, step * kTile, b);
#pragma unroll
      for (int k = 0; k < kTile; ++k) {
#pragma unroll
        for (int i = 0; i < kTile; ++i) {
#pragma unroll
          for (int j = 0; j < kTile; ++j) sums[i][j] += a[k][i] * b[k][j];
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      if (by.slices == 1) {
        store(left.x(row, i), column, sums[i]);
      } else {
        store_four(partials + (i * shares + share) * kTile, sums[i]);
      }
    }
  });
  if (by.slices == 1) return;
  block.each(kTile * by.count.by, [&](int line) {
    const int i = by.count.quotient(line), tile = by.count.rest(line);
    A sum[kTile]{};
    for (int slice = 0; slice < by.slices; ++slice) {
      A part[kTile];
      load_four(partials + (i * shares + slice * by.count.by + tile) * kTile, part);
#pragma unroll
      for (int j = 0; j < kTile; ++j) sum[j] += part[j];
    }
    store(left.x(by.columns.quotient(tile), i), by.columns.rest(tile), sum);
  });
}

}  // namespace fastdraw
