// window (B, 5) -> fy (B, N, H), fx (B, N, W), gamma (B,); the equations stand in filterbank.h.
//
// A thread takes whole samples. Reads 5 B, writes B (N (H + W) + 1) elements. The backward pass computes the filters
// again. Every sum runs in one order, whatever the number of threads.
#include "cpu/filterbank.h"

#include <torch/csrc/stable/library.h>

#include <bit>
#include <cmath>
#include <tuple>

#include "cpu/simd.h"
#include "cpu/vectors.h"

namespace fastdraw {
namespace {

double clamp(double x, double bound, bool& within) {
  within = !(x < -bound || x > bound);  // NaN runs through
  return within ? x : x < 0 ? -bound : bound;
}

// The pixels where a filter may differ from 0, in runs of 64: loops over most rows then have one length, which branch
// predictors know. They may run into the padding of a row. The loops count from 0: with a first pixel that is not
// known, GCC takes an int32 index that may wrap around for a scattered access.
struct Support {
  int32_t begin, size;
  double mu;  // from `begin`
};

// |u| from which e is 0: exp(-14.9^2 / 2) < 2^(-126 - kExponent), and exp(-40^2 / 2) is 0 in double.
constexpr double reach(float) { return 14.9; }
constexpr double reach(double) { return 40; }

constexpr int32_t kRun = 64;

template <typename A>
inline Support support(const Axis& axis, double mu, int64_t ld) {
  const double width = reach(A{}) * axis.sigma, length = static_cast<double>(axis.length);
  // NaN takes the whole row, and runs through.
  const auto begin = static_cast<int32_t>(mu - width > 0 ? std::min(mu - width, length) : 0);
  const auto end = static_cast<int32_t>(mu + width + 1 < length ? std::max(mu + width + 1, 0.0) : length);
  const auto aligned = static_cast<int32_t>(begin / kRun * kRun);
  return {aligned, static_cast<int32_t>(std::min(round_up(end, kRun), ld)) - aligned, mu - aligned};
}

// e is kept 2^32 times too large, so that a filter far off the image, whose e are all below the least float, is as
// exact as any other.
constexpr int kExponent = 32;
constexpr double kScale = static_cast<double>(1ull << kExponent);

// f = e.
inline void exponentials(const Support& at, double sigma, double* __restrict f) {
  for (int32_t a = 0; a < at.size; ++a) {
    const double u = (a - at.mu) / sigma;
    f[a] = kScale * std::exp(u * u * -0.5);
  }
}

// e = 2^-y, y = log2(e) u^2 / 2. It reaches 158, and rounded to float would spoil the last digits of e: while it is in
// double, it is taken apart into an integer and a rest, y = n - r.
inline void exponentials(const Support& at, double sigma, float* __restrict f) {
  constexpr int32_t kBias = 127 + kExponent;
  constexpr double kRound = 0x1.8p52;                // added, it leaves an integer
  const double scale = 0.84932180028801907 / sigma;  // sqrt(log2(e) / 2)
  // Where 2^-n is 0. No constant, which compilers would follow to the result: that takes more than a minimum.
  const double most = kBias + 0.0 * at.size;
  alignas(64) float r[kRun];
  alignas(64) int32_t n[kRun];
  for (int32_t run = 0; run < at.size; run += kRun, f += kRun) {
    const int32_t size = std::min(kRun, at.size - run);
    const double mu = at.mu - run;
#pragma omp simd
    for (int32_t a = 0; a < size; ++a) {
      const double root = (a - mu) * scale, square = root * root;
      const double y = square < most ? square : most;
      const double rounded = (y + kRound) - kRound;
      n[a] = static_cast<int32_t>(rounded);
      r[a] = static_cast<float>(rounded - y);
    }
#pragma omp simd
    for (int32_t a = 0; a < size; ++a) {
      const float x = r[a], two_n = std::bit_cast<float>((kBias - n[a]) << 23);
      // (2^r - 1) / r: the least maximal relative error of 2^r at degree 5, 2e-9.
      float p = 0x1.41fbbcp-13f * x + 0x1.5f3e52p-10f;
      p = (p * x + 0x1.3b2d4cp-7f) * x + 0x1.c6aee8p-5f;
      p = (p * x + 0x1.ebfbdcp-3f) * x + 0x1.62e430p-1f;
      f[a] = two_n * (p * x) + two_n;
    }
  }
}

// Divides by the sum, and returns what part of it the row is.
template <typename A>
inline double normalise(const Support& at, double eps, A* __restrict f) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int32_t a = 0; a < at.size; ++a) sum += f[a];
  const double exact_total = static_cast<double>(sum) + eps * kScale;
  const A total = static_cast<A>(exact_total), least = total * std::numeric_limits<A>::min();
#pragma omp simd
  for (int32_t a = 0; a < at.size; ++a) {
    // A division, so that a filter on a single pixel is 1 exactly. Subnormal numbers would slow the products down.
    const A e = f[a] < least ? A(0) : f[a];
    f[a] = e / total;
  }
  return static_cast<double>(sum) / exact_total;  // eps keeps it below 1
}

