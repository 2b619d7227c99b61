// The Gaussian filters of one sample, and the way back from their gradients to the five numbers of its window.
//
//   f[i,a] = e[i,a] / (sum_a e[i,a] + eps),  e[i,a] = exp(-u^2 / 2),  u = (a - mu[i]) / sigma
//
// Backward, with d = df[i,a] - sum_a df[i,a] f[i,a]:
//
//   dmu[i] = 1/sigma sum_a u f d,   dlog_sigma2 = 1/2 sum_{i,a} u^2 f d
//
// Ranges (raw g~ within +-1e6, logs within +-32) keep everything finite. Where |u| is 40, e is 0 in every dtype.
#pragma once

#include <limits>
#include <vector>

#include "cpu/tensor.h"

namespace fastdraw {

// What all samples of a call share.
struct Grid {
  int64_t n, height, width;
  bool per_axis;
  double eps;
};

inline Grid make_grid(const char* op, int64_t n, int64_t height, int64_t width, bool per_axis, double eps) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();  // pixels are counted in int32 in the vector loops
  STD_TORCH_CHECK(n >= 1 && n <= kMax, op, ": n must be at least 1, got ", n);
  STD_TORCH_CHECK(
      height >= 1 && height <= kMax && width >= 1 && width <= kMax, op,
      ": the image must have at least one pixel, got ", height, " x ", width);
  return {n, height, width, per_axis, eps};
}

// The N filters of one axis. Always in double: it is a few operations per sample, and a centre that is rounded to float
// would cost a narrow filter most of its digits.
struct Axis {
  int64_t n, length;
  double centre, delta, sigma;

  double mu(int64_t i) const { return centre + filter_offset(i, n) * delta; }
};

struct AxisGradient {
  double centre, log_delta, log_sigma2;
  double gain;  // sum_{i,a} df f: of the log of a factor on the filters
};

// f (n, length) in rows of ld, and the sum of each row, free of the rounding of f.
void filter_rows(const Axis& axis, double eps, float* f, int64_t ld, double* sums);
void filter_rows(const Axis& axis, double eps, double* f, int64_t ld, double* sums);

AxisGradient filter_rows_bwd(const Axis& axis, const float* f, const float* df, int64_t ld, const double* sums);
AxisGradient filter_rows_bwd(const Axis& axis, const double* f, const double* df, int64_t ld, const double* sums);

// A window in pixels.
struct Geometry {
  Axis y, x;
  double gamma;
  bool free[5];  // whether the raw number lies within its range, that is, has a gradient
};

Geometry window_geometry(const double (&raw)[5], const Grid& grid, ScalarType dtype);

// The filters of one sample at a time, in scratch memory: fy (N, H) and fx (N, W).
template <typename A>
class Filterbank {
  Grid grid_;
  Geometry at_{};
  std::vector<double> sums_y_, sums_x_;

 public:
  Matrix<A> fy, fx;

  explicit Filterbank(const Grid& grid)
      : grid_(grid),
        sums_y_(static_cast<size_t>(grid.n)),
        sums_x_(static_cast<size_t>(grid.n)),
        fy(grid.n, grid.height),
        fx(grid.n, grid.width) {}

  A gamma() const { return static_cast<A>(at_.gamma); }
  A inverse_gamma() const { return static_cast<A>(1 / at_.gamma); }

  // window: 5 numbers that were stored as `dtype`.
  void set_window(const A* window, ScalarType dtype) {
    const double raw[5] = {window[0], window[1], window[2], window[3], window[4]};
    at_ = window_geometry(raw, grid_, dtype);
    filter_rows(at_.y, grid_.eps, fy.row(0), fy.ld(), sums_y_.data());
    filter_rows(at_.x, grid_.eps, fx.row(0), fx.ld(), sums_x_.data());
  }

  // dwindow (5), of the window that was set last, from the gradients of gamma^power * a linear function of fx.
  void backward(const Matrix<A>& dfy, const Matrix<A>& dfx, int power, A* dwindow) const {
    const AxisGradient y = filter_rows_bwd(at_.y, fy.row(0), dfy.row(0), fy.ld(), sums_y_.data());
    const AxisGradient x = filter_rows_bwd(at_.x, fx.row(0), dfx.row(0), fx.ld(), sums_x_.data());
    const double raw[5] = {
        x.centre * static_cast<double>(grid_.width + 1) / 2, y.centre * static_cast<double>(grid_.height + 1) / 2,
        y.log_sigma2 + x.log_sigma2, y.log_delta + x.log_delta, power * x.gain};
    for (int k = 0; k < 5; ++k) dwindow[k] = static_cast<A>(at_.free[k] ? raw[k] : 0.0);
  }

  // dwindow[4] from the gradient of gamma.
  A gain_gradient(A dgamma) const { return at_.free[4] ? dgamma * gamma() : A(0); }
};

}  // namespace fastdraw
