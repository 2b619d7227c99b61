#pragma once

// The Gaussian filters of a window on CUDA: for every kernel with a window, and the op that stores them; equations in
// filterbank.cu.

#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstring>

#include "cuda/numbers.h"

namespace fastdraw {

// What all samples of a call share.
struct FilterShape {
  int H, W, N;
  bool per_axis;
  double eps;
};

// e is kept 2^32 times too large, so that a filter far off the image, whose e are all below the least float, is as
// exact as any other.
constexpr int kFilterExponent = 32;
constexpr double kFilterScale = static_cast<double>(1ull << kFilterExponent);

// e = exp(-u^2 / 2) = 2^-y. It reaches 2^-158, and y rounded to float would spoil its
// last digits: while it is in double, it is taken apart into an integer and a rest, y = n - r.
FASTDRAW_DEVICE float filter_exponential(double u, float) {
  constexpr double kRound = 0x1.8p52;  // added, it leaves an integer in the last bits
  constexpr unsigned kBias = 127 + kFilterExponent;
  const double product = u * u * 0.72134752044448170368;  // log2(e) / 2
  const double y = product > kBias ? kBias : product;     // NaN runs through
  const double shifted = y + kRound;
  const float r = static_cast<float>((shifted - kRound) - y);
  uint64_t bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  const uint32_t power = (kBias - static_cast<uint32_t>(bits)) << 23;
  float two_n;
  std::memcpy(&two_n, &power, sizeof(two_n));
  // (2^r - 1) / r: the least maximal relative error of 2^r at degree 5, 2e-9.
  float p = 0x1.41fbbcp-13f * r + 0x1.5f3e52p-10f;
  p = (p * r + 0x1.3b2d4cp-7f) * r + 0x1.c6aee8p-5f;
  p = (p * r + 0x1.ebfbdcp-3f) * r + 0x1.62e430p-1f;
  return two_n * (p * r) + two_n;
}
FASTDRAW_DEVICE double filter_exponential(double u, double) { return kFilterScale * std::exp(u * u * -0.5); }

// The filters of one sample: f = 0..2N-1 are the N rows of fy and the N rows of fx. Five numbers and sums of each
// filter lie in memory of the arena, the filters themselves are made where they are needed. All threads of a block call
// every function that takes it, and wait at its end.
template <typename A>
class BlockFilters {
  // In double: it is little work for a filter, and a centre that is rounded to float would cost a narrow filter most of
  // its digits.
  struct Place {
    double mu;
    A total;  // sum_a e + eps
  };
  // What the gradients of a filter need of the filter itself. Deviations are taken from the pixel next to the centre,
  // u = v + r with v = (a - nearest) / sigma: of a filter off the image all u are large and nearly equal, and u - m1
  // would have few digits left.
  struct Moments {
    double nearest, r, mean, square, missing;  // mean = sum v f, square = sum v^2 f, missing = 1 - sum f
  };
  struct Sums {
    double zero, first, second;  // of df f, v df f, v^2 df f
  };
  enum Number { kCentreX, kCentreY, kInverseSigma, kDelta, kGamma, kInverseGamma, kNumbers };

  FilterShape shape_;
  double* numbers_;
  bool* free_;  // whether a raw number lies within its range, that is, has a gradient
  Place* places_;
  Moments* moments_ = nullptr;  // for the backward pass
  Sums* sums_ = nullptr;

 public:
  FASTDRAW_HD BlockFilters(Arena& arena, const FilterShape& shape, bool backward)
      : shape_(shape),
        numbers_(arena.take<double>(kNumbers)),
        free_(arena.take<bool>(5)),
        places_(arena.take<Place>(2 * shape.N)) {
    if (!backward) return;
    moments_ = arena.take<Moments>(2 * shape.N);
    sums_ = arena.take<Sums>(2 * shape.N);
  }

  FASTDRAW_DEVICE A gamma() const { return static_cast<A>(numbers_[kGamma]); }
  FASTDRAW_DEVICE A inverse_gamma() const { return static_cast<A>(numbers_[kInverseGamma]); }
  FASTDRAW_DEVICE bool gamma_is_free() const { return free_[4]; }

  // window: 5 numbers. largest: of the dtype that gamma is for.
  template <typename W>
  FASTDRAW_DEVICE void set_window(const Block& block, const W* window, double largest) {
    block.each(kNumbers, [&](int k) {
      // gx~, gy~, log sigma^2, log delta~, log gamma; the last one twice.
      const int raw = k == kInverseGamma ? kGamma : k;
      const double bound = raw < 2 ? 1e6 : 32, x = widen(window[raw]);
      const bool within = !(x < -bound || x > bound);  // NaN runs through
      const double in_range = within ? x : x < 0 ? -bound : bound;
      if (raw < 2) {
        numbers_[k] = (extent(raw == kCentreX) + 1) / 2 * (in_range + 1) - 1;
        free_[k] = within;
        return;
      }
      double number = std::exp(raw == kInverseSigma ? in_range / -2 : in_range);
      if (raw == kDelta) number /= shape_.N > 1 ? shape_.N - 1 : 1;  // with one filter the spacing is multiplied by 0
      const bool too_large = raw == kGamma && number > largest;
      if (too_large) number = largest;
      if (k == raw) free_[k] = within && !too_large;
      numbers_[k] = k == raw ? number : 1 / number;
    });
    block.each_warp(2 * shape_.N, [&](int f, const Warp& warp) { measure(f, warp); });
  }

