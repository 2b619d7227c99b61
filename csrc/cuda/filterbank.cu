//   f[i,a] = e[i,a] / (sum_a e[i,a] + eps),  e[i,a] = exp(-u^2 / 2),  u = (a - mu[i]) / sigma
//
// Backward, with m1 and m2 the sums over a of u f and u^2 f:
//
//   dmu[i] = 1/sigma sum_a df f (u - m1),   dlog_sigma2 = 1/2 sum_{i,a} df f (u^2 - m2)
//
// and, with v the deviation from the pixel next to the centre, u = v + r, and mean, square the sums of v f and v^2 f,
//
//   u - m1 = v - mean + r (1 - sum f),   u^2 - m2 = v^2 - square + 2 r (v - mean) + r^2 (1 - sum f)
//
// Ranges (raw g~ within +-1e6, logs within +-32) keep everything finite.
//
// A block computes both axes of one sample; a warp sums up a filter. Forward: reads 5 and writes N (H + W) + 1
// elements; backward: reads as many, writes 5, and makes the filters again. Warps add in one order: deterministic.

#include "cuda/filterbank.h"

#include "cuda/launch.h"
#include "cuda/rows.h"

namespace fastdraw {
namespace {

constexpr int kThreads = 256;

// to (N, length) = the filters first..first+N-1.
template <typename T>
FASTDRAW_DEVICE void store_filters(
    const Block& block, const BlockFilters<Compute<T>>& filters, int first, int N, int length, T* to) {
  constexpr int kVec = kVectorBytes / sizeof(T);
  const bool whole = fits<kVec>(length, to);
  block.each(N * static_cast<int>(divide_up(length, kVec)), [&](int vector) {
    const auto [i, at, count] = split_rows(vector, length, kVec);
    const int f = first + static_cast<int>(i), a = static_cast<int>(at - i * length);
    Pack<Compute<T>, kVec> values;
    for (int v = 0; v < kVec; ++v) values.lane[v] = filters.value(f, a + v);
    store_narrow<kVec>(to, at, values, count, whole);
  });
}

template <typename T>
FASTDRAW_KERNEL(kThreads)
gaussian_filterbank_fwd_kernel(
    T* __restrict__ fy, T* __restrict__ fx, T* __restrict__ gamma, const T* __restrict__ window, FilterShape shape) {
  const Block block;
  Arena arena = block.shared();
  BlockFilters<Compute<T>> filters(arena, shape, false);
  const int64_t b = block.index();
  const auto [H, W, N, per_axis, eps] = shape;
  filters.set_window(block, window + 5 * b, kLargestGamma<T>);
  store_filters(block, filters, 0, N, H, fy + b * N * H);
  store_filters(block, filters, N, N, W, fx + b * N * W);
  block.each(1, [&](int) { narrow(filters.gamma(), gamma[b]); });
}

template <typename T>
FASTDRAW_KERNEL(kThreads)
gaussian_filterbank_bwd_kernel(
    T* __restrict__ dwindow, const T* __restrict__ dfy, const T* __restrict__ dfx, const T* __restrict__ dgamma,
    const T* __restrict__ window, FilterShape shape) {
  using A = Compute<T>;
  const Block block;
  Arena arena = block.shared();
  BlockFilters<A> filters(arena, shape, true);
  const int64_t b = block.index();
  const auto [H, W, N, per_axis, eps] = shape;
  filters.set_window(block, window + 5 * b, kLargestGamma<T>);
  block.each_warp(2 * N, [&, H = H, W = W, N = N](int f, const Warp& warp) {
    const int length = f < N ? H : W;
    const T* const df = f < N ? dfy + (b * N + f) * H : dfx + (b * N + f - N) * W;
    filters.add_gradient(warp, f, 0, length, [&](int a) { return widen(df[a]) * filters.value(f, a); });
  });
  filters.window_gradient(block, 0, dwindow + 5 * b);
  block.each(1, [&](int) {
    const A dlog_gamma = filters.gamma_is_free() ? widen(dgamma[b]) * filters.gamma() : A(0);
    narrow(dlog_gamma, dwindow[5 * b + 4]);
  });
}

template <typename T>
size_t shared_bytes(const FilterShape& shape, bool backward) {
  Arena arena;
  const BlockFilters<Compute<T>> filters(arena, shape, backward);
  return arena.used();
}

}  // namespace

template <typename T>
void launch_gaussian_filterbank_fwd(
    T* fy, T* fx, T* gamma, const T* window, int64_t B, const FilterShape& shape, cudaStream_t stream) {
  launch(
      gaussian_filterbank_fwd_kernel<T>, B, kThreads, shared_bytes<T>(shape, false), stream, fy, fx, gamma, window,
      shape);
}

template <typename T>
void launch_gaussian_filterbank_bwd(
    T* dwindow, const T* dfy, const T* dfx, const T* dgamma, const T* window, int64_t B, const FilterShape& shape,
    cudaStream_t stream) {
  launch(
      gaussian_filterbank_bwd_kernel<T>, B, kThreads, shared_bytes<T>(shape, true), stream, dwindow, dfy, dfx, dgamma,
      window, shape);
}

#define INSTANTIATE(T)                                                                                              \
  template void launch_gaussian_filterbank_fwd<T>(T*, T*, T*, const T*, int64_t, const FilterShape&, cudaStream_t); \
  template void launch_gaussian_filterbank_bwd<T>(                                                                  \
      T*, const T*, const T*, const T*, const T*, int64_t, const FilterShape&, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(__nv_bfloat16)
INSTANTIATE(__half)
#undef INSTANTIATE

}  // namespace fastdraw
