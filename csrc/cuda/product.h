// Small matrix products by a block, out of shared memory and in full precision.
//
// A thread makes tiles of 4 x 4 numbers, over 4 terms at a time: 8 accesses of 16 bytes for 64 multiplications.
// Operands have 4 m terms, rows and columns; what lies beyond a matrix is 0 where it is a term, and anything elsewhere.
// Where there are fewer tiles than threads, several threads share the terms of a tile, and their sums are added in a
// fixed order.
#pragma once

#include "cuda/numbers.h"

namespace fastdraw {

constexpr int kTile = 4;

FASTDRAW_HD constexpr int tiles(int n) { return (n + kTile - 1) / kTile; }
FASTDRAW_HD constexpr int whole_tiles(int n) { return tiles(n) * kTile; }

// The length of a row of n numbers in shared memory: an odd number of units of 16 bytes, so that what neighbouring
// threads load from neighbouring rows lies in different banks.
template <typename A>
FASTDRAW_HD constexpr int padded(int n) {
  constexpr int kUnit = kVectorBytes / static_cast<int>(sizeof(A));
  return (whole_tiles(n) / kUnit | 1) * kUnit;
}
static_assert(padded<float>(1) == 4 && padded<float>(8) == 12 && padded<float>(9) == 12 && padded<double>(8) == 10);

// Four neighbours, in the fewest accesses of at most 16 bytes.
template <typename T>
constexpr int kFourVec = kTile * sizeof(T) <= kVectorBytes ? kTile : static_cast<int>(kVectorBytes / sizeof(T));

template <typename T>
FASTDRAW_DEVICE void load_four(const T* from, Compute<T> (&four)[kTile]) {
#pragma unroll
  for (int first = 0; first < kTile; first += kFourVec<T>) {
    const auto pack = load<kFourVec<T>>(from, first);
#pragma unroll
    for (int q = 0; q < kFourVec<T>; ++q) four[first + q] = widen(pack.lane[q]);
  }
}

template <typename T>
FASTDRAW_DEVICE void store_four(T* to, const Compute<T> (&four)[kTile]) {
#pragma unroll
  for (int first = 0; first < kTile; first += kFourVec<T>) {
    Pack<T, kFourVec<T>> pack;
#pragma unroll
    for (int q = 0; q < kFourVec<T>; ++q) narrow(four[first + q], pack.lane[q]);
    store(to, first, pack);
  }
}

// Whether every row of `width` numbers starts where four neighbours can be loaded at once.
template <typename T>
FASTDRAW_DEVICE bool rows_of_fours(int width, const T* array) {
  return width % kTile == 0 && reinterpret_cast<uintptr_t>(array) % (kFourVec<T> * sizeof(T)) == 0;
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

// Memory for the sums of threads that share tiles.
template <typename A>
class Partials {
  static constexpr int kBytes = 16 << 10, kSums = kBytes / static_cast<int>(kTile * kTile * sizeof(A));
  A* sums_;

 public:
  FASTDRAW_HD explicit Partials(Arena& arena) : sums_(arena.take<A>(kSums * kTile * kTile)) {}

  // By how many threads the terms of a tile are shared. Fewer than two steps are not worth another sum.
  FASTDRAW_DEVICE int slices(int tiles, int steps) const {
    const int most = kSums / tiles, useful = (steps + 1) / 2;
    return most < 1 ? 1 : most < useful ? most : useful;
  }
  FASTDRAW_DEVICE A* at(int place) const { return sums_ + place * kTile; }
};

// store(i, j tile, four) for each row i < whole_tiles(m) and each four columns right.x(j tile, 0..3), with
// four = sum_k left[i][k] right[k][j] over k < depth. It may not write what left and right read.
template <typename A, typename Left, typename Right, typename Store>
FASTDRAW_DEVICE void multiply(
    const Block& block, int m, int n, int depth, const Left& left, const Right& right, const Partials<A>& partials,
    const Store& store) {
  const int columns = tiles(n), count = tiles(m) * columns, steps = tiles(depth);
  const int slices = partials.slices(count, steps);
  const int shares = count * slices;
  block.each(shares, [&](int share) {
    const int tile = share % count, slice = share / count;
    const int row = tile / columns, column = tile % columns;
    A sums[kTile][kTile]{};
    for (int step = slice; step < steps; step += slices) {
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
      if (slices == 1) {
        store(left.x(row, i), column, sums[i]);
      } else {
        store_four(partials.at(i * shares + share), sums[i]);
      }
    }
  });
  if (slices == 1) return;
  block.each(kTile * count, [&](int line) {
    const int i = line / count, tile = line % count;
    A sum[kTile]{};
    for (int slice = 0; slice < slices; ++slice) {
      A share[kTile];
      load_four(partials.at(i * shares + slice * count + tile), share);
#pragma unroll
      for (int j = 0; j < kTile; ++j) sum[j] += share[j];
    }
    store(left.x(tile / columns, i), tile % columns, sum);
  });
}

}  // namespace fastdraw
