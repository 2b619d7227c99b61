// Elementary functions that compilers vectorise, and the mark of the functions that are compiled for several
// instruction sets.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

// Compilers that know the levels x86-64-v3 (AVX2, FMA) and x86-64-v4 (AVX-512). Others make code that is right and
// slow.
#if defined(__x86_64__) && ((defined(__clang__) && __clang_major__ >= 18) || (!defined(__clang__) && __GNUC__ >= 12))
#define FASTDRAW_X86_LEVELS
#endif

// Compile a function, with all that is inlined into it, for plain x86-64, AVX2 and AVX-512; the loader picks the best
// that the machine can run. It needs glibc's ifunc, which sanitizers do not survive.
#if defined(FASTDRAW_X86_LEVELS) && defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define FASTDRAW_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4"), flatten))
#else
#define FASTDRAW_CLONES
#endif

namespace fastdraw {

// e^x and e^x - 1, each with full relative accuracy.
template <typename A>
struct Exp {
  A value, minus_one;
};

// x = n log 2 + r with |r| <= log(2) / 2: n stands in the last bits of `shifted`, and q = e^r - 1.
struct Reduced {
  uint32_t shifted;
  float q;
};

constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer

inline Reduced reduce(float x) {
  constexpr float kLog2High = 0.693359375f;  // n * kLog2High is exact
  constexpr float kLog2Low = -2.12194440e-4f;
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * kLog2High) - n * kLog2Low;
  // e^r - 1 = r + r^2 P(r): the least maximal relative error at degree 4, 1.4e-8.
  const float p = (((0x1.6d9918p-10f * r + 0x1.122808p-7f) * r + 0x1.555486p-5f) * r + 0x1.5554b0p-3f) * r + 0.5f;
  return {std::bit_cast<uint32_t>(shifted), r + r * r * p};
}

// For x <= 0. A value below 2^-126, the least normal number, is 0.
inline Exp<float> exp_nonpositive(float x) {
  constexpr float kLeast = -0.693147f * 126;
  const auto [shifted, q] = reduce(x);
  const float two_n = std::bit_cast<float>((shifted << 23) + (127u << 23));
  const bool tiny = x < kLeast;  // false for NaN, which runs through
  return {tiny ? 0.0f : two_n * q + two_n, tiny ? -1.0f : two_n * q + (two_n - 1.0f)};
}

inline Exp<double> exp_nonpositive(double x) { return {std::exp(x), std::expm1(x)}; }

inline float power_of_two(int32_t n) { return std::bit_cast<float>(static_cast<uint32_t>(n + 127) << 23); }

// For any x, subnormal and infinite values included.
inline Exp<float> exp(float x) {
  // Beyond, the value is 0 or infinite. NaN runs through.
  const auto [shifted, q] = reduce(x < -104.0f ? -104.0f : x > 89.0f ? 89.0f : x);
  // 2^n in two factors, neither of which can overflow.
  const int32_t n = static_cast<int32_t>(shifted - std::bit_cast<uint32_t>(kRound)), half = n >> 1;
  const float first = power_of_two(half), second = power_of_two(n - half), inverse = power_of_two(half - n);
  return {(first * q + first) * second, (first * q + (first - inverse)) * second};
}

inline Exp<double> exp(double x) { return {std::exp(x), std::expm1(x)}; }

// log(1 + x) for 0 <= x <= 1 = 2 artanh(s).
inline float log1p(float x) {
  const float s = x / (2 + x), z = s * s;
  // artanh(s) = s + s z P(z): the least maximal relative error at degree 3, 5.4e-9.
  const float p = ((0x1.1ed7bep-3f * z + 0x1.1ebd0ep-3f) * z + 0x1.99d208p-3f) * z + 0x1.555502p-2f;
  return 2 * (s + s * z * p);
}

inline double log1p(double x) { return std::log1p(x); }

template <typename A>
struct Sigmoid {
  A value, slope;
};

// e = exp(-|x|). The slope is e / (1 + e)^2, which keeps its digits where value * (1 - value) loses them.
template <typename A>
inline Sigmoid<A> sigmoid(A x, A e) {
  const A high = 1 / (1 + e), low = e * high;
  return {x >= 0 ? high : low, low * high};
}

template <typename A>
inline Sigmoid<A> sigmoid(A x) {
  return sigmoid(x, exp_nonpositive(-std::abs(x)).value);
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

// The sum of term(k) over k < size, in double, so that rounding does not grow with the size. Terms go through memory:
// compilers vectorise the end of a loop only where it is no reduction.
template <typename A, typename Term>
inline double sum_blocks(int64_t size, const Term& term) {
  constexpr int64_t kBlock = 256;
  alignas(64) A terms[kBlock];
  double total = 0;
  for (int64_t begin = 0; begin < size; begin += kBlock) {
    const int64_t count = std::min(kBlock, size - begin);
#pragma omp simd
    for (int64_t k = 0; k < count; ++k) terms[k] = term(begin + k);
#pragma omp simd reduction(+ : total)
    for (int64_t k = 0; k < count; ++k) total += static_cast<double>(terms[k]);
  }
  return total;
}

}  // namespace fastdraw
