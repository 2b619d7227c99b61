// The CUDA kernels as torch operators: the one file here that knows torch, and of torch its stable ABI alone.
// Each op makes its inputs contiguous, allocates the outputs, launches on the current stream of the inputs' device.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <tuple>

#include "lstm.h"

namespace {

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

cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// A launch that fails (no code for this GPU, a broken context) is reported here and not at some later synchronisation.
void check_launch(const char* op) {
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, op, ": the CUDA kernel was not launched: ", cudaGetErrorString(error));
}

// What would corrupt memory if it were wrong; the Python layer says the same with more words before it comes to this.
void check_like(const char* op, const char* name, const Tensor& tensor, const Tensor& c, int64_t columns) {
  STD_TORCH_CHECK(
      tensor.dim() == 2 && tensor.size(0) == c.size(0) && tensor.size(1) == columns, op, ": ", name,
      " must have shape (B, ", columns == c.size(1) ? "U" : "4U", ") with (B, U) from c");
  STD_TORCH_CHECK(tensor.scalar_type() == c.scalar_type(), op, ": ", name, " must have the dtype of c");
  STD_TORCH_CHECK(
      tensor.is_cuda() && tensor.get_device_index() == c.get_device_index(), op, ": ", name,
      " must be on the device of c");
}

std::tuple<Tensor, Tensor> lstm_gates(const Tensor& gates, const Tensor& c) {
  STD_TORCH_CHECK(c.dim() == 2 && c.is_cuda(), "lstm_gates: c must be a CUDA tensor of shape (B, U)");
  const int64_t B = c.size(0), U = c.size(1);
  check_like("lstm_gates", "gates", gates, c, 4 * U);

  const torch::stable::accelerator::DeviceGuard guard(c.get_device_index());
  const Tensor gates_rows = torch::stable::contiguous(gates), c_rows = torch::stable::contiguous(c);
  const Tensor h = torch::stable::new_empty(c, {B, U}), c_next = torch::stable::new_empty(c, {B, U});
  dispatch_dtype("lstm_gates", c.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    fastdraw::launch_lstm_gates_fwd(
        out<T>(h), out<T>(c_next), in<T>(gates_rows), in<T>(c_rows), B, U, current_stream(c));
  });
  check_launch("lstm_gates");
  return {h, c_next};
}

std::tuple<Tensor, Tensor> lstm_gates_bwd(
    const Tensor& dh, const Tensor& dc_next, const Tensor& gates, const Tensor& c) {
  STD_TORCH_CHECK(c.dim() == 2 && c.is_cuda(), "lstm_gates_bwd: c must be a CUDA tensor of shape (B, U)");
  const int64_t B = c.size(0), U = c.size(1);
  check_like("lstm_gates_bwd", "dh", dh, c, U);
  check_like("lstm_gates_bwd", "dc_next", dc_next, c, U);
  check_like("lstm_gates_bwd", "gates", gates, c, 4 * U);

  const torch::stable::accelerator::DeviceGuard guard(c.get_device_index());
  const Tensor dh_rows = torch::stable::contiguous(dh), dc_next_rows = torch::stable::contiguous(dc_next);
  const Tensor gates_rows = torch::stable::contiguous(gates), c_rows = torch::stable::contiguous(c);
  const Tensor dgates = torch::stable::new_empty(c, {B, 4 * U}), dc = torch::stable::new_empty(c, {B, U});
  dispatch_dtype("lstm_gates_bwd", c.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    fastdraw::launch_lstm_gates_bwd(
        out<T>(dgates), out<T>(dc), in<T>(dh_rows), in<T>(dc_next_rows), in<T>(gates_rows), in<T>(c_rows), B, U,
        current_stream(c));
  });
  check_launch("lstm_gates_bwd");
  return {dgates, dc};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdraw, CUDA, m) {
  m.impl("lstm_gates", TORCH_BOX(&lstm_gates));
  m.impl("lstm_gates_bwd", TORCH_BOX(&lstm_gates_bwd));
}
