// Every loop here runs along rows that lie side by side in memory, and is left to the compiler to vectorise: for each
// instruction set on its own, see FASTDRAW_CLONES. The order of every sum is fixed by the sizes alone, so that a result
// does not depend on the number of threads.
#include "cpu/rows.h"

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cpu/simd.h"

namespace fastdraw {
namespace {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

template <typename T, typename A>
inline void load(
    const void* src, int64_t row_stride, int64_t stride, int64_t rows, int64_t columns, A* __restrict dst, int64_t ld) {
  for (int64_t i = 0; i < rows; ++i) {
    const T* from = static_cast<const T*>(src) + i * row_stride;
    A* to = dst + i * ld;
    if (stride == 1) {
      for (int64_t k = 0; k < columns; ++k) to[k] = static_cast<A>(from[k]);
    } else {
      for (int64_t k = 0; k < columns; ++k) to[k] = static_cast<A>(from[k * stride]);
    }
  }
}

template <typename T, typename A>
inline void store(const A* __restrict src, int64_t ld, int64_t rows, int64_t columns, void* dst) {
  for (int64_t i = 0; i < rows; ++i) {
    T* to = static_cast<T*>(dst) + i * columns;
    for (int64_t k = 0; k < columns; ++k) to[k] = static_cast<T>(src[i * ld + k]);
  }
}

// A block of M x K coefficients stays in registers while it runs along the rows. 2 x 4: each of the 8 multiply-adds
// then takes one load or store, and the 16 registers of AVX2 are enough.
template <int M, int K, typename A>
inline void multiply_add_block(
    int64_t width, A* __restrict c, int64_t ldc, const A* a, int64_t am, int64_t ak, const A* __restrict x,
    int64_t ldx) {
  A coefficient[M][K];
  for (int m = 0; m < M; ++m) {
    for (int k = 0; k < K; ++k) coefficient[m][k] = a[m * am + k * ak];
  }
#pragma omp simd
  for (int64_t w = 0; w < width; ++w) {
    for (int m = 0; m < M; ++m) {
      A sum = c[m * ldc + w];
      for (int k = 0; k < K; ++k) sum += coefficient[m][k] * x[k * ldx + w];
      c[m * ldc + w] = sum;
    }
  }
}

template <int M, typename A>
inline void multiply_add_rows(
    int64_t K, int64_t width, A* c, int64_t ldc, const A* a, int64_t am, int64_t ak, const A* x, int64_t ldx) {
  int64_t k = 0;
  for (; k + 4 <= K; k += 4) multiply_add_block<M, 4>(width, c, ldc, a + k * ak, am, ak, x + k * ldx, ldx);
  for (; k < K; ++k) multiply_add_block<M, 1>(width, c, ldc, a + k * ak, am, ak, x + k * ldx, ldx);
}

template <typename A>
inline void multiply_add_all(
    int64_t M, int64_t K, int64_t width, A* c, int64_t ldc, const A* a, int64_t am, int64_t ak, const A* x,
    int64_t ldx) {
  int64_t m = 0;
  for (; m + 2 <= M; m += 2) multiply_add_rows<2>(K, width, c + m * ldc, ldc, a + m * am, am, ak, x, ldx);
  for (; m < M; ++m) multiply_add_rows<1>(K, width, c + m * ldc, ldc, a + m * am, am, ak, x, ldx);
}

// Half a cache line at once, written out: what compilers make of a reduction over single elements adds up the lanes of
// every sum one by one at the end, which here takes as long as the loop.
template <typename A>
struct Lanes {
  static constexpr int kCount = 32 / sizeof(A);
  typedef A Vector __attribute__((vector_size(32), may_alias));
};

template <typename A>
inline A sum_lanes(const typename Lanes<A>::Vector& vector) {
  A lane[Lanes<A>::kCount];
  for (int k = 0; k < Lanes<A>::kCount; ++k) lane[k] = vector[k];
  for (int half = Lanes<A>::kCount / 2; half > 0; half /= 2) {
    for (int k = 0; k < half; ++k) lane[k] += lane[k + half];
  }
  return lane[0];
}

// The 8 sums of 2 x 4 dot products: enough independent chains to hide the latency of an addition.
template <typename A>
inline void dot_add_2x4(int64_t width, A* d, int64_t ldd, const A* x, int64_t ldx, const A* y, int64_t ldy) {
  using Vector = typename Lanes<A>::Vector;
  const auto lanes = [](const A* row) { return reinterpret_cast<const Vector*>(row); };
  const Vector *X0 = lanes(x), *X1 = lanes(x + ldx);
  const Vector *Y0 = lanes(y), *Y1 = lanes(y + ldy), *Y2 = lanes(y + 2 * ldy), *Y3 = lanes(y + 3 * ldy);
  Vector s00{}, s01{}, s02{}, s03{}, s10{}, s11{}, s12{}, s13{};
  for (int64_t k = 0; k < width / Lanes<A>::kCount; ++k) {
    const Vector x0 = X0[k], x1 = X1[k], y0 = Y0[k], y1 = Y1[k], y2 = Y2[k], y3 = Y3[k];
    s00 += x0 * y0, s01 += x0 * y1, s02 += x0 * y2, s03 += x0 * y3;
    s10 += x1 * y0, s11 += x1 * y1, s12 += x1 * y2, s13 += x1 * y3;
  }
  d[0] += sum_lanes<A>(s00), d[1] += sum_lanes<A>(s01), d[2] += sum_lanes<A>(s02), d[3] += sum_lanes<A>(s03);
  d[ldd] += sum_lanes<A>(s10), d[ldd + 1] += sum_lanes<A>(s11);
  d[ldd + 2] += sum_lanes<A>(s12), d[ldd + 3] += sum_lanes<A>(s13);
}

template <typename A>
inline void dot_add_1x1(int64_t width, A* d, const A* __restrict x, const A* __restrict y) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t w = 0; w < width; ++w) sum += x[w] * y[w];
  *d += sum;
}

