// Between torch's tensors and the loops of the CPU kernels: refuse what would read or write out of bounds (the words for
// users are in fastdraw/checks.py), pick the dtype, and share the samples among torch's threads.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <array>
#include <initializer_list>
#include <sstream>
#include <string>

#include "cpu/simd.h"

namespace fastdraw {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// A tensor of D dimensions as a kernel reads it; data is null where an optional tensor was left out.
template <typename T, size_t D>
struct Strided {
  const T* data = nullptr;
  std::array<int64_t, D> strides{};

  Strided() = default;
  Strided(const T* data, std::array<int64_t, D> strides) : data(data), strides(strides) {}
  Strided(const Tensor& tensor) : data(static_cast<const T*>(tensor.const_data_ptr())) {
    const auto from = tensor.strides();
    std::copy(from.begin(), from.end(), strides.begin());
  }

  template <typename... Index>
  const T* at(Index... index) const {
    static_assert(sizeof...(Index) <= D);
    const int64_t position[] = {index...};
    const T* element = data;
    for (size_t k = 0; k < sizeof...(Index); ++k) element += position[k] * strides[k];
    return element;
  }
};

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

inline Tensor new_empty(const Tensor& like, std::initializer_list<int64_t> shape) {
  return torch::stable::new_empty(like, shape);
}

template <typename T>
T* output(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// Call `body` with a value of the element type.
template <typename Body>
void with_dtype(const char* op, ScalarType dtype, const Body& body) {
  switch (dtype) {
    case ScalarType::Float: return body(float{});
    case ScalarType::Double: return body(double{});
    case ScalarType::BFloat16: return body(BFloat16{});
    case ScalarType::Half: return body(Half{});
    default: STD_TORCH_CHECK(false, op, ": there is no CPU kernel for ", torch::headeronly::toString(dtype));
  }
}

// Define run_range(work, begin, end), which does work(begin, end), for every dtype and every instruction set.
#define FASTDRAW_RUN_RANGE(Work)                                                                                   \
  FASTDRAW_CLONES void run_range(const Work<float>& work, int64_t begin, int64_t end) { work(begin, end); }        \
  FASTDRAW_CLONES void run_range(const Work<double>& work, int64_t begin, int64_t end) { work(begin, end); }       \
  FASTDRAW_CLONES void run_range(const Work<BFloat16>& work, int64_t begin, int64_t end) { work(begin, end); }     \
  FASTDRAW_CLONES void run_range(const Work<Half>& work, int64_t begin, int64_t end) { work(begin, end); }

// Do `work` on 0..count, where one element costs about `cost` multiply-adds.
template <typename Work>
void run_parallel(const Work& work, int64_t count, int64_t cost) {
  constexpr int64_t kThreadCost = 200'000;  // about 30 us: several times what waking a thread takes
  const int64_t grain = std::max<int64_t>(1, kThreadCost / std::max<int64_t>(1, cost));
  torch::stable::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) { run_range(work, begin, end); });
}

}  // namespace fastdraw
