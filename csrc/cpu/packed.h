// Matrices that are packed for the products of gemm.h.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <type_traits>
#include <vector>

#include "cpu/gemm.h"
#include "cpu/rows.h"

namespace fastdraw {

template <typename A>
constexpr int64_t padded(int64_t columns) {
  return panels<A>(columns) * kPanel<A>;
}

// Blocks of weights side by side as one matrix (K, N), of A or, beside float, of bfloat16.
template <typename A>
class Packed {
  int64_t K_, N_, lines_;
  bool bfloat16_;
  Buffer<A> data_;

  // Call body(data) with a pointer to what the lines hold.
  template <typename Body>
  void with_lines(const Body& body) const {
    if constexpr (std::is_same_v<A, float>) {
      if (bfloat16_) return body(reinterpret_cast<Pair*>(data_.get()));
    }
    body(data_.get());
  }

 public:
  Packed(int64_t K, int64_t N, bool bfloat16)
      : K_(K), N_(padded<A>(N)), lines_(bfloat16 ? lines<Pair>(K) : K), bfloat16_(bfloat16), data_(lines_ * N_) {}
  int64_t K() const { return K_; }

  // The product with columns from `column` (a whole panel) on; those of `product` are counted from there.
  void multiply(const Product& product, int64_t column, const A* a, const A* bias, A* c) const {
    with_lines([&](auto* data) { multiply_packed(product, a, data + column * lines_, bias, c); });
  }
  // Columns `from`..`from + inputs` of weight (outputs, .), transposed, at row k (even) and column n (a whole panel).
  void put_transposed(const torch::stable::Tensor& weight, int64_t from, int64_t inputs, int64_t k, int64_t n);
  // The same as it is: its outputs are rows k.. and its inputs columns n...
  void put(const torch::stable::Tensor& weight, int64_t from, int64_t inputs, int64_t k, int64_t n);
  // Rows k..k_end (even); an odd k's line is left to what ends in it.
  void zero_rows(int64_t k, int64_t k_end);
};

// Rows in memory as one matrix (rows, columns).
template <typename A>
class PackedRows {
  int64_t rows_;
  Buffer<A> data_;

 public:
  // In rows of ld. If `at` is given, row i is from + at[i] * ld, and -1 stands for `other`.
  PackedRows(
      int64_t rows, int64_t columns, const A* from, int64_t ld, const std::vector<int64_t>* at = nullptr,
      const A* other = nullptr);
  int64_t rows() const { return rows_; }
  // From a column on, which begins a panel.
  const A* column(int64_t column) const { return data_.get() + column * rows_; }
};

}  // namespace fastdraw