template <typename A>
inline void dot_add_all(
    int64_t M, int64_t N, int64_t width, A* d, int64_t ldd, const A* x, int64_t ldx, const A* y, int64_t ldy) {
  const int64_t blocks_m = M / 2 * 2, blocks_n = N / 4 * 4;
  for (int64_t m = 0; m < blocks_m; m += 2) {
    for (int64_t n = 0; n < blocks_n; n += 4) {
      dot_add_2x4(width, d + m * ldd + n, ldd, x + m * ldx, ldx, y + n * ldy, ldy);
    }
  }
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t n = m < blocks_m ? blocks_n : 0; n < N; ++n) {
      dot_add_1x1(width, d + m * ldd + n, x + m * ldx, y + n * ldy);
    }
  }
}

}  // namespace

FASTDRAW_CLONES void load_rows(
    ScalarType dtype, const void* src, int64_t row_stride, int64_t stride, int64_t rows, int64_t columns, float* dst,
    int64_t ld) {
  if (dtype == ScalarType::Float) load<float>(src, row_stride, stride, rows, columns, dst, ld);
  if (dtype == ScalarType::BFloat16) load<BFloat16>(src, row_stride, stride, rows, columns, dst, ld);
  if (dtype == ScalarType::Half) load<Half>(src, row_stride, stride, rows, columns, dst, ld);
}

FASTDRAW_CLONES void load_rows(
    ScalarType, const void* src, int64_t row_stride, int64_t stride, int64_t rows, int64_t columns, double* dst,
    int64_t ld) {
  load<double>(src, row_stride, stride, rows, columns, dst, ld);
}

FASTDRAW_CLONES void store_rows(
    ScalarType dtype, const float* src, int64_t ld, int64_t rows, int64_t columns, void* dst) {
  if (dtype == ScalarType::Float) store<float>(src, ld, rows, columns, dst);
  if (dtype == ScalarType::BFloat16) store<BFloat16>(src, ld, rows, columns, dst);
  if (dtype == ScalarType::Half) store<Half>(src, ld, rows, columns, dst);
}

FASTDRAW_CLONES void store_rows(ScalarType, const double* src, int64_t ld, int64_t rows, int64_t columns, void* dst) {
  store<double>(src, ld, rows, columns, dst);
}

FASTDRAW_CLONES void multiply_add(
    int64_t M, int64_t K, int64_t width, float* c, int64_t ldc, const float* a, int64_t am, int64_t ak, const float* x,
    int64_t ldx) {
  multiply_add_all(M, K, width, c, ldc, a, am, ak, x, ldx);
}

FASTDRAW_CLONES void multiply_add(
    int64_t M, int64_t K, int64_t width, double* c, int64_t ldc, const double* a, int64_t am, int64_t ak,
    const double* x, int64_t ldx) {
  multiply_add_all(M, K, width, c, ldc, a, am, ak, x, ldx);
}

FASTDRAW_CLONES void dot_add(
    int64_t M, int64_t N, int64_t width, float* d, int64_t ldd, const float* x, int64_t ldx, const float* y,
    int64_t ldy) {
  dot_add_all(M, N, width, d, ldd, x, ldx, y, ldy);
}

FASTDRAW_CLONES void dot_add(
    int64_t M, int64_t N, int64_t width, double* d, int64_t ldd, const double* x, int64_t ldx, const double* y,
    int64_t ldy) {
  dot_add_all(M, N, width, d, ldd, x, ldx, y, ldy);
}

}  // namespace fastdraw
