#include "cpu/latent.h"

#include "cpu/simd.h"

namespace fastdraw {
namespace {

// One unit of KL and what its gradients are made of.
template <typename A>
struct Unit {
  A u, inverse_sigma_p, ratio_minus_one, log_ratio;  // u, 1 / sigma_p, e^r - 1, r
};

template <typename A>
inline Unit<A> standard_unit(A mu_q, A log_sigma_q) {
  const A log_ratio = 2 * log_sigma_q;
  return {mu_q, 1, exp(log_ratio).minus_one, log_ratio};
}

template <typename A>
inline Unit<A> unit(A mu_q, A log_sigma_q, A mu_p, A log_sigma_p) {
  const A log_ratio = 2 * (log_sigma_q - log_sigma_p), inverse_sigma_p = exp(-log_sigma_p).value;
  return {(mu_q - mu_p) * inverse_sigma_p, inverse_sigma_p, exp(log_ratio).minus_one, log_ratio};
}

template <typename A>
inline A kl(int64_t Z, const A* mu_q, const A* log_sigma_q, const A* mu_p, const A* log_sigma_p) {
  const auto twice = [](const Unit<A>& at) { return at.u * at.u + (at.ratio_minus_one - at.log_ratio); };
  const double total = mu_p
      ? sum_blocks<A>(Z, [=](int64_t k) { return twice(unit(mu_q[k], log_sigma_q[k], mu_p[k], log_sigma_p[k])); })
      : sum_blocks<A>(Z, [=](int64_t k) { return twice(standard_unit(mu_q[k], log_sigma_q[k])); });
  return static_cast<A>(total / 2);
}

template <typename A>
inline void kl_bwd(
    int64_t Z, A dkl, const A* mu_q, const A* log_sigma_q, const A* mu_p, const A* log_sigma_p, A* __restrict dmu_q,
    A* __restrict dlog_sigma_q, A* __restrict dmu_p, A* __restrict dlog_sigma_p) {
  if (!mu_p) {
#pragma omp simd
    for (int64_t k = 0; k < Z; ++k) {
      const Unit<A> at = standard_unit(mu_q[k], log_sigma_q[k]);
      dmu_q[k] = dkl * at.u;
      dlog_sigma_q[k] = dkl * at.ratio_minus_one;
    }
    return;
  }
#pragma omp simd
  for (int64_t k = 0; k < Z; ++k) {
    const Unit<A> at = unit(mu_q[k], log_sigma_q[k], mu_p[k], log_sigma_p[k]);
    dmu_q[k] = dkl * at.u * at.inverse_sigma_p;
    dmu_p[k] = -dmu_q[k];
    dlog_sigma_q[k] = dkl * at.ratio_minus_one;
    dlog_sigma_p[k] = -dkl * (at.u * at.u + at.ratio_minus_one);
  }
}

template <typename A>
inline void sample(int64_t Z, const A* mu, const A* log_sigma, const A* noise, A* __restrict z) {
#pragma omp simd
  for (int64_t k = 0; k < Z; ++k) z[k] = mu[k] + exp(log_sigma[k]).value * noise[k];
}

template <typename A>
inline void sample_bwd(
    int64_t Z, const A* dz, const A* log_sigma, const A* noise, A* __restrict dmu, A* __restrict dlog_sigma,
    A* __restrict dnoise) {
#pragma omp simd
  for (int64_t k = 0; k < Z; ++k) {
    const A dscaled = dz[k] * exp(log_sigma[k]).value;
    dmu[k] += dz[k];
    dlog_sigma[k] += dscaled * noise[k];
    if (dnoise) dnoise[k] = dscaled;
  }
}

}  // namespace

FASTDRAW_CLONES float gaussian_kl_row(
    int64_t Z, const float* mu_q, const float* log_sigma_q, const float* mu_p, const float* log_sigma_p) {
  return kl(Z, mu_q, log_sigma_q, mu_p, log_sigma_p);
}
FASTDRAW_CLONES double gaussian_kl_row(
    int64_t Z, const double* mu_q, const double* log_sigma_q, const double* mu_p, const double* log_sigma_p) {
  return kl(Z, mu_q, log_sigma_q, mu_p, log_sigma_p);
}

FASTDRAW_CLONES void gaussian_kl_row_bwd(
    int64_t Z, float dkl, const float* mu_q, const float* log_sigma_q, const float* mu_p, const float* log_sigma_p,
    float* dmu_q, float* dlog_sigma_q, float* dmu_p, float* dlog_sigma_p) {
  kl_bwd(Z, dkl, mu_q, log_sigma_q, mu_p, log_sigma_p, dmu_q, dlog_sigma_q, dmu_p, dlog_sigma_p);
}
FASTDRAW_CLONES void gaussian_kl_row_bwd(
    int64_t Z, double dkl, const double* mu_q, const double* log_sigma_q, const double* mu_p, const double* log_sigma_p,
    double* dmu_q, double* dlog_sigma_q, double* dmu_p, double* dlog_sigma_p) {
  kl_bwd(Z, dkl, mu_q, log_sigma_q, mu_p, log_sigma_p, dmu_q, dlog_sigma_q, dmu_p, dlog_sigma_p);
}

FASTDRAW_CLONES void sample_row(int64_t Z, const float* mu, const float* log_sigma, const float* noise, float* z) {
  sample(Z, mu, log_sigma, noise, z);
}
FASTDRAW_CLONES void sample_row(int64_t Z, const double* mu, const double* log_sigma, const double* noise, double* z) {
  sample(Z, mu, log_sigma, noise, z);
}

FASTDRAW_CLONES void sample_row_bwd(
    int64_t Z, const float* dz, const float* log_sigma, const float* noise, float* dmu, float* dlog_sigma,
    float* dnoise) {
  sample_bwd(Z, dz, log_sigma, noise, dmu, dlog_sigma, dnoise);
}
FASTDRAW_CLONES void sample_row_bwd(
    int64_t Z, const double* dz, const double* log_sigma, const double* noise, double* dmu, double* dlog_sigma,
    double* dnoise) {
  sample_bwd(Z, dz, log_sigma, noise, dmu, dlog_sigma, dnoise);
}

}  // namespace fastdraw
