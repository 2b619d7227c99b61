// The Gaussian likelihood, with u = (target - mean) / sigma:
//
//   nll = sum u^2 / 2 + log sigma + log(2 pi) / 2,   dmean = -u / sigma = -dtarget,   dlog_sigma = 1 - u^2
//
// A thread takes whole samples, in pieces that fit the L1 cache. Forward reads every element once, backward reads it
// again and writes its gradient.
#include "cpu/likelihood.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <numbers>
#include <tuple>

#include "cpu/simd.h"
#include "cpu/tensor.h"

namespace fastdraw {
namespace {

template <typename A>
inline A bernoulli(int64_t size, const A* logits, const A* target) {
  return static_cast<A>(sum_blocks<A>(size, [=](int64_t k) {
    const A x = logits[k];
    return (x > 0 ? x : A(0)) - x * target[k] + log1p(exp_nonpositive(-std::abs(x)).value);
  }));
}

template <typename A>
inline void bernoulli_bwd(
    int64_t size, A dnll, const A* logits, const A* target, A* __restrict dlogits, A* __restrict dtarget) {
#pragma omp simd
  for (int64_t k = 0; k < size; ++k) dlogits[k] = dnll * (sigmoid(logits[k]).value - target[k]);
  if (!dtarget) return;
#pragma omp simd
  for (int64_t k = 0; k < size; ++k) dtarget[k] = -dnll * logits[k];
}

template <typename A>
inline double gaussian(int64_t size, const A* mean, const A* log_sigma, const A* target) {
  return sum_blocks<A>(size, [=](int64_t k) {
    const A u = (target[k] - mean[k]) * exp(-log_sigma[k]).value;
    return u * u / 2 + log_sigma[k];
  });
}

template <typename A>
inline void gaussian_bwd(
    int64_t size, A dnll, const A* mean, const A* log_sigma, const A* target, A* __restrict dmean,
    A* __restrict dlog_sigma) {
#pragma omp simd
  for (int64_t k = 0; k < size; ++k) {
    const A inverse_sigma = exp(-log_sigma[k]).value, u = (target[k] - mean[k]) * inverse_sigma;
    dmean[k] = -dnll * u * inverse_sigma;
    dlog_sigma[k] = dnll * (1 - u * u);
  }
}

FASTDRAW_CLONES double gaussian_row(int64_t size, const float* mean, const float* log_sigma, const float* target) {
  return gaussian(size, mean, log_sigma, target);
}
FASTDRAW_CLONES double gaussian_row(int64_t size, const double* mean, const double* log_sigma, const double* target) {
  return gaussian(size, mean, log_sigma, target);
}

FASTDRAW_CLONES void gaussian_row_bwd(
    int64_t size, float dnll, const float* mean, const float* log_sigma, const float* target, float* dmean,
    float* dlog_sigma) {
  gaussian_bwd(size, dnll, mean, log_sigma, target, dmean, dlog_sigma);
}
FASTDRAW_CLONES void gaussian_row_bwd(
    int64_t size, double dnll, const double* mean, const double* log_sigma, const double* target, double* dmean,
    double* dlog_sigma) {
  gaussian_bwd(size, dnll, mean, log_sigma, target, dmean, dlog_sigma);
}

}  // namespace

FASTDRAW_CLONES float bernoulli_nll_row(int64_t size, const float* logits, const float* target) {
  return bernoulli(size, logits, target);
}
FASTDRAW_CLONES double bernoulli_nll_row(int64_t size, const double* logits, const double* target) {
  return bernoulli(size, logits, target);
}

FASTDRAW_CLONES void bernoulli_nll_row_bwd(
    int64_t size, float dnll, const float* logits, const float* target, float* dlogits, float* dtarget) {
  bernoulli_bwd(size, dnll, logits, target, dlogits, dtarget);
}
FASTDRAW_CLONES void bernoulli_nll_row_bwd(
    int64_t size, double dnll, const double* logits, const double* target, double* dlogits, double* dtarget) {
  bernoulli_bwd(size, dnll, logits, target, dlogits, dtarget);
}

namespace {

constexpr int64_t kPiece = 1024;  // elements; five arrays of float are 20 KiB of the L1 cache

// Call body(first element, size) on pieces that together are a sample.
template <typename Body>
void for_pieces(int64_t size, const Body& body) {
  for (int64_t first = 0; first < size; first += kPiece) body(first, std::min(kPiece, size - first));
}

template <typename A>
struct BernoulliForward {
  int64_t size;
  Input<2> logits, target;
  Output nll;

