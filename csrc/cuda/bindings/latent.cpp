#include "cuda/latent.h"

#include <tuple>

#include "cuda/bindings/tensor.h"

namespace fastdraw {
namespace {

using Optional = std::optional<Tensor>;

// What both ops read, contiguous; without noise no sample is taken.
struct Latent {
  int64_t B, Z;
  Tensor mu_q, log_sigma_q;
  Optional noise, mu_p, log_sigma_p;

  template <typename T>
  LatentInputs<T> inputs() const {
    return {in<T>(mu_q), in<T>(log_sigma_q), in<T>(noise), in<T>(mu_p), in<T>(log_sigma_p)};
  }
};

Latent check_latent(
    const char* op, const Tensor& mu_q, const Tensor& log_sigma_q, const Optional& noise, const Optional& mu_p,
    const Optional& log_sigma_p) {
  STD_TORCH_CHECK(mu_q.dim() == 2, op, ": mu_q must have shape (B, Z)");
  STD_TORCH_CHECK(mu_p.has_value() == log_sigma_p.has_value(), op, ": give both mu_p and log_sigma_p, or neither");
  check_tensor(op, "log_sigma_q", log_sigma_q, mu_q, mu_q.sizes());
  if (noise) check_tensor(op, "noise", *noise, mu_q, mu_q.sizes());
  if (mu_p) check_tensor(op, "mu_p", *mu_p, mu_q, mu_q.sizes());
  if (log_sigma_p) check_tensor(op, "log_sigma_p", *log_sigma_p, mu_q, mu_q.sizes());
  return {mu_q.size(0),      mu_q.size(1),     torch::stable::contiguous(mu_q), torch::stable::contiguous(log_sigma_q),
          contiguous(noise), contiguous(mu_p), contiguous(log_sigma_p)};
}

// Writes z, if there is one, and returns the KL.
Tensor forward(const char* op, const Latent& latent, const Optional& z) {
  const DeviceGuard guard(latent.mu_q);
  const Tensor kl = torch::stable::new_empty(latent.mu_q, {latent.B});
  dispatch_dtype(op, kl.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const auto partials = new_partials(kl, RowSums<T>::count_partials(latent.B, latent.Z));
    const RowSums<T> sums{out<T>(kl), out<Compute<T>>(partials), latent.B, latent.Z};
    launch_latent_fwd(out<T>(z), sums, latent.inputs<T>(), current_stream(kl));
  });
  check_launch(op);
  return kl;
}

struct Gradients {
  Tensor dmu_q, dlog_sigma_q, dnoise, dmu_p, dlog_sigma_p;
};

Gradients backward(const char* op, const Latent& latent, const Optional& dz, const Tensor& dkl, bool need_dnoise) {
  const Tensor& like = latent.mu_q;
  if (dz) check_tensor(op, "dz", *dz, like, like.sizes());
  check_tensor(op, "dkl", dkl, like, {latent.B});

  const DeviceGuard guard(like);
  const bool prior = latent.mu_p.has_value();
  const Optional upstream_z = contiguous(dz);
  const Tensor upstream = torch::stable::contiguous(dkl);
  const Gradients to{
      new_gradient(like), new_gradient(like), new_gradient(like, need_dnoise), new_gradient(like, prior),
      new_gradient(like, prior)};
  dispatch_dtype(op, like.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const LatentGradients<T> gradients{
        out<T>(to.dmu_q), out<T>(to.dlog_sigma_q), out_if<T>(need_dnoise, to.dnoise), out_if<T>(prior, to.dmu_p),
        out_if<T>(prior, to.dlog_sigma_p)};
    launch_latent_bwd(
        gradients, in<T>(upstream_z), in<T>(upstream), latent.inputs<T>(), latent.B, latent.Z, current_stream(like));
  });
  check_launch(op);
  return to;
}

Tensor gaussian_kl(const Tensor& mu_q, const Tensor& log_sigma_q, const Optional& mu_p, const Optional& log_sigma_p) {
  const char* op = "gaussian_kl";
  return forward(op, check_latent(op, mu_q, log_sigma_q, {}, mu_p, log_sigma_p), {});
}

std::tuple<Tensor, Tensor> sample_kl(
    const Tensor& mu_q, const Tensor& log_sigma_q, const Tensor& noise, const Optional& mu_p,
    const Optional& log_sigma_p) {
  const char* op = "sample_kl";
  const Latent latent = check_latent(op, mu_q, log_sigma_q, noise, mu_p, log_sigma_p);
  const Tensor z = torch::stable::new_empty(mu_q, mu_q.sizes());
  return {z, forward(op, latent, z)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> gaussian_kl_bwd(
    const Tensor& dkl, const Tensor& mu_q, const Tensor& log_sigma_q, const Optional& mu_p,
    const Optional& log_sigma_p) {
  const char* op = "gaussian_kl_bwd";
  const Gradients to = backward(op, check_latent(op, mu_q, log_sigma_q, {}, mu_p, log_sigma_p), {}, dkl, false);
  return {to.dmu_q, to.dlog_sigma_q, to.dmu_p, to.dlog_sigma_p};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> sample_kl_bwd(
    const Tensor& dz, const Tensor& dkl, const Tensor& mu_q, const Tensor& log_sigma_q, const Tensor& noise,
    const Optional& mu_p, const Optional& log_sigma_p, bool need_dnoise) {
  const char* op = "sample_kl_bwd";
  const Latent latent = check_latent(op, mu_q, log_sigma_q, noise, mu_p, log_sigma_p);
  const Gradients to = backward(op, latent, dz, dkl, need_dnoise);
  return {to.dmu_q, to.dlog_sigma_q, to.dnoise, to.dmu_p, to.dlog_sigma_p};
}

}  // namespace

FASTDRAW_CUDA_LIBRARY(m) {
  m.impl("gaussian_kl", TORCH_BOX(&gaussian_kl));
  m.impl("gaussian_kl_bwd", TORCH_BOX(&gaussian_kl_bwd));
  m.impl("sample_kl", TORCH_BOX(&sample_kl));
  m.impl("sample_kl_bwd", TORCH_BOX(&sample_kl_bwd));
}

}  // namespace fastdraw
