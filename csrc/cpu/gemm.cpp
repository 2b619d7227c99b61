#include "cpu/gemm.h"

#include <algorithm>
#include <bit>

#include "cpu/simd.h"
#include "cpu/vectors.h"

namespace fastdraw {
namespace {

// Lines of pairs that are summed up apart: they fit an L1 cache, and rounding grows with the terms that follow one
// another; 160 terms are as exact as plain PyTorch's sums. Of pairs, so that blocks begin at the same k in every dtype.
constexpr int64_t kBlock = 80;
constexpr int kMaxRows = 6;  // of a tile

template <typename A, int bytes>
struct VectorOf {
  typedef A Type __attribute__((vector_size(bytes), aligned(alignof(A)), may_alias));
  static constexpr int kPerPanel = 64 / bytes;
  static constexpr int kLanes = bytes / static_cast<int>(sizeof(A));
};

// One tile: c (rows, panels) = base + a (rows, K) x b (K, panels).
template <typename A, typename P>
struct TileArguments {
  int64_t K;
  const A* a;
  int64_t row, step;  // elements from a row of a to the next, and from one k to the next
  const P* b;
  int64_t panel;  // elements from a panel of b to the next
  A* c;
  int64_t ldc;
  const A* base;  // null: 0
  int64_t ld_base;
};

// x = columns of a line, at the first or the second k that it holds.
template <typename Vector>
[[gnu::always_inline]] inline void load_line(const auto* b, int, Vector& x) {
  x = *reinterpret_cast<const Vector*>(b);
}
template <typename Vector>
[[gnu::always_inline]] inline void load_line(const Pair* b, int k, Vector& x) {
  using Pairs = typename VectorOf<Pair, sizeof(Vector)>::Type;
  const Pairs pairs = *reinterpret_cast<const Pairs*>(b);
  x = reinterpret_cast<Vector>(k == 0 ? pairs << 16 : pairs & 0xffff0000u);
}

// rows x panels of c stay in registers.
template <int bytes, int rows, int count, typename A, typename P>
[[gnu::always_inline]] inline void tile(const TileArguments<A, P>& at) {
  using V = VectorOf<A, bytes>;
  using Vector = typename V::Type;
  constexpr int kVectors = count * V::kPerPanel;
  Vector sum[rows][kVectors];
  for (int m = 0; m < rows; ++m) {
    for (int v = 0; v < kVectors; ++v) sum[m][v] = Vector{};
  }
  const A* a = at.a;
  const P* b = at.b;
  const int64_t row = at.row, step = at.step, panel = at.panel;
  const auto multiply_add = [&](int k) __attribute__((always_inline)) {
    Vector x[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      load_line(b + v / V::kPerPanel * panel + v % V::kPerPanel * V::kLanes, k, x[v]);
    }
    for (int m = 0; m < rows; ++m) {
      const A s = a[m * row];
      for (int v = 0; v < kVectors; ++v) sum[m][v] += s * x[v];
    }
    a += step;
  };
#pragma GCC unroll 2
  for (int64_t line = 0; line < at.K / kDepth<P>; ++line) {
    for (int k = 0; k < kDepth<P>; ++k) {
      multiply_add(k);
      // Compilers that knew that it is the same line would keep it, and sums would leave the registers.
      if constexpr (kDepth<P> > 1) asm("" : "+r"(b));
    }
    b += kPanel<P>;
  }
  if (at.K % kDepth<P> > 0) multiply_add(0);  // there is no element of a for the second half
  for (int m = 0; m < rows; ++m) {
    for (int v = 0; v < kVectors; ++v) {
      // Added last: terms that follow a large number one by one are each rounded as it is.
      if (at.base) sum[m][v] += *reinterpret_cast<const Vector*>(at.base + m * at.ld_base + v * V::kLanes);
      *reinterpret_cast<Vector*>(at.c + m * at.ldc + v * V::kLanes) = sum[m][v];
    }
  }
}

template <typename A, typename P>
using Tile = void (*)(const TileArguments<A, P>&);

// The tiles of one instruction set: for every number of rows, one panel at a time and as many as its registers hold.
template <typename A, typename P>
struct Tiles {
  int max_rows;
  int wide[kMaxRows + 1];  // panels of the wide tile
  Tile<A, P> one[kMaxRows + 1], many[kMaxRows + 1];
};

// Sums fill at most three quarters of the registers. Beside them lie the columns that rows share, and an element of a.
constexpr int sums_in(int registers) { return registers * 3 / 4; }

constexpr int panels_of(int registers, int bytes, int rows) {
  for (const int count : {4, 2}) {
    const int vectors = count * 64 / bytes;
    if (rows * vectors <= sums_in(registers) && (rows == 1 || (rows + 1) * vectors < registers)) return count;
  }
  return 1;
}

// Making floats of pairs takes two registers more.
template <typename P>
constexpr int registers_left(int registers) {
  return kDepth<P> == 1 ? registers : registers - 2;
}

#define FASTDRAW_TILES(name, bytes, registers, target)                        \
  template <int rows, int count, typename A, typename P>                      \
  target void tile_##name(const TileArguments<A, P>& at) {                    \
    tile<bytes, rows, count>(at);                                             \
  }                                                                           \
  template <typename A, typename P, int rows = 1>                             \
  void fill_##name(Tiles<A, P>& tiles) {                                      \
    constexpr int left = registers_left<P>(registers);                        \
    if constexpr (rows <= kMaxRows && rows * (64 / bytes) <= sums_in(left)) { \
      constexpr int count = panels_of(left, bytes, rows);                     \
      tiles.max_rows = rows;                                                  \
      tiles.wide[rows] = count;                                               \
      tiles.one[rows] = tile_##name<rows, 1, A, P>;                           \
      tiles.many[rows] = tile_##name<rows, count, A, P>;                      \
      fill_##name<A, P, rows + 1>(tiles);                                     \
    }                                                                         \
  }

