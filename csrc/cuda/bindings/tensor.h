// Between torch's tensors and the launchers: of torch its stable ABI alone. An op checks what would corrupt memory if
// it were wrong (the words for users are in fastdraw/checks.py), makes its inputs contiguous, allocates the outputs,
// and launches on the current stream of the inputs' device. In the emulation that device is the host.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>

#include "library.h"

namespace fastdraw {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Runs body(T{}) with the C++ type of a dtype.
template <typename Body>
void dispatch_dtype(const char* op, ScalarType dtype, Body body) {
  switch (dtype) {
    case ScalarType::Float: return body(float{});
    case ScalarType::Double: return body(double{});
    case ScalarType::BFloat16: return body(__nv_bfloat16{});
    case ScalarType::Half: return body(__half{});
    default: STD_TORCH_CHECK(false, op, ": expected float32, bfloat16, float16 or float64");
  }
}

template <typename T>
const T* in(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <typename T>
T* out(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// Null for a tensor that is not there.
template <typename T>
const T* in(const std::optional<Tensor>& tensor) {
  return tensor ? in<T>(*tensor) : nullptr;
}

template <typename T>
T* out(const std::optional<Tensor>& tensor) {
  return tensor ? out<T>(*tensor) : nullptr;
}

inline std::optional<Tensor> contiguous(const std::optional<Tensor>& tensor) {
  return tensor ? std::optional(torch::stable::contiguous(*tensor)) : std::nullopt;
}

// Memory for partial sums, in the dtype that they are computed in, if there are any.
inline std::optional<Tensor> new_partials(const Tensor& like, int64_t count) {
  if (count == 0) return std::nullopt;
  const bool is_double = like.scalar_type() == ScalarType::Double;
  return torch::stable::new_empty(like, {count}, is_double ? ScalarType::Double : ScalarType::Float);
}

// A gradient, without elements where it is not wanted; then its address is null.
inline Tensor new_gradient(const Tensor& like, bool wanted = true) {
  return wanted ? torch::stable::new_empty(like, like.sizes()) : torch::stable::new_empty(like, {0});
}

template <typename T>
T* out_if(bool wanted, const Tensor& gradient) {
  return wanted ? out<T>(gradient) : nullptr;
}

#if defined(FASTDRAW_EMULATED)
struct DeviceGuard {
  explicit DeviceGuard(const Tensor&) {}
};
inline cudaStream_t current_stream(const Tensor&) { return nullptr; }
inline void check_launch(const char*) {}
inline bool on_device(const Tensor& tensor) { return tensor.is_cpu(); }
inline size_t shared_limit(const Tensor&) { return 227 << 10; }
#else
struct DeviceGuard : torch::stable::accelerator::DeviceGuard {
  explicit DeviceGuard(const Tensor& tensor) : torch::stable::accelerator::DeviceGuard(tensor.get_device_index()) {}
};

inline cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// A launch that fails (no code for this GPU, a broken context) is reported here and not at some later synchronisation.
inline void check_launch(const char* op) {
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, op, ": the CUDA kernel was not launched: ", cudaGetErrorString(error));
}

inline bool on_device(const Tensor& tensor) { return tensor.is_cuda(); }

// How many bytes of shared memory a block can have.
inline size_t shared_limit(const Tensor& tensor) {
  int bytes = 0;
  cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, tensor.get_device_index());
  return static_cast<size_t>(bytes);
}
#endif

// Requires the device and the dtype of `like`, and a shape.
inline void check_tensor(
    const char* op, const char* name, const Tensor& tensor, const Tensor& like,
    torch::headeronly::IntHeaderOnlyArrayRef shape) {
  STD_TORCH_CHECK(
      on_device(tensor) && tensor.get_device_index() == like.get_device_index(), op, ": ", name,
      " must be on the GPU of the other arguments");
  STD_TORCH_CHECK(tensor.scalar_type() == like.scalar_type(), op, ": ", name, " must have the dtype of the others");
  const auto sizes = tensor.sizes();
  STD_TORCH_CHECK(
      std::equal(sizes.begin(), sizes.end(), shape.begin(), shape.end()), op, ": ", name, " has a wrong shape");
}

}  // namespace fastdraw
