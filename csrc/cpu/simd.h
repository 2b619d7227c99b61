// What the CPU kernels are made of: elementary functions that compilers vectorise, conversion of rows, and two small
// matrix products over rows that lie in cache.
//
// Nothing here names an instruction set. A function marked FASTDRAW_CLONES is compiled with all that it calls for plain
// x86-64, AVX2 and AVX-512, and the loader picks the one that the machine can run.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <memory>
#include <new>
#include <type_traits>

#include "index.h"

// The loader's choice needs glibc's ifunc, which sanitizers do not survive; older compilers do not know the level names.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    ((defined(__clang__) && __clang_major__ >= 18) || (!defined(__clang__) && __GNUC__ >= 12))
#define FASTDRAW_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4"), flatten))
#else
#define FASTDRAW_CLONES
#endif

namespace fastdraw {

using BFloat16 = torch::headeronly::BFloat16;
using Half = torch::headeronly::Half;

// What a dtype is computed and accumulated in.
template <typename T>
using Compute = std::conditional_t<std::is_same_v<T, double>, double, float>;

// e^x and e^x - 1, each with full relative accuracy.
template <typename A>
struct Exp {
  A value, minus_one;
};

// x <= 0. Where e^x would be subnormal it is 0.
inline Exp<float> exp_nonpositive(float x) {
  // x = n log 2 + r with |r| <= log(2) / 2. Adding 1.5 * 2^23 rounds n to an integer that stands in the last bits.
  constexpr float kRound = 12582912.0f;
  constexpr float kLog2High = 0.693359375f;  // n * kLog2High is exact
  constexpr float kLog2Low = -2.12194440e-4f;
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * kLog2High) - n * kLog2Low;
  // e^r - 1 = r + r^2 P(r): least maximal relative error at degree 4, 1.4e-8.
  const float p = (((0x1.6d9918p-10f * r + 0x1.122808p-7f) * r + 0x1.555486p-5f) * r + 0x1.5554b0p-3f) * r + 0.5f;
  const float q = r + r * r * p;
  const float two_n = std::bit_cast<float>((std::bit_cast<uint32_t>(shifted) << 23) + (127u << 23));
  const bool tiny = x < -87.33f;  // false for NaN, which then runs through
  return {tiny ? 0.0f : two_n * q + two_n, tiny ? -1.0f : two_n * q + (two_n - 1.0f)};
}

inline Exp<double> exp_nonpositive(double x) {
  return {std::exp(x), std::expm1(x)};
}

template <typename A>
struct Sigmoid {
  A value, slope;
};

// The slope is e / (1 + e)^2, which keeps its digits where value * (1 - value) loses them.
template <typename A>
inline Sigmoid<A> sigmoid(A x) {
  const A e = exp_nonpositive(-std::abs(x)).value;
  const A high = 1 / (1 + e), low = e * high;
  return {x >= 0 ? high : low, low * high};
}

template <typename A>
struct Tanh {
  A value, slope;
};

template <typename A>
inline Tanh<A> tanh(A x) {
  const Exp<A> e = exp_nonpositive(-2 * std::abs(x));
  const A inverse = 1 / (2 + e.minus_one);
  return {std::copysign(-e.minus_one * inverse, x), 4 * e.value * inverse * inverse};
}

template <typename T>
inline void load_row(const T* src, int64_t stride, int64_t size, Compute<T>* __restrict dst) {
  if (stride == 1) {
    for (int64_t i = 0; i < size; ++i) dst[i] = static_cast<Compute<T>>(src[i]);
  } else {
    for (int64_t i = 0; i < size; ++i) dst[i] = static_cast<Compute<T>>(src[i * stride]);
  }
}

template <typename T>
inline void store_row(const Compute<T>* __restrict src, int64_t size, T* dst) {
  for (int64_t i = 0; i < size; ++i) dst[i] = static_cast<T>(src[i]);
}

// A matrix in scratch memory, zero at first. Rows begin on a cache line and are padded to whole lines (`ld` elements);
// the padding stays zero, so that loops over `ld` need no tail.
template <typename A>
class Matrix {
  static constexpr std::align_val_t kLine{64};
  struct Free {
    void operator()(A* data) const { ::operator delete[](data, kLine); }
  };
  int64_t rows_, ld_;
  std::unique_ptr<A[], Free> data_;

