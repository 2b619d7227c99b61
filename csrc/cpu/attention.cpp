#include "cpu/attention.h"

#include <algorithm>
#include <limits>

#include "cpu/simd.h"

namespace fastdraw {
namespace {

template <typename T>
inline void forward(
    int64_t length, int64_t A, int64_t D, const T* query, const T* keys, const T* values, const T* v,
    T* __restrict weights, T* __restrict context) {
  T most = -std::numeric_limits<T>::infinity();
  for (int64_t l = 0; l < length; ++l) {
    const T* key = keys + l * A;
    weights[l] = static_cast<T>(sum_blocks<T>(A, [=](int64_t a) { return v[a] * tanh(query[a] + key[a]).value; }));
    most = std::max(most, weights[l]);
  }
  double total = 0;
  for (int64_t l = 0; l < length; ++l) {
    weights[l] = exp_nonpositive(weights[l] - most).value;
    total += static_cast<double>(weights[l]);
  }
  std::fill_n(context, D, T(0));
  for (int64_t l = 0; l < length; ++l) {
    const T weight = weights[l] /= static_cast<T>(total);
    const T* __restrict value = values + l * D;
#pragma omp simd
    for (int64_t d = 0; d < D; ++d) context[d] += weight * value[d];
  }
}

template <typename T>
inline void backward(
    int64_t length, int64_t A, int64_t D, const T* dcontext, const T* dweights, const T* query, const T* keys,
    const T* values, const T* v, const T* weights, T* __restrict dquery, T* __restrict dkeys, T* __restrict dvalues,
    T* __restrict dv, T* __restrict de) {
  double mean = 0;
  for (int64_t l = 0; l < length; ++l) {
    const T* value = values + l * D;
    const double dot = sum_blocks<T>(D, [=](int64_t d) { return dcontext[d] * value[d]; });
    de[l] = static_cast<T>(dot) + (dweights ? dweights[l] : T(0));
    mean += static_cast<double>(weights[l]) * static_cast<double>(de[l]);
  }
  std::fill_n(dquery, A, T(0));
  for (int64_t l = 0; l < length; ++l) {
    const T weight = weights[l];
    de[l] = static_cast<T>(static_cast<double>(weight) * (static_cast<double>(de[l]) - mean));
    const T slope = de[l];
#pragma omp simd
    for (int64_t d = 0; d < D; ++d) dvalues[l * D + d] += weight * dcontext[d];
#pragma omp simd
    for (int64_t a = 0; a < A; ++a) {
      const Tanh<T> unit = tanh(query[a] + keys[l * A + a]);
      const T dkey = slope * v[a] * unit.slope;
      dkeys[l * A + a] += dkey;
      dquery[a] += dkey;
      dv[a] += slope * unit.value;
    }
  }
}

}  // namespace

FASTDRAW_CLONES void attend(
    int64_t length, int64_t A, int64_t D, const float* query, const float* keys, const float* values, const float* v,
    float* weights, float* context) {
  forward(length, A, D, query, keys, values, v, weights, context);
}
FASTDRAW_CLONES void attend(
    int64_t length, int64_t A, int64_t D, const double* query, const double* keys, const double* values,
    const double* v, double* weights, double* context) {
  forward(length, A, D, query, keys, values, v, weights, context);
}

FASTDRAW_CLONES void attend_bwd(
    int64_t length, int64_t A, int64_t D, const float* dcontext, const float* dweights, const float* query,
    const float* keys, const float* values, const float* v, const float* weights, float* dquery, float* dkeys,
    float* dvalues, float* dv, float* scratch) {
  backward(length, A, D, dcontext, dweights, query, keys, values, v, weights, dquery, dkeys, dvalues, dv, scratch);
}
FASTDRAW_CLONES void attend_bwd(
    int64_t length, int64_t A, int64_t D, const double* dcontext, const double* dweights, const double* query,
    const double* keys, const double* values, const double* v, const double* weights, double* dquery, double* dkeys,
    double* dvalues, double* dv, double* scratch) {
  backward(length, A, D, dcontext, dweights, query, keys, values, v, weights, dquery, dkeys, dvalues, dv, scratch);
}

}  // namespace fastdraw
