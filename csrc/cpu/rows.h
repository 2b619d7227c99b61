// The rows of matrices in scratch memory: to and from tensors of any dtype, and two small products. Everything is
// computed and accumulated in A: float, or double for float64.
#pragma once

#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>

#include "index.h"

namespace fastdraw {

using torch::headeronly::ScalarType;

// The elements of the vectors that the products work with.
template <typename A>
constexpr int64_t kLanes = 32 / sizeof(A);

// Ask for pages of 2 MiB where memory is large: a page fault for every 4 KiB costs several percent of a training step.
void use_huge_pages(void* data, size_t bytes);

// Memory that begins on a cache line and is not set to anything.
template <typename A>
class Buffer {
  static constexpr std::align_val_t kLine{64};
  struct Free {
    void operator()(A* data) const { ::operator delete[](data, kLine); }
  };
  std::unique_ptr<A[], Free> data_;

 public:
  explicit Buffer(int64_t size) : data_(new (kLine) A[static_cast<size_t>(size)]) {
    use_huge_pages(data_.get(), static_cast<size_t>(size) * sizeof(A));
  }
  A* get() const { return data_.get(); }
};

// A matrix in scratch memory, zero at first. Rows begin on a cache line and are padded with zeros to whole lines, `ld`
// elements, so that loops over `ld` need no tail.
template <typename A>
class Matrix {
  int64_t ld_;
  Buffer<A> data_;

 public:
  Matrix(int64_t rows, int64_t columns) : ld_(round_up(columns, 64 / sizeof(A))), data_(rows * ld_) {
    std::fill_n(data_.get(), rows * ld_, A{0});
  }
  int64_t ld() const { return ld_; }
  A* row(int64_t i) { return data_.get() + i * ld_; }
  const A* row(int64_t i) const { return data_.get() + i * ld_; }
};

// dst (rows, columns) in rows of ld = src, a part of a tensor of `dtype`; strides are in elements.
void load_rows(
    ScalarType dtype, const void* src, int64_t row_stride, int64_t stride, int64_t rows, int64_t columns, float* dst,
    int64_t ld);
void load_rows(
    ScalarType dtype, const void* src, int64_t row_stride, int64_t stride, int64_t rows, int64_t columns, double* dst,
    int64_t ld);

// dst, a contiguous matrix of `dtype`, = src (rows, columns) in rows of ld.
void store_rows(ScalarType dtype, const float* src, int64_t ld, int64_t rows, int64_t columns, void* dst);
void store_rows(ScalarType dtype, const double* src, int64_t ld, int64_t rows, int64_t columns, void* dst);

// c (M, width) = base + a (M, K) x (K, width), where width is whole multiples of kLanes. a lies anywhere with strides
// am, ak; c and base, which may be c itself or null for zeros, in rows of ldc; x in rows of ldx. Rows may begin
// anywhere.
void multiply(
    int64_t M, int64_t K, int64_t width, float* c, int64_t ldc, const float* base, const float* a, int64_t am,
    int64_t ak, const float* x, int64_t ldx);
void multiply(
    int64_t M, int64_t K, int64_t width, double* c, int64_t ldc, const double* base, const double* a, int64_t am,
    int64_t ak, const double* x, int64_t ldx);

// d (M, N) = base + x (M, width) y (N, width)^T, where width is whole multiples of kLanes; d and base, which may be d
// itself or null for zeros, in rows of ldd.
void dot(
    int64_t M, int64_t N, int64_t width, float* d, int64_t ldd, const float* base, const float* x, int64_t ldx,
    const float* y, int64_t ldy);
void dot(
    int64_t M, int64_t N, int64_t width, double* d, int64_t ldd, const double* base, const double* x, int64_t ldx,
    const double* y, int64_t ldy);

}  // namespace fastdraw