  void operator()(int64_t begin, int64_t end) const {
    alignas(64) A x[kPiece], y[kPiece];
    for (int64_t b = begin; b < end; ++b) {
      double total = 0;
      for_pieces(size, [&](int64_t first, int64_t count) {
        logits.load(x, kPiece, 1, count, b, first);
        target.load(y, kPiece, 1, count, b, first);
        total += static_cast<double>(bernoulli_nll_row(count, x, y));
      });
      const A rounded = static_cast<A>(total);
      nll.store(&rounded, 1, 1, 1, b);
    }
  }
};

template <typename A>
struct BernoulliBackward {
  int64_t size;
  Input<1> dnll;
  Input<2> logits, target;
  Output dlogits, dtarget;

  void operator()(int64_t begin, int64_t end) const {
    alignas(64) A x[kPiece], y[kPiece], dx[kPiece], dy[kPiece];
    for (int64_t b = begin; b < end; ++b) {
      A upstream;
      dnll.load(&upstream, 1, 1, 1, b);
      for_pieces(size, [&](int64_t first, int64_t count) {
        logits.load(x, kPiece, 1, count, b, first);
        target.load(y, kPiece, 1, count, b, first);
        bernoulli_nll_row_bwd(count, upstream, x, y, dx, dtarget.data ? dy : nullptr);
        dlogits.store(dx, kPiece, 1, count, b * size + first);
        if (dtarget.data) dtarget.store(dy, kPiece, 1, count, b * size + first);
      });
    }
  }
};

template <typename A>
struct GaussianForward {
  int64_t size;
  Input<2> mean, log_sigma, target;
  Output nll;

  void operator()(int64_t begin, int64_t end) const {
    alignas(64) A m[kPiece], s[kPiece], y[kPiece];
    const double constant = static_cast<double>(size) * std::log(2 * std::numbers::pi) / 2;
    for (int64_t b = begin; b < end; ++b) {
      double total = constant;
      for_pieces(size, [&](int64_t first, int64_t count) {
        mean.load(m, kPiece, 1, count, b, first);
        log_sigma.load(s, kPiece, 1, count, b, first);
        target.load(y, kPiece, 1, count, b, first);
        total += gaussian_row(count, m, s, y);
      });
      const A rounded = static_cast<A>(total);
      nll.store(&rounded, 1, 1, 1, b);
    }
  }
};

template <typename A>
struct GaussianBackward {
  int64_t size;
  Input<1> dnll;
  Input<2> mean, log_sigma, target;
  Output dmean, dlog_sigma;