// Loops over all rows, one after the other: what a row's sum waits for is then hidden by the next row.
template <typename A>
inline void filter_all(const Axis& axis, double eps, A* f, int64_t ld, double* sums) {
  for (int64_t i = 0; i < axis.n; ++i) {
    A* row = f + i * ld;
    const Support at = support<A>(axis, axis.mu(i), ld);
    std::fill_n(row, at.begin, A(0));
    exponentials(at, axis.sigma, row + at.begin);
    const int64_t end = std::min<int64_t>(at.begin + at.size, axis.length);
    std::fill_n(row + end, ld - end, A(0));
  }
  const double nan = (axis.centre + axis.delta + axis.sigma) * 0;  // 0, or NaN, which the exponentials lose
  for (int64_t i = 0; i < axis.n; ++i) {
    const Support at = support<A>(axis, axis.mu(i), ld);
    sums[i] = normalise(at, eps + nan, f + i * ld + at.begin);
  }
}

// Adds the gradients of R filters. In double: where one pixel has nearly all of a filter, d is the small difference of
// large numbers. Off the image all u are large and nearly equal, and cancel only if f is brought to its exact sum.
template <int R, typename A>
inline void add_gradients(
    const Axis& axis, int64_t row, const A* f, const A* df, int64_t ld, const double* sums, AxisGradient& total) {
  using Vector = Vectors<double>::Value;
  const auto widened = [&](const A* x, int64_t i, int64_t a, Vector& to) {
    const A* from = x + (row + i) * ld + a;
    to = Vector{from[0], from[1], from[2], from[3]};
  };
  const double inverse_sigma = 1 / axis.sigma;
  Vector fi, dfi, lanes[4][4]{};
  auto& [sum, mean, first, second] = lanes;
  for (int64_t a = 0; a < ld; a += 4) {
    for (int i = 0; i < R; ++i) {
      widened(f, i, a, fi), widened(df, i, a, dfi);
      sum[i] += fi;
      mean[i] += fi * dfi;
    }
  }
  Vector sums_i, gains, first_i, second_i;
  sum_lanes(sum, sums_i);
  sum_lanes(mean, gains);
  double correction[R], mean_i[R], mu[R];
  for (int i = 0; i < R; ++i) {
    correction[i] = sums_i[i] > 0 ? sums[row + i] / sums_i[i] : 1;
    mean_i[i] = gains[i] * correction[i];
    mu[i] = axis.mu(row + i);
  }
  Vector pixel = {0, 1, 2, 3};
  for (int64_t a = 0; a < ld; a += 4, pixel += 4.0) {
    for (int i = 0; i < R; ++i) {
      widened(f, i, a, fi), widened(df, i, a, dfi);
      const Vector u = (pixel - mu[i]) * inverse_sigma, term = u * fi * (dfi - mean_i[i]);
      first[i] += term;
      second[i] += u * term;
    }
  }
  sum_lanes(first, first_i);
  sum_lanes(second, second_i);
  for (int i = 0; i < R; ++i) {
    const double dmu = first_i[i] * correction[i] * inverse_sigma;
    total.centre += dmu;
    total.log_delta += dmu * filter_offset(row + i, axis.n) * axis.delta;
    total.log_sigma2 += second_i[i] * correction[i] / 2;
    total.gain += gains[i];
  }
}

template <typename A>
inline AxisGradient filter_all_bwd(const Axis& axis, const A* f, const A* df, int64_t ld, const double* sums) {
  AxisGradient total{};
  int64_t row = 0;
  for (; row + 4 <= axis.n; row += 4) add_gradients<4>(axis, row, f, df, ld, sums, total);
  for (; row < axis.n; ++row) add_gradients<1>(axis, row, f, df, ld, sums, total);
  return total;
}

}  // namespace

FASTDRAW_CLONES void filter_rows(const Axis& axis, double eps, float* f, int64_t ld, double* sums) {
  filter_all(axis, eps, f, ld, sums);
}
FASTDRAW_CLONES void filter_rows(const Axis& axis, double eps, double* f, int64_t ld, double* sums) {
  filter_all(axis, eps, f, ld, sums);
}

