// z = mu_q + sigma_q noise                               kl = 1/2 sum [u^2 + (e^r - 1) - r]
//
// with u = (mu_q - mu_p) / sigma_p and r = 2 (log_sigma_q - log_sigma_p); the gradients are in latent.h. Without a
// prior, mu_p = log_sigma_p = 0. Both ops, with a sample and without one, are the same kernels.
//
// Forward: a block computes one sample, or a piece of a long one, and adds up its KL; a thread computes neighbouring
// units, with one access of 16 bytes per array. Reads 2 to 5 times B Z elements, writes z and B sums.
// Backward: a thread computes neighbouring units. Reads the same and dz, writes a gradient of each.
// The backward pass computes all that it needs from the inputs again: nothing is saved between.
// Every element is computed by one thread, and every sum has an order that Z alone decides: deterministic.

#include "cuda/latent.h"

#include "cuda/launch.h"

namespace fastdraw {
namespace {

constexpr int kThreads = 128;  // of the backward pass
template <typename T>
constexpr int kVec = RowSums<T>::kVec;

// Neighbouring units.
template <typename T>
struct Units {
  Pack<Compute<T>, kVec<T>> mu_q, log_sigma_q, noise, mu_p, log_sigma_p;
  bool has_noise, has_prior;

  FASTDRAW_DEVICE Units(const LatentInputs<T>& from, int64_t offset, int count, bool whole)
      : mu_q(load_wide<kVec<T>>(from.mu_q, offset, count, whole)),
        log_sigma_q(load_wide<kVec<T>>(from.log_sigma_q, offset, count, whole)),
        noise{},
        mu_p{},
        log_sigma_p{},
        has_noise(from.noise != nullptr),
        has_prior(from.mu_p != nullptr) {
    if (has_noise) noise = load_wide<kVec<T>>(from.noise, offset, count, whole);
    if (has_prior) {
      mu_p = load_wide<kVec<T>>(from.mu_p, offset, count, whole);
      log_sigma_p = load_wide<kVec<T>>(from.log_sigma_p, offset, count, whole);
    }
  }

  FASTDRAW_DEVICE Gaussian<Compute<T>> q(int v) const { return {mu_q.lane[v], log_sigma_q.lane[v]}; }
  FASTDRAW_DEVICE Divergence<Compute<T>> from_prior(int v) const {
    return has_prior ? divergence(q(v), {mu_p.lane[v], log_sigma_p.lane[v]}) : divergence(q(v));
  }
};

template <typename T>
FASTDRAW_KERNEL(RowSums<T>::kMostThreads)
latent_fwd_kernel(T* z, RowSums<T> kl, LatentInputs<T> inputs, bool whole) {
  using A = Compute<T>;
  kl.add_up(Block(), [&](int64_t offset, int count) {
    const Units<T> units(inputs, offset, count, whole);
    if (units.has_noise) {
      Pack<A, kVec<T>> sampled;
      for (int v = 0; v < kVec<T>; ++v) sampled.lane[v] = sample(units.q(v), units.noise.lane[v]).z;
      store_narrow(z, offset, sampled, count, whole);
    }
    A total = 0;  // lanes beyond the count are zeros, of which the divergence is 0
    for (int v = 0; v < kVec<T>; ++v) total += units.from_prior(v).kl();
    return total;
  });
}

template <typename T>
FASTDRAW_KERNEL(kThreads)
latent_bwd_kernel(
    LatentGradients<T> gradients, const T* __restrict__ dz, const T* __restrict__ dkl, LatentInputs<T> inputs,
    int64_t B, int64_t Z, bool whole) {
  using A = Compute<T>;
  Block().each_of_all(B * divide_up(Z, kVec<T>), [&](int64_t vector) {
    const auto [b, offset, count] = split_rows(vector, Z, kVec<T>);
    const Units<T> units(inputs, offset, count, whole);
    const A dkl_b = widen(dkl[b]);
    Pack<A, kVec<T>> dz_new{}, dmu_q, dlog_sigma_q, dnoise, dmu_p, dlog_sigma_p;
    if (units.has_noise) dz_new = load_wide<kVec<T>>(dz, offset, count, whole);
    for (int v = 0; v < kVec<T>; ++v) {
      const auto from_prior = units.from_prior(v);
      auto dq = from_prior.dq(dkl_b);
      const auto dp = from_prior.dp(dkl_b);
      if (units.has_noise) {
        dnoise.lane[v] = dz_new.lane[v] * sample(units.q(v), units.noise.lane[v]).sigma;
        dq.mu += dz_new.lane[v];
        dq.log_sigma += dnoise.lane[v] * units.noise.lane[v];
      }
      dmu_q.lane[v] = dq.mu;
      dlog_sigma_q.lane[v] = dq.log_sigma;
      dmu_p.lane[v] = dp.mu;
      dlog_sigma_p.lane[v] = dp.log_sigma;
    }
    store_narrow(gradients.dmu_q, offset, dmu_q, count, whole);
    store_narrow(gradients.dlog_sigma_q, offset, dlog_sigma_q, count, whole);
    if (gradients.dnoise != nullptr) store_narrow(gradients.dnoise, offset, dnoise, count, whole);
    if (units.has_prior) {
      store_narrow(gradients.dmu_p, offset, dmu_p, count, whole);
      store_narrow(gradients.dlog_sigma_p, offset, dlog_sigma_p, count, whole);
    }
  });
}

template <typename T>
bool inputs_fit(int64_t Z, const LatentInputs<T>& inputs) {
  return fits_vectors(Z, inputs.mu_q, inputs.log_sigma_q, inputs.noise, inputs.mu_p, inputs.log_sigma_p);
}

}  // namespace

template <typename T>
void launch_latent_fwd(T* z, const RowSums<T>& kl, const LatentInputs<T>& inputs, cudaStream_t stream) {
  const bool whole = inputs_fit(kl.width, inputs) && fits_vectors(kl.width, z);
  launch(latent_fwd_kernel<T>, kl.blocks(), kl.threads(), kl.shared_bytes(), stream, z, kl, inputs, whole);
  kl.finish(stream);
}

template <typename T>
void launch_latent_bwd(
    const LatentGradients<T>& gradients, const T* dz, const T* dkl, const LatentInputs<T>& inputs, int64_t B, int64_t Z,
    cudaStream_t stream) {
  const bool whole = inputs_fit(Z, inputs) &&
      fits_vectors(Z, dz, gradients.dmu_q, gradients.dlog_sigma_q, gradients.dnoise, gradients.dmu_p,
                   gradients.dlog_sigma_p);
  launch(
      latent_bwd_kernel<T>, blocks_for(B * divide_up(Z, kVec<T>), kThreads), kThreads, 0, stream, gradients, dz, dkl,
      inputs, B, Z, whole);
}

#define INSTANTIATE(T)                                                                             \
  template void launch_latent_fwd<T>(T*, const RowSums<T>&, const LatentInputs<T>&, cudaStream_t); \
  template void launch_latent_bwd<T>(                                                              \
      const LatentGradients<T>&, const T*, const T*, const LatentInputs<T>&, int64_t, int64_t, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(__nv_bfloat16)
INSTANTIATE(__half)
#undef INSTANTIATE

}  // namespace fastdraw