  void operator()(int64_t begin, int64_t end) const {
    alignas(64) A m[kPiece], s[kPiece], y[kPiece], dm[kPiece], ds[kPiece];
    for (int64_t b = begin; b < end; ++b) {
      A upstream;
      dnll.load(&upstream, 1, 1, 1, b);
      for_pieces(size, [&](int64_t first, int64_t count) {
        mean.load(m, kPiece, 1, count, b, first);
        log_sigma.load(s, kPiece, 1, count, b, first);
        target.load(y, kPiece, 1, count, b, first);
        gaussian_row_bwd(count, upstream, m, s, y, dm, ds);
        dmean.store(dm, kPiece, 1, count, b * size + first);
        dlog_sigma.store(ds, kPiece, 1, count, b * size + first);
      });
    }
  }
};

constexpr int64_t kCost = 8;  // of one element, forward or backward

// Samples of any rank as the rows of a matrix; a copy where the strides allow no view.
Tensor as_rows(const char* op, const char* name, const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.dim() >= 1, op, ": ", name, " must have at least 1 dimension, got 0");
  int64_t shape[] = {tensor.size(0), 1};
  for (int64_t axis = 1; axis < tensor.dim(); ++axis) shape[1] *= tensor.size(axis);
  return torch::stable::reshape(tensor, {shape, 2});
}

Tensor new_gradient(const Tensor& like, bool wanted) {
  return wanted ? torch::stable::new_empty(like, like.sizes()) : new_empty(like, {0});
}

Tensor bernoulli_nll(const Tensor& logits, const Tensor& target) {
  const char* op = "bernoulli_nll";
  const ScalarType dtype = logits.scalar_type();
  const Tensor x = as_rows(op, "logits", logits), y = as_rows(op, "target", target);
  const int64_t B = x.size(0), size = x.size(1);
  check_tensor(op, "target", y, dtype, {B, size});
  const Tensor nll = new_empty(logits, {B});
  with_compute_type(op, dtype, [&](auto compute) {
    run_parallel(BernoulliForward<decltype(compute)>{size, x, y, nll}, B, kCost * size + 1);
  });
  return nll;
}

std::tuple<Tensor, Tensor> bernoulli_nll_bwd(
    const Tensor& dnll, const Tensor& logits, const Tensor& target, bool need_dtarget) {
  const char* op = "bernoulli_nll_bwd";
  const ScalarType dtype = logits.scalar_type();
  const Tensor x = as_rows(op, "logits", logits), y = as_rows(op, "target", target);
  const int64_t B = x.size(0), size = x.size(1);
  check_tensor(op, "target", y, dtype, {B, size});
  check_tensor(op, "dnll", dnll, dtype, {B});
  const Tensor dlogits = new_gradient(logits, true), dtarget = new_gradient(target, need_dtarget);
  with_compute_type(op, dtype, [&](auto compute) {
    const BernoulliBackward<decltype(compute)> work{size, dnll,    x,
                                                    y,    dlogits, need_dtarget ? Output(dtarget) : Output{}};
    run_parallel(work, B, kCost * size + 1);
  });
  return {dlogits, dtarget};
}

Tensor gaussian_nll(const Tensor& mean, const Tensor& log_sigma, const Tensor& target) {
  const char* op = "gaussian_nll";
  const ScalarType dtype = mean.scalar_type();
  const Tensor m = as_rows(op, "mean", mean), s = as_rows(op, "log_sigma", log_sigma);
  const Tensor y = as_rows(op, "target", target);
  const int64_t B = m.size(0), size = m.size(1);
  check_tensor(op, "log_sigma", s, dtype, {B, size});
  check_tensor(op, "target", y, dtype, {B, size});
  const Tensor nll = new_empty(mean, {B});
  with_compute_type(op, dtype, [&](auto compute) {
    run_parallel(GaussianForward<decltype(compute)>{size, m, s, y, nll}, B, kCost * size + 1);
  });
  return nll;
}

std::tuple<Tensor, Tensor> gaussian_nll_bwd(
    const Tensor& dnll, const Tensor& mean, const Tensor& log_sigma, const Tensor& target) {
  const char* op = "gaussian_nll_bwd";
  const ScalarType dtype = mean.scalar_type();
  const Tensor m = as_rows(op, "mean", mean), s = as_rows(op, "log_sigma", log_sigma);
  const Tensor y = as_rows(op, "target", target);
  const int64_t B = m.size(0), size = m.size(1);
  check_tensor(op, "log_sigma", s, dtype, {B, size});
  check_tensor(op, "target", y, dtype, {B, size});
  check_tensor(op, "dnll", dnll, dtype, {B});
  const Tensor dmean = new_gradient(mean, true), dlog_sigma = new_gradient(log_sigma, true);
  with_compute_type(op, dtype, [&](auto compute) {
    run_parallel(GaussianBackward<decltype(compute)>{size, dnll, m, s, y, dmean, dlog_sigma}, B, kCost * size + 1);
  });
  return {dmean, dlog_sigma};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdraw, CPU, m) {
  m.impl("bernoulli_nll", TORCH_BOX(&bernoulli_nll));
  m.impl("bernoulli_nll_bwd", TORCH_BOX(&bernoulli_nll_bwd));
  m.impl("gaussian_nll", TORCH_BOX(&gaussian_nll));
  m.impl("gaussian_nll_bwd", TORCH_BOX(&gaussian_nll_bwd));
}

}  // namespace fastdraw
