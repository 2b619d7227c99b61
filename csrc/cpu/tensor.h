// Between torch's tensors and the loops of the CPU kernels: refuse what would read or write out of bounds (the words
// for users are in fastdraw/checks.py), read and write any dtype, and share the samples among torch's threads.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

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

inline void check_shape(const char* op, const char* name, const Tensor& tensor, const int64_t* shape, size_t dim) {
  const auto sizes = tensor.sizes();
  STD_TORCH_CHECK(
      std::equal(sizes.begin(), sizes.end(), shape, shape + dim), op, ": ", name, " must have shape ",
      shape_text(shape, dim), ", got ", shape_text(sizes.data(), sizes.size()));
}

inline void check_tensor(
    const char* op, const char* name, const Tensor& tensor, ScalarType dtype, std::initializer_list<int64_t> shape) {
  const ScalarType got = tensor.scalar_type();
  STD_TORCH_CHECK(
      got == dtype, op, ": ", name, " must be ", torch::headeronly::toString(dtype), " as the other arguments, got ",
      torch::headeronly::toString(got));
  check_shape(op, name, tensor, shape.begin(), shape.size());
}

// The integers of a tensor (B,), or `otherwise` where there is none. One out of range would reach beyond other tensors,
// and compiled code gets here unchecked.
inline std::vector<int64_t> load_counts(
    const char* op, const char* name, const std::optional<Tensor>& tensor, int64_t B, int64_t low, int64_t high,
    int64_t otherwise) {
  std::vector<int64_t> counts(static_cast<size_t>(B), otherwise);
  if (!tensor) return counts;
  const bool narrow = tensor->scalar_type() == ScalarType::Int;
  check_tensor(op, name, *tensor, narrow ? ScalarType::Int : ScalarType::Long, {B});
  const void* data = tensor->const_data_ptr();
  for (int64_t b = 0; b < B; ++b) {
    const int64_t at = b * tensor->stride(0);
    counts[b] = narrow ? static_cast<const int32_t*>(data)[at] : static_cast<const int64_t*>(data)[at];
    STD_TORCH_CHECK(
        counts[b] >= low && counts[b] <= high, op, ": ", name, " must lie in ", low, "..", high, ", got ", counts[b]);
  }
  return counts;
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
  torch::stable::parallel_for(0, count, kThreadCost / std::clamp<int64_t>(cost, 1, kThreadCost), work);
}

}  // namespace fastdraw