#if defined(__x86_64__)
FASTDRAW_TILES(sse2, 16, 16, )
#else
FASTDRAW_TILES(portable, 16, 32, )
#endif
#if defined(FASTDRAW_X86_LEVELS)
FASTDRAW_TILES(avx2, 32, 16, __attribute__((target("arch=x86-64-v3"))))
FASTDRAW_TILES(avx512, 64, 32, __attribute__((target("arch=x86-64-v4"))))
#endif

template <typename A, typename P>
const Tiles<A, P>& tiles() {
  static const Tiles<A, P> chosen = [] {
    Tiles<A, P> found{};
#if defined(FASTDRAW_X86_LEVELS)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("x86-64-v4")) {
      fill_avx512(found);
      return found;
    }
    if (__builtin_cpu_supports("x86-64-v3")) {
      fill_avx2(found);
      return found;
    }
#endif
#if defined(__x86_64__)
    fill_sse2(found);
#else
    fill_portable(found);
#endif
    return found;
  }();
  return chosen;
}

// The rows 0..M in tiles of nearly equal size: a tile of few rows takes as long as one of many.
template <typename Body>
inline void for_row_tiles(int64_t M, int64_t most, const Body& body) {
  const int64_t count = (M + most - 1) / most;
  for (int64_t k = 0; k < count; ++k) {
    const int64_t begin = k * M / count;
    body(begin, static_cast<int>((k + 1) * M / count - begin));
  }
}

// Call body(begin, end) on blocks of nearly equal size that together are 0..K; an empty one if K is 0.
template <typename Body>
inline void for_blocks(int64_t K, int64_t most, const Body& body) {
  const int64_t count = std::max<int64_t>(1, (K + most - 1) / most);
  for (int64_t k = 0; k < count; ++k) body(k * K / count, (k + 1) * K / count);
}

