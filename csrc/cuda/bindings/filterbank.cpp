#include "cuda/filterbank.h"

#include <limits>
#include <tuple>

#include "cuda/bindings/tensor.h"

namespace fastdraw {
namespace {

FilterShape filter_shape(
    const char* op, const Tensor& window, int64_t n, int64_t height, int64_t width, bool per_axis, double eps) {
  STD_TORCH_CHECK(window.dim() == 2, op, ": window must have shape (B, 5)");
  check_tensor(op, "window", window, window, {window.size(0), 5});
  constexpr int64_t kMost = std::numeric_limits<int>::max();
  STD_TORCH_CHECK(
      n >= 1 && height >= 1 && width >= 1 && height <= kMost / n && width <= kMost / n, op, ": ", n, " filters of ",
      height, " and of ", width, " pixels are none or too many");
  return {static_cast<int>(height), static_cast<int>(width), static_cast<int>(n), per_axis, eps};
}

std::tuple<Tensor, Tensor, Tensor> gaussian_filterbank(
    const Tensor& window, int64_t n, int64_t height, int64_t width, bool per_axis, double eps) {
  const char* op = "gaussian_filterbank";
  const FilterShape shape = filter_shape(op, window, n, height, width, per_axis, eps);
  const int64_t B = window.size(0);

  const DeviceGuard guard(window);
  const Tensor window_rows = torch::stable::contiguous(window);
  const Tensor fy = torch::stable::new_empty(window, {B, n, height});
  const Tensor fx = torch::stable::new_empty(window, {B, n, width});
  const Tensor gamma = torch::stable::new_empty(window, {B});
  dispatch_dtype(op, window.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    launch_gaussian_filterbank_fwd(
        out<T>(fy), out<T>(fx), out<T>(gamma), in<T>(window_rows), B, shape, current_stream(window));
  });
  check_launch(op);
  return {fy, fx, gamma};
}

Tensor gaussian_filterbank_bwd(
    const Tensor& dfy, const Tensor& dfx, const Tensor& dgamma, const Tensor& window, int64_t n, int64_t height,
    int64_t width, bool per_axis, double eps) {
  const char* op = "gaussian_filterbank_bwd";
  const FilterShape shape = filter_shape(op, window, n, height, width, per_axis, eps);
  const int64_t B = window.size(0);
  check_tensor(op, "dfy", dfy, window, {B, n, height});
  check_tensor(op, "dfx", dfx, window, {B, n, width});
  check_tensor(op, "dgamma", dgamma, window, {B});

  const DeviceGuard guard(window);
  const Tensor dfy_rows = torch::stable::contiguous(dfy), dfx_rows = torch::stable::contiguous(dfx);
  const Tensor dgamma_rows = torch::stable::contiguous(dgamma), window_rows = torch::stable::contiguous(window);
  const Tensor dwindow = torch::stable::new_empty(window, {B, 5});
  dispatch_dtype(op, window.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    launch_gaussian_filterbank_bwd(
        out<T>(dwindow), in<T>(dfy_rows), in<T>(dfx_rows), in<T>(dgamma_rows), in<T>(window_rows), B, shape,
        current_stream(window));
  });
  check_launch(op);
  return dwindow;
}

}  // namespace

FASTDRAW_CUDA_LIBRARY(m) {
  m.impl("gaussian_filterbank", TORCH_BOX(&gaussian_filterbank));
  m.impl("gaussian_filterbank_bwd", TORCH_BOX(&gaussian_filterbank_bwd));
}

}  // namespace fastdraw