  // f[a] of filter f.
  FASTDRAW_DEVICE A value(int f, int a) const {
    const Place place = places_[f];
    // By a division, so that a filter on a single pixel is 1 exactly.
    return filter_exponential((a - place.mu) * numbers_[kInverseSigma], A{}) / place.total;
  }

  // Adds df[a] f[a] = weight(i) of the pixels a = first + i, i < count, to the sums of filter f.
  template <typename Weight>
  FASTDRAW_DEVICE void add_gradient(const Warp& warp, int f, int first, int count, const Weight& weight) const {
    const double inverse_sigma = numbers_[kInverseSigma], from = first - moments_[f].nearest;
    double sums[3];
    warp.sums(count, sums, [&](int i, double (&total)[3]) {
      const double w = weight(i), v = (from + i) * inverse_sigma;
      total[0] += w;
      total[1] += v * w;
      total[2] += v * v * w;
    });
    warp.each(1, [&](int) {
      sums_[f].zero += sums[0];
      sums_[f].first += sums[1];
      sums_[f].second += sums[2];
    });
  }

  // dwindow (5) from what has been added since the window was set, for gamma^power times a linear function of fx.
  template <typename W>
  FASTDRAW_DEVICE void window_gradient(const Block& block, int power, W* dwindow) const {
    const int N = shape_.N;
    block.each_warp(5, [&](int k, const Warp& warp) {
      const double total = warp.sum(2 * N, [&](int f) {
        const bool is_x = f >= N;
        const Moments of = moments_[f];
        const Sums sums = sums_[f];
        const double centred = sums.first - of.mean * sums.zero, missing = of.r * of.missing * sums.zero;
        const double dmu = (centred + missing) * numbers_[kInverseSigma];
        switch (k) {
          case 0: return is_x ? dmu * (extent(true) + 1) / 2 : 0.0;
          case 1: return is_x ? 0.0 : dmu * (extent(false) + 1) / 2;
          case 2: return (sums.second - of.square * sums.zero + of.r * (2 * centred + missing)) / 2;
          case 3: return dmu * filter_offset(f % N, N) * spacing(is_x);
          default: return is_x ? power * sums.zero : 0.0;
        }
      });
      warp.each(1, [&](int) { narrow(static_cast<A>(free_[k] ? total : 0.0), dwindow[k]); });
    });
  }

 private:
  FASTDRAW_DEVICE double extent(bool is_x) const { return is_x ? shape_.W : shape_.H; }
  FASTDRAW_DEVICE double spacing(bool is_x) const {
    const int largest = shape_.H > shape_.W ? shape_.H : shape_.W;
    return ((shape_.per_axis ? extent(is_x) : largest) - 1) * numbers_[kDelta];
  }

  FASTDRAW_DEVICE void measure(int f, const Warp& warp) const {
    const bool is_x = f >= shape_.N;
    const int length = is_x ? shape_.W : shape_.H;
    const double inverse_sigma = numbers_[kInverseSigma];
    const double mu = numbers_[is_x ? kCentreX : kCentreY] + filter_offset(f % shape_.N, shape_.N) * spacing(is_x);
    const auto e = [&](int a) -> double { return filter_exponential((a - mu) * inverse_sigma, A{}); };
    if (moments_ == nullptr) {
      const double total = warp.sum(length, e) + shape_.eps * kFilterScale;
      warp.each(1, [&](int) { places_[f] = {mu, static_cast<A>(total)}; });
      return;
    }
    const double clipped = mu < 0 ? 0 : mu > length - 1 ? length - 1 : mu;  // NaN runs through
    const double nearest = std::floor(clipped + 0.5), deviation = (nearest - mu) * inverse_sigma;
    double sums[3];
    warp.sums(length, sums, [&](int a, double (&total)[3]) {
      const double e_a = e(a), v = (a - nearest) * inverse_sigma;
      total[0] += e_a;
      total[1] += v * e_a;
      total[2] += v * v * e_a;
    });
    const double total = sums[0] + shape_.eps * kFilterScale;
    // Beyond 40 e is 0 in every dtype.
    const double r = deviation < -40 ? -40 : deviation > 40 ? 40 : deviation;
    warp.each(1, [&](int) {
      places_[f] = {mu, static_cast<A>(total)};
      moments_[f] = {nearest, r, sums[1] / total, sums[2] / total, shape_.eps * kFilterScale / total};
      sums_[f] = {0, 0, 0};
    });
  }
};

// The largest gamma of a dtype: float16 is too small for exp of the largest log.
template <typename T>
constexpr double kLargestGamma = std::is_same_v<T, __half> ? 65504 : 1e300;

// Instantiated for float, double, __nv_bfloat16 and __half. Arrays are contiguous and on the current device; outputs
// overlap with no input.

// fy (B, N, H), fx (B, N, W), gamma (B,) from window (B, 5)
template <typename T>
void launch_gaussian_filterbank_fwd(
    T* fy, T* fx, T* gamma, const T* window, int64_t B, const FilterShape& shape, cudaStream_t stream);

// dwindow (B, 5) from dfy (B, N, H), dfx (B, N, W), dgamma (B,) and window (B, 5)
template <typename T>
void launch_gaussian_filterbank_bwd(
    T* dwindow, const T* dfy, const T* dfx, const T* dgamma, const T* window, int64_t B, const FilterShape& shape,
    cudaStream_t stream);

}  // namespace fastdraw