template <typename A, typename P>
void multiply_panels(const Product& at, const A* a, const P* packed, const A* bias, A* c) {
  if (at.M == 0) return;
  const Tiles<A, P>& set = tiles<A, P>();
  const int64_t panel = lines<P>(at.K) * kPanel<P>, tile_count = (at.M + set.max_rows - 1) / set.max_rows;
  const int wide = tile_count == 1 ? set.wide[at.M] : 1;
  for_blocks(lines<Pair>(at.K), kBlock, [&](int64_t pair, int64_t pair_end) {
    const int64_t k = pair * kDepth<Pair>, k_end = std::min(pair_end * kDepth<Pair>, at.K);
    const int64_t line = k / kDepth<P>, line_end = lines<P>(k_end);
    for (int64_t p = at.first; p < at.end;) {
      const int count = at.end - p >= wide ? wide : 1;
      const A* const base = k > 0 || at.add ? c + p * kPanel<A> : bias == nullptr ? nullptr : bias + p * kPanel<A>;
      const int64_t ld_base = k > 0 || at.add ? at.ldc : 0;
      // Every tile asks for its share of the next panel, which is there when the last tile is done.
      const P* ahead = packed + (p + count < at.end ? p + count : at.first) * panel + line * kPanel<P>;
      const int64_t share = (line_end - line + tile_count - 1) / tile_count;
      for_row_tiles(at.M, set.max_rows, [&](int64_t m, int rows) {
        for (int64_t i = 0; tile_count > 1 && i < share; ++i) __builtin_prefetch(ahead + i * kPanel<P>, 0, 2);
        ahead += share * kPanel<P>;
        const TileArguments<A, P> arguments{
            k_end - k,
            a + m * at.lda + k,
            at.lda,
            1,
            packed + p * panel + line * kPanel<P>,
            panel,
            c + m * at.ldc + p * kPanel<A>,
            at.ldc,
            base == nullptr ? nullptr : base + m * ld_base,
            ld_base};
        (count > 1 ? set.many : set.one)[rows](arguments);
      });
      p += count;
    }
  });
}

// Tiles of a^T are packed side by side, k by k, because a column of `a` touches a new page at every k.
template <typename A>
void transposed(
    int64_t M, int64_t K, int64_t columns, const A* a, int64_t lda, const A* packed, A* c, int64_t ldc, A* scratch) {
  const Tiles<A, A>& set = tiles<A, A>();
  for_blocks(M, kTransposedRows, [&](int64_t top, int64_t bottom) {
    for_blocks(K, kTransposedScratch / kTransposedRows, [&](int64_t k, int64_t k_end) {
      const int64_t depth = k_end - k;
      for_row_tiles(bottom - top, set.max_rows, [&](int64_t m, int rows) {
        const A* from = a + k * lda + top + m;
        A* to = scratch + m * depth;
        // With a number of rows that compilers know, they copy vectors.
        if (rows == kMaxRows) {
          for (int64_t q = 0; q < depth; ++q, from += lda, to += kMaxRows) {
            for (int i = 0; i < kMaxRows; ++i) to[i] = from[i];
          }
        } else {
          for (int64_t q = 0; q < depth; ++q, from += lda, to += rows) {
            for (int i = 0; i < rows; ++i) to[i] = from[i];
          }
        }
      });
      for (int64_t p = 0; p < panels<A>(columns); ++p) {
        const int64_t column = p * kPanel<A>, valid = std::min(kPanel<A>, columns - column);
        for_row_tiles(bottom - top, set.max_rows, [&](int64_t m, int rows) {
          A* const result = c + (top + m) * ldc + column;
          TileArguments<A, A> arguments{
              depth, scratch + m * depth,      1,  rows, packed + (p * K + k) * kPanel<A>, 0, result,
              ldc,   k > 0 ? result : nullptr, ldc};
          if (valid == kPanel<A>) {
            set.one[rows](arguments);
            return;
          }
          // The last panel is not whole: its result goes through memory that is.
          A whole[kMaxRows * kPanel<A>] = {};
          arguments.c = whole;
          arguments.ldc = arguments.ld_base = kPanel<A>;
          if (k > 0) {
            for (int i = 0; i < rows; ++i) std::copy_n(result + i * ldc, valid, whole + i * kPanel<A>);
            arguments.base = whole;
          }
          set.one[rows](arguments);
          for (int i = 0; i < rows; ++i) std::copy_n(whole + i * kPanel<A>, valid, result + i * ldc);
        });
      }
    });
  });
}

