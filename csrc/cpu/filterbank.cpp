// window (B, 5) -> fy (B, N, H), fx (B, N, W), gamma (B,); the equations stand in filterbank.h.
//
// A thread takes whole samples. Reads 5 B, writes B (N (H + W) + 1) elements. The backward pass computes the filters
// again. Every sum runs in one order, whatever the number of threads.
#include "cpu/filterbank.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cpu/tensor.h"

namespace fastdraw {
namespace {

template <typename T>
struct FilterbankForward {
  Grid grid;
  Strided<T, 2> window;
  T *fy, *fx, *gamma;

  void operator()(int64_t begin, int64_t end) const {
    Filterbank<Compute<T>> filters(grid);
    for (int64_t b = begin; b < end; ++b) {
      filters.set_window(window.at(b), window.strides[1]);
      for (int64_t i = 0; i < grid.n; ++i) {
        store_row(filters.fy.row(i), grid.height, fy + (b * grid.n + i) * grid.height);
        store_row(filters.fx.row(i), grid.width, fx + (b * grid.n + i) * grid.width);
      }
      gamma[b] = static_cast<T>(filters.gamma());
    }
  }
};

template <typename T>
struct FilterbankBackward {
  Grid grid;
  Strided<T, 3> dfy, dfx;
  Strided<T, 1> dgamma;
  Strided<T, 2> window;
  T* dwindow;

  void operator()(int64_t begin, int64_t end) const {
    using A = Compute<T>;
    Filterbank<A> filters(grid);
    Matrix<A> dfy_rows(grid.n, grid.height), dfx_rows(grid.n, grid.width);
    for (int64_t b = begin; b < end; ++b) {
      filters.set_window(window.at(b), window.strides[1]);
      for (int64_t i = 0; i < grid.n; ++i) {
        load_row(dfy.at(b, i), dfy.strides[2], grid.height, dfy_rows.row(i));
        load_row(dfx.at(b, i), dfx.strides[2], grid.width, dfx_rows.row(i));
      }
      const A dlog_gamma = static_cast<A>(*dgamma.at(b)) * filters.gamma();
      filters.backward(dfy_rows, dfx_rows, dlog_gamma, dwindow + b * 5);
    }
  }
};

FASTDRAW_RUN_RANGE(FilterbankForward)
FASTDRAW_RUN_RANGE(FilterbankBackward)

std::tuple<Tensor, Tensor, Tensor> gaussian_filterbank(
    const Tensor& window, int64_t n, int64_t height, int64_t width, bool per_axis, double eps) {
  const char* op = "gaussian_filterbank";
  const Grid grid = make_grid(op, n, height, width, per_axis, eps);
  check_dim(op, "window", window, 2);
  const int64_t B = window.size(0);
  const ScalarType dtype = window.scalar_type();
  check_tensor(op, "window", window, dtype, {B, 5});
  const Tensor fy = new_empty(window, {B, n, height}), fx = new_empty(window, {B, n, width});
  const Tensor gamma = new_empty(window, {B});
  with_dtype(op, dtype, [&](auto element) {
    using T = decltype(element);
    const FilterbankForward<T> work{grid, window, output<T>(fy), output<T>(fx), output<T>(gamma)};
    run_parallel(work, B, 16 * n * (height + width));
  });
  return {fy, fx, gamma};
}

Tensor gaussian_filterbank_bwd(
    const Tensor& dfy, const Tensor& dfx, const Tensor& dgamma, const Tensor& window, int64_t n, int64_t height,
    int64_t width, bool per_axis, double eps) {
  const char* op = "gaussian_filterbank_bwd";
  const Grid grid = make_grid(op, n, height, width, per_axis, eps);
  check_dim(op, "window", window, 2);
  const int64_t B = window.size(0);
  const ScalarType dtype = window.scalar_type();
  check_tensor(op, "window", window, dtype, {B, 5});
  check_tensor(op, "dfy", dfy, dtype, {B, n, height});
  check_tensor(op, "dfx", dfx, dtype, {B, n, width});
  check_tensor(op, "dgamma", dgamma, dtype, {B});
  const Tensor dwindow = new_empty(window, {B, 5});
  with_dtype(op, dtype, [&](auto element) {
    using T = decltype(element);
    const FilterbankBackward<T> work{grid, dfy, dfx, dgamma, window, output<T>(dwindow)};
    run_parallel(work, B, 24 * n * (height + width));
  });
  return dwindow;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdraw, CPU, m) {
  m.impl("gaussian_filterbank", TORCH_BOX(&gaussian_filterbank));
  m.impl("gaussian_filterbank_bwd", TORCH_BOX(&gaussian_filterbank_bwd));
}

}  // namespace fastdraw
