// Matrix products whose right-hand side, usually a weight, is used many times and is therefore packed once.
//
// A packed matrix (K, N) lies in panels of one cache line of columns, (N / kPanel, K, kPanel), so that a product reads
// it from beginning to end. Tiles of a few rows by one or more panels stay in registers along a whole block of k. Every
// element of a product is summed in the order of k, whatever tile it falls into: a result does not depend on how rows
// and columns are shared among threads.
//
// A packed weight may also be bfloat16, half as much to read: pairs of k, (N / kPanel, K / 2, kPanel, 2), and 0 beyond
// an odd K. Its numbers are made float32 again on the way into the registers, so a product is to the bit that of the
// same numbers in float32 panels.
#pragma once

#include <cstdint>
#include <type_traits>

namespace fastdraw {

// Two consecutive k of one column in bfloat16, the first in the low half.
using Pair = uint32_t;

template <typename P>
inline constexpr int64_t kPanel = 64 / sizeof(P);  // columns

template <typename P>
inline constexpr int64_t kDepth = std::is_same_v<P, Pair> ? 2 : 1;  // k in a line of a panel

// Lines of a panel.
template <typename P>
constexpr int64_t lines(int64_t K) {
  return (K + kDepth<P> - 1) / kDepth<P>;
}

template <typename A>
constexpr int64_t panels(int64_t columns) {
  return (columns + kPanel<A> - 1) / kPanel<A>;
}

// The panels `first`..`end` of c (M, N) = a (M, K) x packed (K, N), with a in rows of lda and c in rows of ldc, which
// hold whole panels. bias (N): what every row begins with; null: 0. `add`: to what c holds already.
struct Product {
  int64_t M, K, first, end, lda, ldc;
  bool add = false;
};
void multiply_packed(const Product& product, const float* a, const float* packed, const float* bias, float* c);
void multiply_packed(const Product& product, const double* a, const double* packed, const double* bias, double* c);
void multiply_packed(const Product& product, const float* a, const Pair* packed, const float* bias, float* c);

// c (M, columns) = a^T x packed (K, columns), with a (K, M) in rows of lda and c in rows of ldc, which may end within a
// panel. scratch: kTransposedScratch elements.
inline constexpr int64_t kTransposedRows = 96;
inline constexpr int64_t kTransposedScratch = 256 * kTransposedRows;
void multiply_transposed(
    int64_t M, int64_t K, int64_t columns, const float* a, int64_t lda, const float* packed, float* c, int64_t ldc,
    float* scratch);
void multiply_transposed(
    int64_t M, int64_t K, int64_t columns, const double* a, int64_t lda, const double* packed, double* c, int64_t ldc,
    double* scratch);

// The panels that hold w (N, K) as packed (K, N), that is, transposed: w is a weight of a linear layer, out x in.
// `panel` elements from a panel to the next. Columns beyond N are 0. Pairs: w is rounded to bfloat16.
void pack_transposed(int64_t N, int64_t K, const float* w, int64_t ldw, float* packed, int64_t panel);
void pack_transposed(int64_t N, int64_t K, const double* w, int64_t ldw, double* packed, int64_t panel);
void pack_transposed(int64_t N, int64_t K, const float* w, int64_t ldw, Pair* packed, int64_t panel);

// The panels that hold w (K, N) as it is.
void pack(int64_t K, int64_t N, const float* w, int64_t ldw, float* packed, int64_t panel);
void pack(int64_t K, int64_t N, const double* w, int64_t ldw, double* packed, int64_t panel);
void pack(int64_t K, int64_t N, const float* w, int64_t ldw, Pair* packed, int64_t panel);

}  // namespace fastdraw
