#pragma once

// The negative log-likelihood of one element for any kernel, and its gradients; and the launchers of rows of them.
//
//   bernoulli:  max(x, 0) - x t + log(1 + e^-|x|)           dx = dnll (sigmoid(x) - t)       dt = -dnll x
//   gaussian:   u^2 / 2 + log_sigma + log(2 pi) / 2         with u = (t - mean) / sigma
//               dmean = -dnll u / sigma = -dt               dlog_sigma = dnll (1 - u^2)

#include "cuda/sums.h"

namespace fastdraw {

template <typename A>
FASTDRAW_DEVICE A bernoulli(A logit, A target) {
  return (logit > A(0) ? logit : A(0)) - logit * target + std::log1p(std::exp(-std::fabs(logit)));
}

template <typename A>
struct BernoulliGradients {
  A logit, target;
};

template <typename A>
FASTDRAW_DEVICE BernoulliGradients<A> bernoulli_bwd(A dnll, A logit, A target) {
  return {dnll * (sigmoid(logit).value - target), -dnll * logit};
}

template <typename A>
FASTDRAW_DEVICE A gaussian(A mean, A log_sigma, A target) {
  constexpr A kHalfLog2Pi = 0.918938533204672741780329736406;
  const A u = (target - mean) * std::exp(-log_sigma);
  return A(0.5) * u * u + (log_sigma + kHalfLog2Pi);
}

template <typename A>
struct GaussianGradients {
  A mean, log_sigma;
};

template <typename A>
FASTDRAW_DEVICE GaussianGradients<A> gaussian_bwd(A dnll, A mean, A log_sigma, A target) {
  const A inverse_sigma = std::exp(-log_sigma), u = (target - mean) * inverse_sigma;
  return {-dnll * u * inverse_sigma, dnll * (A(1) - u * u)};
}

// Arrays (B, P), contiguous and on the current device; nll and dnll (B). Instantiated for float, double, __nv_bfloat16
// and __half.
template <typename T>
void launch_bernoulli_fwd(const RowSums<T>& nll, const T* logits, const T* target, cudaStream_t stream);

// dtarget is null where it is not wanted.
template <typename T>
void launch_bernoulli_bwd(
    T* dlogits, T* dtarget, const T* dnll, const T* logits, const T* target, int64_t B, int64_t P, cudaStream_t stream);

template <typename T>
void launch_gaussian_fwd(
    const RowSums<T>& nll, const T* mean, const T* log_sigma, const T* target, cudaStream_t stream);

template <typename T>
void launch_gaussian_bwd(
    T* dmean, T* dlog_sigma, const T* dnll, const T* mean, const T* log_sigma, const T* target, int64_t B, int64_t P,
    cudaStream_t stream);

}  // namespace fastdraw
