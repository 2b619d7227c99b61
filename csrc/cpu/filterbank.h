// The Gaussian filters of one sample, and the way back from their gradients to the five numbers of its window.
//
//   f[i,a] = e[i,a] / (sum_a e[i,a] + eps),  e[i,a] = exp(-u^2 / 2),  u = (a - mu[i]) / sigma
//
// Backward, with d = df[i,a] - sum_a df[i,a] f[i,a]:
//
//   dmu[i] = 1/sigma sum_a u f d,   dlog_sigma2 = 1/2 sum_{i,a} u^2 f d
//
// Ranges (raw g~ within +-1e6, logs within +-30, u within +-40) keep everything finite; f is 0 long before |u| is 40.
#pragma once

#include <torch/headeronly/util/Exception.h>

#include <limits>

#include "cpu/simd.h"

namespace fastdraw {

// What all samples of a call share.
struct Grid {
  int64_t n, height, width;
  bool per_axis;
  double eps;
};

inline Grid make_grid(const char* op, int64_t n, int64_t height, int64_t width, bool per_axis, double eps) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  STD_TORCH_CHECK(n >= 1 && n <= kMax, op, ": n must be at least 1, got ", n);
  STD_TORCH_CHECK(
      height >= 1 && height <= kMax && width >= 1 && width <= kMax, op, ": the image must have at least one pixel, got ",
      height, " x ", width);
  return {n, height, width, per_axis, eps};
}

// A window in pixels. Always in double: it is a few operations per sample, and a centre that is rounded to float would
// cost a narrow filter most of its digits.
struct Geometry {
  double gy, gx, delta_y, delta_x, sigma, gamma;
  bool free[5];  // whether the raw number lies within its range, that is, has a gradient
};

inline double clamp(double x, double bound, bool& within) {
  within = !(x < -bound || x > bound);
  return within ? x : (x < 0 ? -bound : bound);  // NaN runs through
}

template <typename T>
inline Geometry window_geometry(const T* window, int64_t stride, const Grid& grid) {
  constexpr double kMaxCentre = 1e6, kMaxLog = 30;
  const double max_gamma = static_cast<double>(std::numeric_limits<T>::max());
  double raw[5];
  Geometry at;
  for (int k = 0; k < 5; ++k) {
    raw[k] = clamp(static_cast<double>(window[k * stride]), k < 2 ? kMaxCentre : kMaxLog, at.free[k]);
  }
  const auto extent_y = grid.per_axis ? grid.height : std::max(grid.height, grid.width);
  const auto extent_x = grid.per_axis ? grid.width : std::max(grid.height, grid.width);
  const double delta = std::exp(raw[3]) / static_cast<double>(std::max<int64_t>(grid.n - 1, 1));
  at.gx = static_cast<double>(grid.width + 1) / 2 * (raw[0] + 1) - 1;
  at.gy = static_cast<double>(grid.height + 1) / 2 * (raw[1] + 1) - 1;
  at.delta_y = static_cast<double>(extent_y - 1) * delta;
  at.delta_x = static_cast<double>(extent_x - 1) * delta;
  at.sigma = std::exp(raw[2] / 2);
  at.gamma = std::exp(raw[4]);
  if (at.gamma > max_gamma) {  // float16 only
    at.gamma = max_gamma;
    at.free[4] = false;
  }
  return at;
}

// Deviations u of the pixels from one filter's centre. The centre is split into a whole number and a rest, so that
// a - mu is exact to the last digit of the rest.
template <typename A>
struct Deviation {
  A whole, rest, inverse_sigma;
  Deviation(double mu, double sigma)
      : whole(static_cast<A>(std::nearbyint(mu))),
        rest(static_cast<A>(mu - static_cast<double>(whole))),
        inverse_sigma(static_cast<A>(1 / sigma)) {}
  A operator()(int32_t a) const {
    const A u = ((static_cast<A>(a) - whole) - rest) * inverse_sigma;
    return u < -40 ? A(-40) : (u > 40 ? A(40) : u);
  }
};