// out (4, 4) in rows of ld_out = in^T
template <typename A>
inline void transpose_square(const A* in, int64_t ld, A* out, int64_t ld_out) {
  using Four = typename Vectors<A>::Four;
  using InMemory = typename Vectors<A>::FourInMemory;
  Four row[4], low[2], high[2], to[4];
  for (int i = 0; i < 4; ++i) row[i] = *reinterpret_cast<const InMemory*>(in + i * ld);
  for (int i = 0; i < 2; ++i) {
    shuffle<0, 4, 1, 5>(row[2 * i], row[2 * i + 1], low[i]);
    shuffle<2, 6, 3, 7>(row[2 * i], row[2 * i + 1], high[i]);
  }
  shuffle<0, 1, 4, 5>(low[0], low[1], to[0]);
  shuffle<2, 3, 6, 7>(low[0], low[1], to[1]);
  shuffle<0, 1, 4, 5>(high[0], high[1], to[2]);
  shuffle<2, 3, 6, 7>(high[0], high[1], to[3]);
  for (int i = 0; i < 4; ++i) *reinterpret_cast<InMemory*>(out + i * ld_out) = to[i];
}

template <typename A>
void pack_columns(int64_t N, int64_t K, const A* w, int64_t ldw, A* packed, int64_t panel) {
  constexpr int kSide = 4;
  for (int64_t n = 0; n < N; n += kPanel<A>, packed += panel) {
    const int64_t count = std::min(kPanel<A>, N - n), squares = count / kSide * kSide;
    int64_t k = 0;
    for (; k + kSide <= K; k += kSide) {
      for (int64_t j = 0; j < squares; j += kSide) {
        transpose_square(w + (n + j) * ldw + k, ldw, packed + k * kPanel<A> + j, kPanel<A>);
      }
    }
    for (int64_t q = 0; q < K; ++q) {
      for (int64_t j = q < k ? squares : 0; j < kPanel<A>; ++j) {
        packed[q * kPanel<A> + j] = j < count ? w[(n + j) * ldw + q] : A{0};
      }
    }
  }
}

// Written out, because compilers make a call of memmove of it.
template <typename A>
inline void copy_line(const A* from, A* to) {
  using Vector = typename VectorOf<A, 16>::Type;
  const Vector* in = reinterpret_cast<const Vector*>(from);
  Vector* out = reinterpret_cast<Vector*>(to);
  const Vector a = in[0], b = in[1], c = in[2], d = in[3];
  out[0] = a, out[1] = b, out[2] = c, out[3] = d;
}

template <typename A>
void pack_rows(int64_t K, int64_t N, const A* w, int64_t ldw, A* packed, int64_t panel) {
  for (int64_t k = 0; k < K; ++k) {
    A* to = packed + k * kPanel<A>;
    for (int64_t n = 0; n < N; n += kPanel<A>, to += panel) {
      const A* from = w + k * ldw + n;
      if (N - n >= kPanel<A>) {
        copy_line(from, to);
      } else {
        std::fill(std::copy_n(from, N - n, to), to + kPanel<A>, A{0});
      }
    }
  }
}

// Rounded to the nearest bfloat16, ties to even, in the upper half; the lower half is anything.
inline uint32_t round_to_bfloat16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return x != x ? 0x7fc00000u : bits + 0x7fff + (bits >> 16 & 1);
}

