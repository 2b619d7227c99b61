// Every loop here runs along rows that lie side by side in memory, and is left to the compiler to vectorise: for each
// instruction set on its own, see FASTDRAW_CLONES. The order of every sum is fixed by the sizes alone, so that a result
// does not depend on the number of threads.
#include "cpu/rows.h"

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cpu/simd.h"
#include "cpu/vectors.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastdraw {

void use_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] size_t bytes) {
#if defined(__linux__)
  constexpr size_t kHuge = size_t{2} << 20;
  const size_t address = reinterpret_cast<size_t>(data), begin = (address + kHuge - 1) / kHuge * kHuge;
  if (address + bytes >= begin + kHuge) {
    madvise(reinterpret_cast<void*>(begin), (address + bytes - begin) / kHuge * kHuge, MADV_HUGEPAGE);
  }
#endif
}

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

// M x V vectors of c. With 4 x 2, the 8 independent chains of sums hide the latency of a multiply-add, every one of
// which takes less than one load, and the 16 registers of AVX2 are enough.
template <int M, int V, typename A>
inline void multiply_tile(
    int64_t K, A* c, int64_t ldc, const A* base, const A* a, int64_t am, int64_t ak, const A* x, int64_t ldx) {
  using Vector = Vectors<A>;
  typename Vector::Value sum[M][V]{};
  for (int64_t k = 0; k < K; ++k) {
    for (int v = 0; v < V; ++v) {
      const typename Vector::Value at = Vector::at(x + k * ldx + v * kLanes<A>);
      for (int m = 0; m < M; ++m) sum[m][v] += a[m * am + k * ak] * at;
    }
  }
  for (int m = 0; m < M; ++m) {
    for (int v = 0; v < V; ++v) {
      const int64_t to = m * ldc + v * kLanes<A>;
      if (base != nullptr) sum[m][v] += Vector::at(base + to);
      Vector::at(c + to) = sum[m][v];
    }
  }
}

template <int M, typename A>
inline void multiply_rows(
    int64_t K, int64_t width, A* c, int64_t ldc, const A* base, const A* a, int64_t am, int64_t ak, const A* x,
    int64_t ldx) {
  const auto from = [&](int64_t w) { return base == nullptr ? nullptr : base + w; };
  int64_t w = 0;
  for (; w + 2 * kLanes<A> <= width; w += 2 * kLanes<A>) {
    multiply_tile<M, 2>(K, c + w, ldc, from(w), a, am, ak, x + w, ldx);
  }
  if (w < width) multiply_tile<M, 1>(K, c + w, ldc, from(w), a, am, ak, x + w, ldx);
}

template <typename A>
inline void multiply_all(
    int64_t M, int64_t K, int64_t width, A* c, int64_t ldc, const A* base, const A* a, int64_t am, int64_t ak,
    const A* x, int64_t ldx) {
  const auto from = [&](int64_t m) { return base == nullptr ? nullptr : base + m * ldc; };
  int64_t m = 0;
  for (; m + 4 <= M; m += 4) multiply_rows<4>(K, width, c + m * ldc, ldc, from(m), a + m * am, am, ak, x, ldx);
  for (; m < M; ++m) multiply_rows<1>(K, width, c + m * ldc, ldc, from(m), a + m * am, am, ak, x, ldx);
}

// M x N sums, N up to 4: with 2 x 4, as many chains as above.
template <int M, int N, typename A>
inline void dot_tile(
    int64_t width, A* d, int64_t ldd, const A* base, const A* x, int64_t ldx, const A* y, int64_t ldy) {
  using Vector = Vectors<A>;
  typename Vector::Value sum[M][4]{};
  for (int64_t w = 0; w < width; w += kLanes<A>) {
    for (int m = 0; m < M; ++m) {
      const typename Vector::Value at = Vector::at(x + m * ldx + w);
      for (int n = 0; n < N; ++n) sum[m][n] += at * Vector::at(y + n * ldy + w);
    }
  }
  for (int m = 0; m < M; ++m) {
    typename Vector::Four total;
    sum_lanes(sum[m], total);
    if constexpr (N == 4) {
      using Four = typename Vector::FourInMemory;
      if (base != nullptr) total += *reinterpret_cast<const Four*>(base + m * ldd);
      *reinterpret_cast<Four*>(d + m * ldd) = total;
    } else {
      for (int n = 0; n < N; ++n) d[m * ldd + n] = base == nullptr ? total[n] : base[m * ldd + n] + total[n];
    }
  }
}

template <int N, typename A>
inline void dot_columns(
    int64_t M, int64_t width, A* d, int64_t ldd, const A* base, const A* x, int64_t ldx, const A* y, int64_t ldy) {
  const auto from = [&](int64_t m) { return base == nullptr ? nullptr : base + m * ldd; };
  int64_t m = 0;
  for (; m + 2 <= M; m += 2) dot_tile<2, N>(width, d + m * ldd, ldd, from(m), x + m * ldx, ldx, y, ldy);
  if (m < M) dot_tile<1, N>(width, d + m * ldd, ldd, from(m), x + m * ldx, ldx, y, ldy);
}

template <typename A>
inline void dot_all(
    int64_t M, int64_t N, int64_t width, A* d, int64_t ldd, const A* base, const A* x, int64_t ldx, const A* y,
    int64_t ldy) {
  const auto from = [&](int64_t n) { return base == nullptr ? nullptr : base + n; };
  int64_t n = 0;
  for (; n + 4 <= N; n += 4) dot_columns<4>(M, width, d + n, ldd, from(n), x, ldx, y + n * ldy, ldy);
  for (; n < N; ++n) dot_columns<1>(M, width, d + n, ldd, from(n), x, ldx, y + n * ldy, ldy);
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

FASTDRAW_CLONES void multiply(
    int64_t M, int64_t K, int64_t width, float* c, int64_t ldc, const float* base, const float* a, int64_t am,
    int64_t ak, const float* x, int64_t ldx) {
  multiply_all(M, K, width, c, ldc, base, a, am, ak, x, ldx);
}

FASTDRAW_CLONES void multiply(
    int64_t M, int64_t K, int64_t width, double* c, int64_t ldc, const double* base, const double* a, int64_t am,
    int64_t ak, const double* x, int64_t ldx) {
  multiply_all(M, K, width, c, ldc, base, a, am, ak, x, ldx);
}

FASTDRAW_CLONES void dot(
    int64_t M, int64_t N, int64_t width, float* d, int64_t ldd, const float* base, const float* x, int64_t ldx,
    const float* y, int64_t ldy) {
  dot_all(M, N, width, d, ldd, base, x, ldx, y, ldy);
}

FASTDRAW_CLONES void dot(
    int64_t M, int64_t N, int64_t width, double* d, int64_t ldd, const double* base, const double* x, int64_t ldx,
    const double* y, int64_t ldy) {
  dot_all(M, N, width, d, ldd, base, x, ldx, y, ldy);
}

}  // namespace fastdraw
