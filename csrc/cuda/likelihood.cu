// bernoulli:  nll = sum max(x, 0) - x t + log(1 + e^-|x|)
// gaussian:   nll = sum u^2 / 2 + log_sigma + log(2 pi) / 2    with u = (t - mean) / sigma
//
// and the gradients in likelihood.h.
//
// Forward: a block computes one sample, or a piece of a large one, and adds up its terms; a thread computes neighbours,
// with one access of 16 bytes per array. Reads every element once, writes B sums.
// Backward: a thread computes neighbours. Reads every element once, writes a gradient of each.
// Every element is computed by one thread, and every sum has an order that P alone decides: deterministic.

#include "cuda/likelihood.h"

#include "cuda/launch.h"

namespace fastdraw {
namespace {

constexpr int kThreads = 128;  // of the backward passes
template <typename T>
constexpr int kVec = RowSums<T>::kVec;

template <typename T>
FASTDRAW_KERNEL(RowSums<T>::kMostThreads)
bernoulli_fwd_kernel(RowSums<T> nll, const T* __restrict__ logits, const T* __restrict__ target, bool whole) {
  nll.add_up(Block(), [&](int64_t offset, int count) {
    const auto logit = load_wide<kVec<T>>(logits, offset, count, whole);
    const auto t = load_wide<kVec<T>>(target, offset, count, whole);
    Compute<T> total = 0;
    for (int v = 0; v < kVec<T>; ++v) {
      if (whole || v < count) total += bernoulli(logit.lane[v], t.lane[v]);
    }
    return total;
  });
}

template <typename T>
FASTDRAW_KERNEL(kThreads)
bernoulli_bwd_kernel(
    T* __restrict__ dlogits, T* __restrict__ dtarget, const T* __restrict__ dnll, const T* __restrict__ logits,
    const T* __restrict__ target, int64_t B, int64_t P, bool whole) {
  Block().each_of_all(B * divide_up(P, kVec<T>), [&](int64_t vector) {
    const auto [b, offset, count] = split_rows(vector, P, kVec<T>);
    const auto logit = load_wide<kVec<T>>(logits, offset, count, whole);
    const auto t = load_wide<kVec<T>>(target, offset, count, whole);
    const auto dnll_b = widen(dnll[b]);
    Pack<Compute<T>, kVec<T>> dlogit, dt;
    for (int v = 0; v < kVec<T>; ++v) {
      const auto gradients = bernoulli_bwd(dnll_b, logit.lane[v], t.lane[v]);
      dlogit.lane[v] = gradients.logit;
      dt.lane[v] = gradients.target;
    }
    store_narrow(dlogits, offset, dlogit, count, whole);
    if (dtarget != nullptr) store_narrow(dtarget, offset, dt, count, whole);
  });
}

template <typename T>
FASTDRAW_KERNEL(RowSums<T>::kMostThreads)
gaussian_fwd_kernel(
    RowSums<T> nll, const T* __restrict__ mean, const T* __restrict__ log_sigma, const T* __restrict__ target,
    bool whole) {
  nll.add_up(Block(), [&](int64_t offset, int count) {
    const auto m = load_wide<kVec<T>>(mean, offset, count, whole);
    const auto s = load_wide<kVec<T>>(log_sigma, offset, count, whole);
    const auto t = load_wide<kVec<T>>(target, offset, count, whole);
    Compute<T> total = 0;
    for (int v = 0; v < kVec<T>; ++v) {
      if (whole || v < count) total += gaussian(m.lane[v], s.lane[v], t.lane[v]);
    }
    return total;
  });
}

template <typename T>
FASTDRAW_KERNEL(kThreads)
gaussian_bwd_kernel(
    T* __restrict__ dmean, T* __restrict__ dlog_sigma, const T* __restrict__ dnll, const T* __restrict__ mean,
    const T* __restrict__ log_sigma, const T* __restrict__ target, int64_t B, int64_t P, bool whole) {
  Block().each_of_all(B * divide_up(P, kVec<T>), [&](int64_t vector) {
    const auto [b, offset, count] = split_rows(vector, P, kVec<T>);
    const auto m = load_wide<kVec<T>>(mean, offset, count, whole);
    const auto s = load_wide<kVec<T>>(log_sigma, offset, count, whole);
    const auto t = load_wide<kVec<T>>(target, offset, count, whole);
    const auto dnll_b = widen(dnll[b]);
    Pack<Compute<T>, kVec<T>> dm, ds;
    for (int v = 0; v < kVec<T>; ++v) {
      const auto gradients = gaussian_bwd(dnll_b, m.lane[v], s.lane[v], t.lane[v]);
      dm.lane[v] = gradients.mean;
      ds.lane[v] = gradients.log_sigma;
    }
    store_narrow(dmean, offset, dm, count, whole);
    store_narrow(dlog_sigma, offset, ds, count, whole);
  });
}

template <typename T, typename Kernel, typename... Arrays>
void launch_fwd(Kernel kernel, const RowSums<T>& nll, cudaStream_t stream, const Arrays*... arrays) {
  const bool whole = fits_vectors(nll.width, arrays...);
  launch(kernel, nll.blocks(), nll.threads(), nll.shared_bytes(), stream, nll, arrays..., whole);
  nll.finish(stream);
}

}  // namespace

template <typename T>
void launch_bernoulli_fwd(const RowSums<T>& nll, const T* logits, const T* target, cudaStream_t stream) {
  launch_fwd(bernoulli_fwd_kernel<T>, nll, stream, logits, target);
}

template <typename T>
void launch_gaussian_fwd(
    const RowSums<T>& nll, const T* mean, const T* log_sigma, const T* target, cudaStream_t stream) {
  launch_fwd(gaussian_fwd_kernel<T>, nll, stream, mean, log_sigma, target);
}

template <typename T>
void launch_bernoulli_bwd(
    T* dlogits, T* dtarget, const T* dnll, const T* logits, const T* target, int64_t B, int64_t P,
    cudaStream_t stream) {
  const bool whole = fits_vectors(P, dlogits, dtarget, logits, target);
  launch(
      bernoulli_bwd_kernel<T>, blocks_for(B * divide_up(P, kVec<T>), kThreads), kThreads, 0, stream, dlogits, dtarget,
      dnll, logits, target, B, P, whole);
}

template <typename T>
void launch_gaussian_bwd(
    T* dmean, T* dlog_sigma, const T* dnll, const T* mean, const T* log_sigma, const T* target, int64_t B, int64_t P,
    cudaStream_t stream) {
  const bool whole = fits_vectors(P, dmean, dlog_sigma, mean, log_sigma, target);
  launch(
      gaussian_bwd_kernel<T>, blocks_for(B * divide_up(P, kVec<T>), kThreads), kThreads, 0, stream, dmean, dlog_sigma,
      dnll, mean, log_sigma, target, B, P, whole);
}

#define INSTANTIATE(T)                                                                                         \
  template void launch_bernoulli_fwd<T>(const RowSums<T>&, const T*, const T*, cudaStream_t);                  \
  template void launch_gaussian_fwd<T>(const RowSums<T>&, const T*, const T*, const T*, cudaStream_t);         \
  template void launch_bernoulli_bwd<T>(T*, T*, const T*, const T*, const T*, int64_t, int64_t, cudaStream_t); \
  template void launch_gaussian_bwd<T>(T*, T*, const T*, const T*, const T*, const T*, int64_t, int64_t, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(__nv_bfloat16)
INSTANTIATE(__half)
#undef INSTANTIATE

}  // namespace fastdraw
