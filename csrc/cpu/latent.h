// The KL divergence of one row of diagonal Gaussians, a reparameterised sample of it, and their gradients. With
// u = (mu_q - mu_p) / sigma_p and r = 2 (log_sigma_q - log_sigma_p):
//
//   KL = 1/2 sum u^2 + (e^r - 1) - r
//   dmu_q = u / sigma_p = -dmu_p,   dlog_sigma_q = e^r - 1,   dlog_sigma_p = -u^2 - (e^r - 1)
//
// Nothing cancels where q is close to p, because e^r - 1 comes with all its digits.
#pragma once

#include <cstdint>

namespace fastdraw {

// mu_p and log_sigma_p are both null where p is the standard normal.
float gaussian_kl_row(
    int64_t Z, const float* mu_q, const float* log_sigma_q, const float* mu_p, const float* log_sigma_p);
double gaussian_kl_row(
    int64_t Z, const double* mu_q, const double* log_sigma_q, const double* mu_p, const double* log_sigma_p);

// The gradients of dkl * KL are written; those of p are null where p is the standard normal.
void gaussian_kl_row_bwd(
    int64_t Z, float dkl, const float* mu_q, const float* log_sigma_q, const float* mu_p, const float* log_sigma_p,
    float* dmu_q, float* dlog_sigma_q, float* dmu_p, float* dlog_sigma_p);
void gaussian_kl_row_bwd(
    int64_t Z, double dkl, const double* mu_q, const double* log_sigma_q, const double* mu_p, const double* log_sigma_p,
    double* dmu_q, double* dlog_sigma_q, double* dmu_p, double* dlog_sigma_p);

// z = mu + sigma noise
void sample_row(int64_t Z, const float* mu, const float* log_sigma, const float* noise, float* z);
void sample_row(int64_t Z, const double* mu, const double* log_sigma, const double* noise, double* z);

// dmu += dz,  dlog_sigma += dz sigma noise,  dnoise = dz sigma, unless it is null.
void sample_row_bwd(
    int64_t Z, const float* dz, const float* log_sigma, const float* noise, float* dmu, float* dlog_sigma,
    float* dnoise);
void sample_row_bwd(
    int64_t Z, const double* dz, const double* log_sigma, const double* noise, double* dmu, double* dlog_sigma,
    double* dnoise);

// x = tanh(x);  x = factor x
void tanh_row(int64_t size, float* x);
void tanh_row(int64_t size, double* x);
void scale_row(int64_t size, float factor, float* x);
void scale_row(int64_t size, double factor, double* x);

}  // namespace fastdraw
