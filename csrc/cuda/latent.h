#pragma once

// One unit of a latent variable for any kernel: a sample of it, its KL divergence, and their gradients; and the
// launchers of rows of them. With u = (mu_q - mu_p) / sigma_p and r = 2 (log_sigma_q - log_sigma_p):
//
//   z = mu_q + sigma_q noise               KL = 1/2 [u^2 + (e^r - 1) - r]
//   dmu_q = dkl u / sigma_p + dz           dlog_sigma_q = dkl (e^r - 1) + dz sigma_q noise
//   dmu_p = -dkl u / sigma_p               dlog_sigma_p = -dkl (u^2 + (e^r - 1))             dnoise = dz sigma_q
//
// Nothing cancels where q is close to p, because e^r - 1 comes with all its digits.

#include "cuda/sums.h"

namespace fastdraw {

template <typename A>
struct Gaussian {
  A mu, log_sigma;
};

// What q and p differ by.
template <typename A>
struct Divergence {
  A u, inverse_sigma_p, ratio_minus_one, log_ratio;  // u, 1 / sigma_p, e^r - 1, r

  FASTDRAW_DEVICE A kl() const { return A(0.5) * (u * u + (ratio_minus_one - log_ratio)); }
  FASTDRAW_DEVICE Gaussian<A> dq(A dkl) const { return {dkl * u * inverse_sigma_p, dkl * ratio_minus_one}; }
  FASTDRAW_DEVICE Gaussian<A> dp(A dkl) const { return {-dkl * u * inverse_sigma_p, -dkl * (u * u + ratio_minus_one)}; }
};

template <typename A>
FASTDRAW_DEVICE Divergence<A> divergence(const Gaussian<A>& q, const Gaussian<A>& p) {
  const A log_ratio = A(2) * (q.log_sigma - p.log_sigma), inverse_sigma_p = std::exp(-p.log_sigma);
  return {(q.mu - p.mu) * inverse_sigma_p, inverse_sigma_p, std::expm1(log_ratio), log_ratio};
}

// From the standard normal.
template <typename A>
FASTDRAW_DEVICE Divergence<A> divergence(const Gaussian<A>& q) {
  const A log_ratio = A(2) * q.log_sigma;
  return {q.mu, A(1), std::expm1(log_ratio), log_ratio};
}

template <typename A>
struct LatentSample {
  A z, sigma;  // dz is also the gradient of mu, dz sigma that of the noise, and dz sigma noise that of log_sigma
};

template <typename A>
FASTDRAW_DEVICE LatentSample<A> sample(const Gaussian<A>& q, A noise) {
  const A sigma = std::exp(q.log_sigma);
  return {q.mu + sigma * noise, sigma};
}

// Arrays (B, Z), contiguous and on the current device. noise is null where no sample is taken, mu_p and log_sigma_p
// where p is the standard normal.
template <typename T>
struct LatentInputs {
  const T *mu_q, *log_sigma_q, *noise, *mu_p, *log_sigma_p;
};

// dnoise is null where it is not wanted, dmu_p and dlog_sigma_p where p is the standard normal.
template <typename T>
struct LatentGradients {
  T *dmu_q, *dlog_sigma_q, *dnoise, *dmu_p, *dlog_sigma_p;
};

// z (B, Z), null without noise, and kl. Instantiated for float, double, __nv_bfloat16 and __half, as is the backward.
template <typename T>
void launch_latent_fwd(T* z, const RowSums<T>& kl, const LatentInputs<T>& inputs, cudaStream_t stream);

// From dz (B, Z), null without noise, and dkl (B).
template <typename T>
void launch_latent_bwd(
    const LatentGradients<T>& gradients, const T* dz, const T* dkl, const LatentInputs<T>& inputs, int64_t B, int64_t Z,
    cudaStream_t stream);

}  // namespace fastdraw
