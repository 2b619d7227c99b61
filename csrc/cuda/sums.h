#pragma once

// Sums of many terms in an order that their number alone decides: within a kernel, and of the partial sums of its
// blocks by a kernel of its own, sums.cu.

#include "cuda/rows.h"

namespace fastdraw {

// sums[r, k] = sum_n partials[r, n, k]. Instantiated for float, double, __nv_bfloat16 and __half.
template <typename T>
void launch_sum_partials(T* sums, const Compute<T>* partials, int64_t R, int64_t N, int64_t K, cudaStream_t stream);

// The sums of rows of terms, by a kernel that computes the terms of one piece of a row in each block. Of a row that is
// one piece it writes the sum, of others partial sums.
template <typename T>
struct RowSums {
  static constexpr int kVec = kVectorBytes / sizeof(T);
  static constexpr int kPart = 256;  // terms that a warp adds up
  static constexpr int kParts = 16;  // and a block: one for each warp
  static constexpr int kPiece = kPart * kParts;
  static constexpr int kMostThreads = kWarp * kParts;

  T* sums;               // (rows)
  Compute<T>* partials;  // (rows, pieces), unless a row is one piece
  int64_t rows, width;

  FASTDRAW_HD static int64_t pieces(int64_t width) { return width > kPiece ? divide_up(width, kPiece) : 1; }
  static int64_t count_partials(int64_t rows, int64_t width) { return pieces(width) > 1 ? rows * pieces(width) : 0; }

  int64_t blocks() const { return rows * pieces(width); }
  int threads() const { return kWarp * static_cast<int>(width > 0 ? lesser(divide_up(width, kPart), kParts) : 1); }
  static size_t shared_bytes() { return kParts * sizeof(Compute<T>); }

  // term(offset, count): the sum of the terms of the elements offset..offset + count - 1, which are kVec or, at the end
  // of a row, fewer.
  template <typename Term>
  FASTDRAW_DEVICE void add_up(const Block& block, const Term& term) const {
    const int64_t row = block.index() / pieces(width), first = block.index() % pieces(width) * kPiece;
    const int elements = static_cast<int>(lesser(width - first, kPiece));
    const int parts = static_cast<int>(divide_up(elements, kPart));
    Arena arena = block.shared();
    auto* const of_parts = arena.take<Compute<T>>(kParts);
    block.each_warp(parts, [&](int part, const Warp& warp) {
      const int begin = part * kPart, size = static_cast<int>(lesser(elements - begin, kPart));
      const auto sum = warp.sum(static_cast<int>(divide_up(size, kVec)), [&](int vector) {
        const int at = vector * kVec;
        return term(row * width + first + begin + at, static_cast<int>(lesser(size - at, kVec)));
      });
      warp.each(1, [&](int) { of_parts[part] = sum; });
    });
    block.each_warp(1, [&](int, const Warp& warp) {
      const auto sum = warp.sum(parts, [&](int part) { return of_parts[part]; });
      warp.each(1, [&](int) {
        if (pieces(width) == 1) {
          narrow(sum, sums[row]);
        } else {
          partials[block.index()] = sum;
        }
      });
    });
  }

  // After the kernel.
  void finish(cudaStream_t stream) const {
    if (pieces(width) > 1) launch_sum_partials(sums, partials, rows, pieces(width), 1, stream);
  }
};

}  // namespace fastdraw