template <typename A>
inline void filter_row(const Deviation<A>& deviation, double eps, int64_t length, A* __restrict f) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int32_t a = 0; a < static_cast<int32_t>(length); ++a) {
    const A u = deviation(a);
    f[a] = exp_nonpositive(u * u * A(-0.5)).value;
    sum += f[a];
  }
  const A scale = static_cast<A>(1 / (static_cast<double>(sum) + eps));
#pragma omp simd
  for (int64_t a = 0; a < length; ++a) f[a] *= scale;
}

struct RowGradient {
  double mu, log_sigma2;
};

template <typename A>
inline RowGradient filter_row_bwd(
    const Deviation<A>& deviation, int64_t length, const A* __restrict f, const A* __restrict df) {
  const A mean = dot(length, f, df);
  A first = 0, second = 0;
#pragma omp simd reduction(+ : first, second)
  for (int32_t a = 0; a < static_cast<int32_t>(length); ++a) {
    const A u = deviation(a), term = u * f[a] * (df[a] - mean);
    first += term;
    second += u * term;
  }
  return {static_cast<double>(first) * static_cast<double>(deviation.inverse_sigma), static_cast<double>(second) / 2};
}

// The filters of one sample at a time, in scratch memory: fy (N, H) and fx (N, W).
template <typename A>
class Filterbank {
  Grid grid_;
  Geometry at_{};

 public:
  Matrix<A> fy, fx;

  explicit Filterbank(const Grid& grid) : grid_(grid), fy(grid.n, grid.height), fx(grid.n, grid.width) {}

  A gamma() const { return static_cast<A>(at_.gamma); }
  A inverse_gamma() const { return static_cast<A>(1 / at_.gamma); }

  template <typename T>
  void set_window(const T* window, int64_t stride) {
    at_ = window_geometry(window, stride, grid_);
    for (int64_t i = 0; i < grid_.n; ++i) {
      filter_row(deviation_y(i), grid_.eps, grid_.height, fy.row(i));
      filter_row(deviation_x(i), grid_.eps, grid_.width, fx.row(i));
    }
  }

  // Write the gradient of the window that was set last.
  template <typename T>
  void backward(const Matrix<A>& dfy, const Matrix<A>& dfx, double dlog_gamma, T* dwindow) const {
    double dgy = 0, dgx = 0, dlog_sigma2 = 0, dlog_delta = 0;
    for (int64_t i = 0; i < grid_.n; ++i) {
      const RowGradient y = filter_row_bwd(deviation_y(i), grid_.height, fy.row(i), dfy.row(i));
      const RowGradient x = filter_row_bwd(deviation_x(i), grid_.width, fx.row(i), dfx.row(i));
      dgy += y.mu;
      dgx += x.mu;
      dlog_sigma2 += y.log_sigma2 + x.log_sigma2;
      dlog_delta += filter_offset(i, grid_.n) * (y.mu * at_.delta_y + x.mu * at_.delta_x);
    }
    const double draw[5] = {
        dgx * static_cast<double>(grid_.width + 1) / 2, dgy * static_cast<double>(grid_.height + 1) / 2, dlog_sigma2,
        dlog_delta, dlog_gamma};
    for (int k = 0; k < 5; ++k) dwindow[k] = static_cast<T>(static_cast<Compute<T>>(at_.free[k] ? draw[k] : 0.0));
  }

 private:
  Deviation<A> deviation_y(int64_t i) const {
    return {at_.gy + filter_offset(i, grid_.n) * at_.delta_y, at_.sigma};
  }
  Deviation<A> deviation_x(int64_t i) const {
    return {at_.gx + filter_offset(i, grid_.n) * at_.delta_x, at_.sigma};
  }
};

}  // namespace fastdraw
