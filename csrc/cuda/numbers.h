// The four dtypes, what they are computed in, and accesses of 16 bytes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <type_traits>

#include "cuda/block.h"

namespace fastdraw {

// float16 and bfloat16 are computed in float. Conversions by name: torch's build flags take the implicit ones away.
FASTDRAW_DEVICE float widen(float x) { return x; }
FASTDRAW_DEVICE double widen(double x) { return x; }
FASTDRAW_DEVICE float widen(__half x) { return __half2float(x); }
FASTDRAW_DEVICE float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

FASTDRAW_DEVICE void narrow(float x, float& out) { out = x; }
FASTDRAW_DEVICE void narrow(double x, double& out) { out = x; }
FASTDRAW_DEVICE void narrow(float x, __half& out) { out = __float2half_rn(x); }
FASTDRAW_DEVICE void narrow(float x, __nv_bfloat16& out) { out = __float2bfloat16_rn(x); }

// What a dtype is computed and summed up in.
template <typename T>
using Compute = std::conditional_t<std::is_same_v<T, double>, double, float>;

constexpr int kVectorBytes = 16;  // the widest access of one thread

template <typename T, int kVec>
struct alignas(sizeof(T) * kVec) Pack {
  T lane[kVec];
};

template <int kVec, typename T>
FASTDRAW_DEVICE Pack<T, kVec> load(const T* array, int64_t offset) {
  return *reinterpret_cast<const Pack<T, kVec>*>(array + offset);
}

template <int kVec, typename T>
FASTDRAW_DEVICE void store(T* array, int64_t offset, const Pack<T, kVec>& pack) {
  *reinterpret_cast<Pack<T, kVec>*>(array + offset) = pack;
}

// Whole vectors fit if every array, and every row of `width` elements in it, starts on a vector's boundary.
template <typename... T>
bool fits_vectors(int64_t width, const T*... arrays) {
  const auto is_aligned = [](const void* array) { return reinterpret_cast<uintptr_t>(array) % kVectorBytes == 0; };
  return ((width * sizeof(T) % kVectorBytes == 0 && is_aligned(arrays)) && ...);
}

template <typename A>
struct Activation {
  A value, slope;
};

// The slope as e / (1 + e)^2 and not s (1 - s), which has no digits left where s is close to 1.
template <typename A>
FASTDRAW_DEVICE Activation<A> sigmoid(A x) {
  const A e = std::exp(-std::fabs(x));
  const A r = A(1) / (A(1) + e);
  return {x < A(0) ? e * r : r, e * r * r};
}

// The slope as 1 / cosh^2 and not 1 - t^2, for the same reason.
template <typename A>
FASTDRAW_DEVICE Activation<A> tanh_(A x) {
  const A e = std::exp(A(-2) * std::fabs(x));
  const A r = A(1) / (A(1) + e);
  return {std::tanh(x), A(4) * e * r * r};
}

}  // namespace fastdraw
