// Between torch's tensors and the loops of the CPU kernels: refuse what would read or write out of bounds (the words
// for users are in fastdraw/checks.py), read and write any dtype, and share the samples among torch's threads.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <sstream>
#include <string>

#include "cpu/rows.h"

namespace fastdraw {

using torch::stable::Tensor;

inline int64_t element_size(ScalarType dtype) {
  return dtype == ScalarType::Double ? 8 : dtype == ScalarType::Float ? 4 : 2;
}

// A tensor of D dimensions and any strides that a kernel reads.
template <size_t D>
struct Input {
  const char* data = nullptr;  // null: an optional tensor that was left out
  ScalarType dtype{};
  std::array<int64_t, D> strides{};

  Input() = default;
  Input(const Tensor& tensor) : data(static_cast<const char*>(tensor.const_data_ptr())), dtype(tensor.scalar_type()) {
    const auto from = tensor.strides();
    std::copy_n(from.begin(), D, strides.begin());
  }

  // dst (rows, columns) in rows of ld = the last two dimensions (or the last, with one row) from element `first`.
  template <typename A, typename... Index>
  void load(A* dst, int64_t ld, int64_t rows, int64_t columns, Index... first) const {
    static_assert(sizeof...(Index) <= D);
    const int64_t position[] = {first...};
    int64_t offset = 0;
    for (size_t k = 0; k < sizeof...(Index); ++k) offset += position[k] * strides[k];
    load_rows(
        dtype, data + offset * element_size(dtype), D < 2 ? 0 : strides[D - 2], strides[D - 1], rows, columns, dst, ld);
  }
};

// A contiguous tensor that a kernel writes.
struct Output {
  char* data = nullptr;  // null: a result that was not asked for
  ScalarType dtype{};

  Output() = default;
  Output(const Tensor& tensor) : data(static_cast<char*>(tensor.mutable_data_ptr())), dtype(tensor.scalar_type()) {}

  // The rows x columns elements from `offset` = src in rows of ld.
  template <typename A>
  void store(const A* src, int64_t ld, int64_t rows, int64_t columns, int64_t offset) const {
    store_rows(dtype, src, ld, rows, columns, data + offset * element_size(dtype));
  }
};

inline Tensor new_empty(const Tensor& like, std::initializer_list<int64_t> shape) {
  return torch::stable::new_empty(like, shape);
}

inline std::string shape_text(const int64_t* sizes, size_t dim) {
  std::ostringstream text;
  text << "(";
  for (size_t k = 0; k < dim; ++k) text << (k ? ", " : "") << sizes[k];
  text << ")";
  return text.str();
}

inline void check_dim(const char* op, const char* name, const Tensor& tensor, int64_t dim) {
  STD_TORCH_CHECK(tensor.dim() == dim, op, ": ", name, " must have ", dim, " dimensions, got ", tensor.dim());
}

inline void check_tensor(
    const char* op, const char* name, const Tensor& tensor, ScalarType dtype, std::initializer_list<int64_t> shape) {
  const ScalarType got = tensor.scalar_type();
  STD_TORCH_CHECK(
      got == dtype, op, ": ", name, " must be ", torch::headeronly::toString(dtype), " as the other arguments, got ",
      torch::headeronly::toString(got));
  const auto sizes = tensor.sizes();
  STD_TORCH_CHECK(
      std::equal(sizes.begin(), sizes.end(), shape.begin(), shape.end()), op, ": ", name, " must have shape ",
      shape_text(shape.begin(), shape.size()), ", got ", shape_text(sizes.data(), sizes.size()));
}

// Call `body` with a value of the type in which `dtype` is computed and accumulated.
template <typename Body>
void with_compute_type(const char* op, ScalarType dtype, const Body& body) {
  switch (dtype) {
    case ScalarType::Float:
    case ScalarType::BFloat16:
    case ScalarType::Half: return body(float{});
    case ScalarType::Double: return body(double{});
    default: STD_TORCH_CHECK(false, op, ": there is no CPU kernel for ", torch::headeronly::toString(dtype));
  }
}

// Call work(begin, end) on ranges that together are 0..count. One element costs about `cost` multiply-adds.
template <typename Work>
void run_parallel(const Work& work, int64_t count, int64_t cost) {
  constexpr int64_t kThreadCost = 200'000;  // about 30 us: several times what waking a thread takes
  torch::stable::parallel_for(0, count, std::max<int64_t>(1, kThreadCost / cost), work);
}

}  // namespace fastdraw
