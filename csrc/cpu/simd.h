// Elementary functions that compilers vectorise, and the mark of the functions that are compiled for several
// instruction sets.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

// Compile a function, with all that is inlined into it, for plain x86-64, AVX2 and AVX-512; the loader picks the best
// that the machine can run. It needs glibc's ifunc, which sanitizers do not survive, and a compiler that knows the
// names.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    ((defined(__clang__) && __clang_major__ >= 18) || (!defined(__clang__) && __GNUC__ >= 12))
#define FASTDRAW_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4"), flatten))
#else
#define FASTDRAW_CLONES
#endif

namespace fastdraw {

// e^x = value 2^exponent and e^x - 1, each with full relative accuracy.
template <typename A>
struct Exp {
  A value, minus_one;
};

// For x <= 0. A value below 2^-126, the least normal number, is 0. A fixed exponent moves that bound down to
// 2^(-126 - exponent).
template <int exponent = 0>
inline Exp<float> exp_nonpositive(float x) {
  // x = n log 2 + r with |r| <= log(2) / 2. Adding 1.5 * 2^23 rounds n to an integer that stands in the last bits.
  constexpr float kRound = 12582912.0f;
  constexpr float kLog2High = 0.693359375f;  // n * kLog2High is exact
  constexpr float kLog2Low = -2.12194440e-4f;
  constexpr float kLeast = -0.693147f * (126 + exponent);
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * kLog2High) - n * kLog2Low;
  // e^r - 1 = r + r^2 P(r): the least maximal relative error at degree 4, 1.4e-8.
  const float p = (((0x1.6d9918p-10f * r + 0x1.122808p-7f) * r + 0x1.555486p-5f) * r + 0x1.5554b0p-3f) * r + 0.5f;
  const float q = r + r * r * p;
  const float two_n = std::bit_cast<float>((std::bit_cast<uint32_t>(shifted) << 23) + ((127u + exponent) << 23));
  const bool tiny = x < kLeast;  // false for NaN, which runs through
  return {tiny ? 0.0f : two_n * q + two_n, tiny ? -1.0f : two_n * q + (two_n - 1.0f)};
}

template <int exponent = 0>
inline Exp<double> exp_nonpositive(double x) {
  constexpr double two_n = static_cast<double>(1ull << exponent);
  return {two_n * std::exp(x), std::expm1(x)};
}

template <typename A>
struct Sigmoid {
  A value, slope;
};

// The slope is e / (1 + e)^2, which keeps its digits where value * (1 - value) loses them.
template <typename A>
inline Sigmoid<A> sigmoid(A x) {
  const A e = exp_nonpositive(-std::abs(x)).value;
  const A high = 1 / (1 + e), low = e * high;
  return {x >= 0 ? high : low, low * high};
}

template <typename A>
struct Tanh {
  A value, slope;
};

template <typename A>
inline Tanh<A> tanh(A x) {
  const Exp<A> e = exp_nonpositive(-2 * std::abs(x));
  const A inverse = 1 / (2 + e.minus_one);
  return {std::copysign(-e.minus_one * inverse, x), 4 * e.value * inverse * inverse};
}

}  // namespace fastdraw