// `count` lines of pairs from two lines each of floats.
FASTDRAW_CLONES void pair_lines(
    int64_t count, const float* first, const float* second, int64_t step, Pair* to, int64_t step_to) {
  for (int64_t i = 0; i < count; ++i, first += step, second += step, to += step_to) {
#pragma omp simd
    for (int64_t j = 0; j < kPanel<Pair>; ++j) {
      to[j] = round_to_bfloat16(first[j]) >> 16 | (round_to_bfloat16(second[j]) & 0xffff0000u);
    }
  }
}

}  // namespace

void multiply_packed(const Product& product, const float* a, const float* packed, const float* bias, float* c) {
  multiply_panels(product, a, packed, bias, c);
}
void multiply_packed(const Product& product, const double* a, const double* packed, const double* bias, double* c) {
  multiply_panels(product, a, packed, bias, c);
}
void multiply_packed(const Product& product, const float* a, const Pair* packed, const float* bias, float* c) {
  multiply_panels(product, a, packed, bias, c);
}

void multiply_transposed(
    int64_t M, int64_t K, int64_t columns, const float* a, int64_t lda, const float* packed, float* c, int64_t ldc,
    float* scratch) {
  transposed(M, K, columns, a, lda, packed, c, ldc, scratch);
}
void multiply_transposed(
    int64_t M, int64_t K, int64_t columns, const double* a, int64_t lda, const double* packed, double* c, int64_t ldc,
    double* scratch) {
  transposed(M, K, columns, a, lda, packed, c, ldc, scratch);
}

void pack_transposed(int64_t N, int64_t K, const float* w, int64_t ldw, float* packed, int64_t panel) {
  pack_columns(N, K, w, ldw, packed, panel);
}
void pack_transposed(int64_t N, int64_t K, const double* w, int64_t ldw, double* packed, int64_t panel) {
  pack_columns(N, K, w, ldw, packed, panel);
}
void pack_transposed(int64_t N, int64_t K, const float* w, int64_t ldw, Pair* packed, int64_t panel) {
  constexpr int64_t kRows = 32, kWidth = kPanel<Pair>;
  for (int64_t n = 0; n < N; n += kWidth, packed += panel) {
    for (int64_t k = 0; k < K; k += kRows) {
      alignas(64) float rows[kRows * kWidth];
      const int64_t depth = std::min(kRows, K - k), count = lines<Pair>(depth);
      pack_columns(std::min(kWidth, N - n), depth, w + n * ldw + k, ldw, rows, 0);
      std::fill(rows + depth * kWidth, rows + count * kDepth<Pair> * kWidth, 0.0f);
      pair_lines(count, rows, rows + kWidth, 2 * kWidth, packed + lines<Pair>(k) * kWidth, kWidth);
    }
  }
}

void pack(int64_t K, int64_t N, const float* w, int64_t ldw, float* packed, int64_t panel) {
  pack_rows(K, N, w, ldw, packed, panel);
}
void pack(int64_t K, int64_t N, const double* w, int64_t ldw, double* packed, int64_t panel) {
  pack_rows(K, N, w, ldw, packed, panel);
}
void pack(int64_t K, int64_t N, const float* w, int64_t ldw, Pair* packed, int64_t panel) {
  constexpr int64_t kWidth = kPanel<Pair>;
  const int64_t whole = N / kWidth, rest = N % kWidth;
  for (int64_t k = 0; k < K; k += 2, packed += kWidth) {
    const float *first = w + k * ldw, *second = first + ldw;
    // The last columns, and a last row without a second, go through memory that is whole.
    const bool alone = k + 1 == K;
    if (!alone) pair_lines(whole, first, second, kWidth, packed, panel);
    for (int64_t p = alone ? 0 : whole; p < panels<Pair>(N); ++p) {
      float rows[2 * kWidth] = {};
      const int64_t count = p < whole ? kWidth : rest;
      std::copy_n(first + p * kWidth, count, rows);
      if (!alone) std::copy_n(second + p * kWidth, count, rows + kWidth);
      pair_lines(1, rows, rows + kWidth, 0, packed + p * panel, 0);
    }
  }
}

}  // namespace fastdraw
