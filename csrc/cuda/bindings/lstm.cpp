#include "cuda/lstm.h"

#include <tuple>

#include "cuda/bindings/tensor.h"

namespace fastdraw {
namespace {

std::tuple<Tensor, Tensor> lstm_gates(const Tensor& gates, const Tensor& c) {
  STD_TORCH_CHECK(c.dim() == 2, "lstm_gates: c must have shape (B, U)");
  const int64_t B = c.size(0), U = c.size(1);
  check_tensor("lstm_gates", "gates", gates, c, {B, 4 * U});

  const DeviceGuard guard(c);
  const Tensor gates_rows = torch::stable::contiguous(gates), c_rows = torch::stable::contiguous(c);
  const Tensor h = torch::stable::new_empty(c, {B, U}), c_next = torch::stable::new_empty(c, {B, U});
  dispatch_dtype("lstm_gates", c.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    launch_lstm_gates_fwd(out<T>(h), out<T>(c_next), in<T>(gates_rows), in<T>(c_rows), B, U, current_stream(c));
  });
  check_launch("lstm_gates");
  return {h, c_next};
}

std::tuple<Tensor, Tensor> lstm_gates_bwd(
    const Tensor& dh, const Tensor& dc_next, const Tensor& gates, const Tensor& c) {
  STD_TORCH_CHECK(c.dim() == 2, "lstm_gates_bwd: c must have shape (B, U)");
  const int64_t B = c.size(0), U = c.size(1);
  check_tensor("lstm_gates_bwd", "dh", dh, c, {B, U});
  check_tensor("lstm_gates_bwd", "dc_next", dc_next, c, {B, U});
  check_tensor("lstm_gates_bwd", "gates", gates, c, {B, 4 * U});

  const DeviceGuard guard(c);
  const Tensor dh_rows = torch::stable::contiguous(dh), dc_next_rows = torch::stable::contiguous(dc_next);
  const Tensor gates_rows = torch::stable::contiguous(gates), c_rows = torch::stable::contiguous(c);
  const Tensor dgates = torch::stable::new_empty(c, {B, 4 * U}), dc = torch::stable::new_empty(c, {B, U});
  dispatch_dtype("lstm_gates_bwd", c.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    launch_lstm_gates_bwd(
        out<T>(dgates), out<T>(dc), in<T>(dh_rows), in<T>(dc_next_rows), in<T>(gates_rows), in<T>(c_rows), B, U,
        current_stream(c));
  });
  check_launch("lstm_gates_bwd");
  return {dgates, dc};
}

}  // namespace

FASTDRAW_CUDA_LIBRARY(m) {
  m.impl("lstm_gates", TORCH_BOX(&lstm_gates));
  m.impl("lstm_gates_bwd", TORCH_BOX(&lstm_gates_bwd));
}

}  // namespace fastdraw
