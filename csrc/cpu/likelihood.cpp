#include "cpu/likelihood.h"

#include "cpu/simd.h"

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

}  // namespace fastdraw