 public:
  Matrix(int64_t rows, int64_t columns)
      : rows_(rows),
        ld_(round_up(columns, 64 / sizeof(A))),
        data_(new (kLine) A[static_cast<size_t>(rows_ * ld_)]()) {}
  int64_t ld() const { return ld_; }
  A* row(int64_t i) { return data_.get() + i * ld_; }
  const A* row(int64_t i) const { return data_.get() + i * ld_; }
  void zero() { std::fill_n(data_.get(), rows_ * ld_, A(0)); }
};

// c[m, :] += sum_k a[m, k] x[k, :] for a block of M x K: small enough that the coefficients stay in registers.
template <int M, int K, typename A>
inline void multiply_add_block(
    int64_t width, A* __restrict c, int64_t ldc, const A* a, int64_t am, int64_t ak, const A* __restrict x, int64_t ldx) {
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

// c (M, width) += a (M, K) x (K, width); a lies anywhere with strides am, ak, the others in rows of ldc, ldx elements.
template <typename A>
inline void multiply_add(
    int64_t M, int64_t K, int64_t width, A* c, int64_t ldc, const A* a, int64_t am, int64_t ak, const A* x, int64_t ldx) {
  int64_t m = 0;
  for (; m + 2 <= M; m += 2) {
    int64_t k = 0;
    for (; k + 4 <= K; k += 4) {
      multiply_add_block<2, 4>(width, c + m * ldc, ldc, a + m * am + k * ak, am, ak, x + k * ldx, ldx);
    }
    for (; k < K; ++k) {
      multiply_add_block<2, 1>(width, c + m * ldc, ldc, a + m * am + k * ak, am, ak, x + k * ldx, ldx);
    }
  }
  for (; m < M; ++m) {
    for (int64_t k = 0; k < K; ++k) {
      multiply_add_block<1, 1>(width, c + m * ldc, ldc, a + m * am + k * ak, am, ak, x + k * ldx, ldx);
    }
  }
}

// d[m, n] += x[m, :] . y[n, :] for a block of 2 x N.
template <typename A>
inline void dot_add_2x4(
    int64_t width, A* d, int64_t dm, int64_t dn, const A* __restrict x, int64_t ldx, const A* __restrict y, int64_t ldy) {
  A s00 = 0, s01 = 0, s02 = 0, s03 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0;
#pragma omp simd reduction(+ : s00, s01, s02, s03, s10, s11, s12, s13)
  for (int64_t w = 0; w < width; ++w) {
    const A x0 = x[w], x1 = x[ldx + w], y0 = y[w], y1 = y[ldy + w], y2 = y[2 * ldy + w], y3 = y[3 * ldy + w];
    s00 += x0 * y0, s01 += x0 * y1, s02 += x0 * y2, s03 += x0 * y3;
    s10 += x1 * y0, s11 += x1 * y1, s12 += x1 * y2, s13 += x1 * y3;
  }
  d[0] += s00, d[dn] += s01, d[2 * dn] += s02, d[3 * dn] += s03;
  d[dm] += s10, d[dm + dn] += s11, d[dm + 2 * dn] += s12, d[dm + 3 * dn] += s13;
}

template <typename A>
inline A dot(int64_t width, const A* __restrict x, const A* __restrict y) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t w = 0; w < width; ++w) sum += x[w] * y[w];
  return sum;
}

// d (M, N) += x (M, width) y (N, width)^T; d lies anywhere with strides dm, dn.
template <typename A>
inline void dot_add(
    int64_t M, int64_t N, int64_t width, A* d, int64_t dm, int64_t dn, const A* x, int64_t ldx, const A* y, int64_t ldy) {
  int64_t m = 0;
  for (; m + 2 <= M; m += 2) {
    int64_t n = 0;
    for (; n + 4 <= N; n += 4) {
      dot_add_2x4(width, d + m * dm + n * dn, dm, dn, x + m * ldx, ldx, y + n * ldy, ldy);
    }
    for (; n < N; ++n) {
      d[m * dm + n * dn] += dot(width, x + m * ldx, y + n * ldy);
      d[(m + 1) * dm + n * dn] += dot(width, x + (m + 1) * ldx, y + n * ldy);
    }
  }
  for (; m < M; ++m) {
    for (int64_t n = 0; n < N; ++n) d[m * dm + n * dn] += dot(width, x + m * ldx, y + n * ldy);
  }
}

}  // namespace fastdraw