FASTDRAW_CLONES AxisGradient
filter_rows_bwd(const Axis& axis, const float* f, const float* df, int64_t ld, const double* sums) {
  return filter_all_bwd(axis, f, df, ld, sums);
}
FASTDRAW_CLONES AxisGradient
filter_rows_bwd(const Axis& axis, const double* f, const double* df, int64_t ld, const double* sums) {
  return filter_all_bwd(axis, f, df, ld, sums);
}

Geometry window_geometry(const double (&raw)[5], const Grid& grid, ScalarType dtype) {
  constexpr double kMaxCentre = 1e6, kMaxLog = 32, kMaxHalf = 65504;
  Geometry at{};
  double in_range[5];
  for (int k = 0; k < 5; ++k) in_range[k] = clamp(raw[k], k < 2 ? kMaxCentre : kMaxLog, at.free[k]);
  const auto [gx, gy, log_sigma2, log_delta, log_gamma] = in_range;

  const auto height = static_cast<double>(grid.height), width = static_cast<double>(grid.width);
  const double largest = std::max(height, width);
  // With one filter the spacing is multiplied by 0.
  const double delta = std::exp(log_delta) / static_cast<double>(std::max<int64_t>(grid.n - 1, 1));
  const double sigma = std::exp(log_sigma2 / 2);
  at.y = {
      grid.n, grid.height, (height + 1) / 2 * (gy + 1) - 1, ((grid.per_axis ? height : largest) - 1) * delta, sigma};
  at.x = {grid.n, grid.width, (width + 1) / 2 * (gx + 1) - 1, ((grid.per_axis ? width : largest) - 1) * delta, sigma};
  at.gamma = std::exp(log_gamma);
  if (dtype == ScalarType::Half && at.gamma > kMaxHalf) {
    at.gamma = kMaxHalf;
    at.free[4] = false;
  }
  return at;
}

namespace {

template <typename A>
struct FilterbankForward {
  Grid grid;
  Input<2> window;
  Output fy, fx, gamma;

  void operator()(int64_t begin, int64_t end) const {
    Filterbank<A> filters(grid);
    for (int64_t b = begin; b < end; ++b) {
      A raw[5];
      window.load(raw, 5, 1, 5, b);
      filters.set_window(raw, window.dtype);
      fy.store(filters.fy.row(0), filters.fy.ld(), grid.n, grid.height, b * grid.n * grid.height);
      fx.store(filters.fx.row(0), filters.fx.ld(), grid.n, grid.width, b * grid.n * grid.width);
      const A stored = filters.gamma();
      gamma.store(&stored, 1, 1, 1, b);
    }
  }
};

template <typename A>
struct FilterbankBackward {
  Grid grid;
  Input<3> dfy, dfx;
  Input<1> dgamma;
  Input<2> window;
  Output dwindow;

  void operator()(int64_t begin, int64_t end) const {
    Filterbank<A> filters(grid);
    Matrix<A> dfy_rows(grid.n, grid.height), dfx_rows(grid.n, grid.width);
    for (int64_t b = begin; b < end; ++b) {
      A raw[5], dwindow_row[5], dgamma_b;
      window.load(raw, 5, 1, 5, b);
      filters.set_window(raw, window.dtype);
      dfy.load(dfy_rows.row(0), dfy_rows.ld(), grid.n, grid.height, b);
      dfx.load(dfx_rows.row(0), dfx_rows.ld(), grid.n, grid.width, b);
      dgamma.load(&dgamma_b, 1, 1, 1, b);
      filters.backward(dfy_rows, dfx_rows, 0, dwindow_row);
      dwindow_row[4] = filters.gain_gradient(dgamma_b);
      dwindow.store(dwindow_row, 5, 1, 5, b * 5);
    }
  }
};

int64_t filters_cost(const Grid& grid) { return 24 * grid.n * (grid.height + grid.width); }

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
  with_compute_type(op, dtype, [&](auto compute) {
    run_parallel(FilterbankForward<decltype(compute)>{grid, window, fy, fx, gamma}, B, filters_cost(grid));
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
  with_compute_type(op, dtype, [&](auto compute) {
    const FilterbankBackward<decltype(compute)> work{grid, dfy, dfx, dgamma, window, dwindow};
    run_parallel(work, B, 2 * filters_cost(grid));
  });
  return dwindow;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdraw, CPU, m) {
  m.impl("gaussian_filterbank", TORCH_BOX(&gaussian_filterbank));
  m.impl("gaussian_filterbank_bwd", TORCH_BOX(&gaussian_filterbank_bwd));
}

}  // namespace fastdraw
