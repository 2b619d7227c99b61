// Vectors that are written out: compilers keep many sums in registers, and add up their lanes well, only if told. Only
// for functions that are inlined into one with FASTDRAW_CLONES.
#pragma once

#include <cstdint>
#include <type_traits>

namespace fastdraw {

// Rows in memory begin anywhere.
template <typename A>
struct Vectors {
  typedef A Value __attribute__((vector_size(32)));
  typedef A Memory __attribute__((vector_size(32), aligned(alignof(A)), may_alias));
  typedef A Four __attribute__((vector_size(4 * sizeof(A))));
  typedef A FourInMemory __attribute__((vector_size(4 * sizeof(A)), aligned(alignof(A)), may_alias));

  static Memory& at(A* x) { return *reinterpret_cast<Memory*>(x); }
  static const Memory& at(const A* x) { return *reinterpret_cast<const Memory*>(x); }
};

template <int... lanes, typename V>
inline void shuffle(const V& a, const V& b, V& to) {
#if defined(__clang__)
  to = __builtin_shufflevector(a, b, lanes...);
#else
  typedef std::conditional_t<sizeof(a[0]) == 4, int32_t, int64_t> Mask __attribute__((vector_size(sizeof(V))));
  to = __builtin_shuffle(a, b, Mask{lanes...});
#endif
}

// sum[i] = the sum of the lanes of x[i]: halves, quarters and eighths of two vectors side by side are added up.
inline void sum_lanes(const Vectors<float>::Value (&x)[4], Vectors<float>::Four& sum) {
  Vectors<float>::Value pair[2], low, high;
  for (int k = 0; k < 2; ++k) {
    shuffle<0, 1, 2, 3, 8, 9, 10, 11>(x[2 * k], x[2 * k + 1], low);
    shuffle<4, 5, 6, 7, 12, 13, 14, 15>(x[2 * k], x[2 * k + 1], high);
    pair[k] = low + high;
  }
  shuffle<0, 8, 1, 9, 4, 12, 5, 13>(pair[0], pair[1], low);
  shuffle<2, 10, 3, 11, 6, 14, 7, 15>(pair[0], pair[1], high);
  low += high;
  sum = Vectors<float>::Four{low[0], low[4], low[1], low[5]} + Vectors<float>::Four{low[2], low[6], low[3], low[7]};
}
inline void sum_lanes(const Vectors<double>::Value (&x)[4], Vectors<double>::Four& sum) {
  Vectors<double>::Value pair[2], low, high;
  for (int k = 0; k < 2; ++k) {
    shuffle<0, 4, 2, 6>(x[2 * k], x[2 * k + 1], low);
    shuffle<1, 5, 3, 7>(x[2 * k], x[2 * k + 1], high);
    pair[k] = low + high;
  }
  shuffle<0, 1, 4, 5>(pair[0], pair[1], low);
  shuffle<2, 3, 6, 7>(pair[0], pair[1], high);
  sum = low + high;
}

}  // namespace fastdraw
