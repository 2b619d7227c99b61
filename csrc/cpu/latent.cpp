// A thread takes whole rows. Forward reads 2 to 5 times B Z elements; backward the same and the upstream gradients, and
// writes a gradient of each.
#include "cpu/latent.h"

#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>
#include <vector>

#include "cpu/simd.h"
#include "cpu/tensor.h"

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

// Twice the KL of one unit.
template <typename A>
inline A divergence(const Unit<A>& at) {
  return at.u * at.u + (at.ratio_minus_one - at.log_ratio);
}

template <typename A>
inline A kl(int64_t Z, const A* mu_q, const A* log_sigma_q, const A* mu_p, const A* log_sigma_p) {
  const auto standard = [=](int64_t k) { return divergence(standard_unit(mu_q[k], log_sigma_q[k])); };
  const auto general = [=](int64_t k) { return divergence(unit(mu_q[k], log_sigma_q[k], mu_p[k], log_sigma_p[k])); };
  return static_cast<A>((mu_p ? sum_blocks<A>(Z, general) : sum_blocks<A>(Z, standard)) / 2);
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

namespace {

using Optional = std::optional<Tensor>;

// What both ops read; without noise no sample is taken.
struct Arguments {
  int64_t B, Z;
  Input<2> mu_q, log_sigma_q, noise, mu_p, log_sigma_p;
};

// One row of a tensor in scratch memory.
template <typename A>
class Row {
  std::vector<A> data_;

 public:
  explicit Row(int64_t Z) : data_(Z) {}
  A* data() { return data_.data(); }
  // Null where the tensor was left out.
  const A* load(const Input<2>& from, int64_t b) {
    const auto Z = static_cast<int64_t>(data_.size());
    if (from.data) from.load(data(), Z, 1, Z, b);
    return from.data ? data() : nullptr;
  }
  // Nowhere if the result was not asked for.
  void store(const Output& to, int64_t b) const {
    const auto Z = static_cast<int64_t>(data_.size());
    if (to.data) to.store(data_.data(), Z, 1, Z, b * Z);
  }
};

template <typename A>
struct Rows {
  Row<A> mu_q, log_sigma_q, noise, mu_p, log_sigma_p;
  explicit Rows(int64_t Z) : mu_q(Z), log_sigma_q(Z), noise(Z), mu_p(Z), log_sigma_p(Z) {}
};

template <typename A>
struct LatentForward {
  Arguments from;
  Output z, kl;

  void operator()(int64_t begin, int64_t end) const {
    const int64_t Z = from.Z;
    Rows<A> rows(Z);
    Row<A> sampled(Z);
    for (int64_t b = begin; b < end; ++b) {
      const A *mu_q = rows.mu_q.load(from.mu_q, b), *log_sigma_q = rows.log_sigma_q.load(from.log_sigma_q, b);
      const A *mu_p = rows.mu_p.load(from.mu_p, b), *log_sigma_p = rows.log_sigma_p.load(from.log_sigma_p, b);
      const A divergence = gaussian_kl_row(Z, mu_q, log_sigma_q, mu_p, log_sigma_p);
      kl.store(&divergence, 1, 1, 1, b);
      if (const A* noise = rows.noise.load(from.noise, b)) {
        sample_row(Z, mu_q, log_sigma_q, noise, sampled.data());
        sampled.store(z, b);
      }
    }
  }
};

template <typename A>
struct LatentBackward {
  Input<2> dz;
  Input<1> dkl;
  Arguments from;
  Output dmu_q, dlog_sigma_q, dnoise, dmu_p, dlog_sigma_p;

  void operator()(int64_t begin, int64_t end) const {
    const int64_t Z = from.Z;
    Rows<A> rows(Z), gradients(Z);
    Row<A> upstream_z(Z);
    for (int64_t b = begin; b < end; ++b) {
      A upstream;
      dkl.load(&upstream, 1, 1, 1, b);
      const A *mu_q = rows.mu_q.load(from.mu_q, b), *log_sigma_q = rows.log_sigma_q.load(from.log_sigma_q, b);
      const A *mu_p = rows.mu_p.load(from.mu_p, b), *log_sigma_p = rows.log_sigma_p.load(from.log_sigma_p, b);
      gaussian_kl_row_bwd(
          Z, upstream, mu_q, log_sigma_q, mu_p, log_sigma_p, gradients.mu_q.data(), gradients.log_sigma_q.data(),
          gradients.mu_p.data(), gradients.log_sigma_p.data());
      if (const A* noise = rows.noise.load(from.noise, b)) {
        sample_row_bwd(
            Z, upstream_z.load(dz, b), log_sigma_q, noise, gradients.mu_q.data(), gradients.log_sigma_q.data(),
            gradients.noise.data());
      }
      gradients.mu_q.store(dmu_q, b);
      gradients.log_sigma_q.store(dlog_sigma_q, b);
      gradients.noise.store(dnoise, b);
      gradients.mu_p.store(dmu_p, b);
      gradients.log_sigma_p.store(dlog_sigma_p, b);
    }
  }
};

constexpr int64_t kForwardCost = 15, kBackwardCost = 18;  // of one unit, with a prior

Arguments make_arguments(
    const char* op, const Tensor& mu_q, const Tensor& log_sigma_q, const Optional& noise, const Optional& mu_p,
    const Optional& log_sigma_p) {
  check_dim(op, "mu_q", mu_q, 2);
  const int64_t B = mu_q.size(0), Z = mu_q.size(1);
  const ScalarType dtype = mu_q.scalar_type();
  STD_TORCH_CHECK(mu_p.has_value() == log_sigma_p.has_value(), op, ": give both mu_p and log_sigma_p, or neither");
  check_tensor(op, "log_sigma_q", log_sigma_q, dtype, {B, Z});
  const auto checked = [&](const char* name, const Optional& tensor) {
    if (!tensor) return Input<2>{};
    check_tensor(op, name, *tensor, dtype, {B, Z});
    return Input<2>(*tensor);
  };
  return {B, Z, mu_q, log_sigma_q, checked("noise", noise), checked("mu_p", mu_p), checked("log_sigma_p", log_sigma_p)};
}

// A gradient, without elements where it is not wanted.
Tensor new_gradient(const Tensor& like, bool wanted) {
  return wanted ? new_empty(like, {like.size(0), like.size(1)}) : new_empty(like, {0});
}

Output output_if(bool wanted, const Tensor& tensor) { return wanted ? Output(tensor) : Output{}; }

Tensor gaussian_kl(const Tensor& mu_q, const Tensor& log_sigma_q, const Optional& mu_p, const Optional& log_sigma_p) {
  const char* op = "gaussian_kl";
  const Arguments from = make_arguments(op, mu_q, log_sigma_q, std::nullopt, mu_p, log_sigma_p);
  const Tensor kl = new_empty(mu_q, {from.B});
  with_compute_type(op, mu_q.scalar_type(), [&](auto compute) {
    run_parallel(LatentForward<decltype(compute)>{from, {}, kl}, from.B, kForwardCost * from.Z + 1);
  });
  return kl;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> gaussian_kl_bwd(
    const Tensor& dkl, const Tensor& mu_q, const Tensor& log_sigma_q, const Optional& mu_p,
    const Optional& log_sigma_p) {
  const char* op = "gaussian_kl_bwd";
  const Arguments from = make_arguments(op, mu_q, log_sigma_q, std::nullopt, mu_p, log_sigma_p);
  check_tensor(op, "dkl", dkl, mu_q.scalar_type(), {from.B});
  const bool prior = mu_p.has_value();
  const Tensor dmu_q = new_gradient(mu_q, true), dlog_sigma_q = new_gradient(mu_q, true);
  const Tensor dmu_p = new_gradient(mu_q, prior), dlog_sigma_p = new_gradient(mu_q, prior);
  with_compute_type(op, mu_q.scalar_type(), [&](auto compute) {
    const LatentBackward<decltype(compute)> work{
        {}, dkl, from, dmu_q, dlog_sigma_q, {}, output_if(prior, dmu_p), output_if(prior, dlog_sigma_p)};
    run_parallel(work, from.B, kBackwardCost * from.Z + 1);
  });
  return {dmu_q, dlog_sigma_q, dmu_p, dlog_sigma_p};
}

std::tuple<Tensor, Tensor> sample_kl(
    const Tensor& mu_q, const Tensor& log_sigma_q, const Tensor& noise, const Optional& mu_p,
    const Optional& log_sigma_p) {
  const char* op = "sample_kl";
  const Arguments from = make_arguments(op, mu_q, log_sigma_q, noise, mu_p, log_sigma_p);
  const Tensor z = new_empty(mu_q, {from.B, from.Z}), kl = new_empty(mu_q, {from.B});
  with_compute_type(op, mu_q.scalar_type(), [&](auto compute) {
    run_parallel(LatentForward<decltype(compute)>{from, z, kl}, from.B, kForwardCost * from.Z + 1);
  });
  return {z, kl};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> sample_kl_bwd(
    const Tensor& dz, const Tensor& dkl, const Tensor& mu_q, const Tensor& log_sigma_q, const Tensor& noise,
    const Optional& mu_p, const Optional& log_sigma_p, bool need_dnoise) {
  const char* op = "sample_kl_bwd";
  const Arguments from = make_arguments(op, mu_q, log_sigma_q, noise, mu_p, log_sigma_p);
  check_tensor(op, "dz", dz, mu_q.scalar_type(), {from.B, from.Z});
  check_tensor(op, "dkl", dkl, mu_q.scalar_type(), {from.B});
  const bool prior = mu_p.has_value();
  const Tensor dmu_q = new_gradient(mu_q, true), dlog_sigma_q = new_gradient(mu_q, true);
  const Tensor dnoise = new_gradient(mu_q, need_dnoise);
  const Tensor dmu_p = new_gradient(mu_q, prior), dlog_sigma_p = new_gradient(mu_q, prior);
  with_compute_type(op, mu_q.scalar_type(), [&](auto compute) {
    const LatentBackward<decltype(compute)> work{
        dz,
        dkl,
        from,
        dmu_q,
        dlog_sigma_q,
        output_if(need_dnoise, dnoise),
        output_if(prior, dmu_p),
        output_if(prior, dlog_sigma_p)};
    run_parallel(work, from.B, kBackwardCost * from.Z + 1);
  });
  return {dmu_q, dlog_sigma_q, dnoise, dmu_p, dlog_sigma_p};
}

}  // namespace

FASTDRAW_CLONES void tanh_row(int64_t size, float* x) {
#pragma omp simd
  for (int64_t k = 0; k < size; ++k) x[k] = tanh(x[k]).value;
}
FASTDRAW_CLONES void tanh_row(int64_t size, double* x) {
#pragma omp simd
  for (int64_t k = 0; k < size; ++k) x[k] = tanh(x[k]).value;
}

FASTDRAW_CLONES void scale_row(int64_t size, float factor, float* x) {
  for (int64_t k = 0; k < size; ++k) x[k] *= factor;
}
FASTDRAW_CLONES void scale_row(int64_t size, double factor, double* x) {
  for (int64_t k = 0; k < size; ++k) x[k] *= factor;
}

STABLE_TORCH_LIBRARY_IMPL(fastdraw, CPU, m) {
  m.impl("gaussian_kl", TORCH_BOX(&gaussian_kl));
  m.impl("gaussian_kl_bwd", TORCH_BOX(&gaussian_kl_bwd));
  m.impl("sample_kl", TORCH_BOX(&sample_kl));
  m.impl("sample_kl_bwd", TORCH_BOX(&sample_kl_bwd));
}

}  // namespace fastdraw
