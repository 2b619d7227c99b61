// The product of a slice of weights with the rows of all samples of a group, both in shared memory:
//
//   to[r][s] (+)= sum_k weights[r][k] x[s][k]          sums in float32
//
// bfloat16: tensor cores, one tile of 16 rows x 8 samples per warp, 16 inputs at a time (mma.m16n8k16; the weights are
// its first operand, so that few samples waste little). float32: one thread takes 2 rows x 4 samples and 4 inputs at a
// time, with multiply-adds in float32: no rounding to TF32; 64 terms at a time are summed apart, as rounding grows with
// the terms that follow one another. Every sum runs over k in one order: deterministic.
#pragma once

#include "cuda/numbers.h"
#include "cuda/rollout_plan.h"

namespace fastdraw {

// Rows begin..end of `weights`, whose inputs from `first` to `first + inputs` meet those that are staged in x, rows of
// `stride`. samples is a multiple of 8; to has rows of `samples`, the first for row `begin`. add: to what `to` holds.
template <typename P>
FASTDRAW_DEVICE void multiply(
    const Block& block, const Slice<P>& weights, Range rows, int first, int inputs, const P* x, int stride, int samples,
    float* to, bool add);

constexpr int kTogether = 64;

// Of a tile of 16 rows x 8 samples: the row and the first of the 8 inputs at which a lane's load starts, and where what
// a lane holds of the sums stands (PTX ISA, ldmatrix and mma.m16n8k16).
struct TileLane {
  int a_row, a_input, b_sample, b_input, sum_row, sum_sample;  // the sums: two neighbours, and two 8 rows below
  FASTDRAW_HD explicit TileLane(int lane)
      : a_row(lane % 16),
        a_input(lane / 16 * 8),
        b_sample(lane % 8),
        b_input(lane / 8 % 2 * 8),
        sum_row(lane / 4),
        sum_sample(lane % 4 * 2) {}
};

#if defined(__CUDACC__)

namespace tensor_cores {

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Four 8 x 8 matrices of 16-bit numbers, whose rows lanes 0-7, 8-15, 16-23 and 24-31 point at.
__device__ __forceinline__ void load_matrices(unsigned (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}

// Two of them, whose rows lanes 0-7 and 8-15 point at.
__device__ __forceinline__ void load_matrices(unsigned (&to)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(to[0]), "=r"(to[1])
               : "r"(shared_address(row))
               : "memory");
}

__device__ __forceinline__ void multiply_add(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace tensor_cores

template <>
FASTDRAW_DEVICE void multiply<__nv_bfloat16>(
    const Block& block, const Slice<__nv_bfloat16>& weights, Range rows, int first, int inputs, const __nv_bfloat16* x,
    int stride, int samples, float* to, bool add) {
  const TileLane lane(threadIdx.x % kWarp);
  const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const int row_tiles = (rows.size() + 15) / 16, tiles = row_tiles * (samples / 8);
  for (int tile = warp; tile < tiles; tile += warps) {
    const int row = rows.begin + tile % row_tiles * 16, sample = tile / row_tiles * 8;
    // Rows beyond the last one are the last one again: their sums are not stored.
    const int a_row = min(row + lane.a_row, rows.end - 1);
    const __nv_bfloat16* const a_from = weights.data + a_row * weights.stride() + first + lane.a_input;
    const __nv_bfloat16* const b_from = x + (sample + lane.b_sample) * stride + lane.b_input;
    // Loads first, and two sums in turn: neither loads nor additions wait for the ones before.
    constexpr int kAhead = 2;
    float sums[2][4] = {};
    for (int k = 0; k < inputs; k += 16 * kAhead) {
      unsigned a[kAhead][4], b[kAhead][2];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (k + 16 * j >= inputs) continue;
        tensor_cores::load_matrices(a[j], a_from + k + 16 * j);
        tensor_cores::load_matrices(b[j], b_from + k + 16 * j);
      }
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (k + 16 * j < inputs) tensor_cores::multiply_add(sums[j % 2], a[j], b[j]);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = row + lane.sum_row + half * 8;
      if (r >= rows.end) continue;
      float2* const at = reinterpret_cast<float2*>(to + (r - rows.begin) * samples + sample + lane.sum_sample);
      const float2 before = add ? *at : float2{0, 0};
      *at = {
          before.x + (sums[0][2 * half] + sums[1][2 * half]),
          before.y + (sums[0][2 * half + 1] + sums[1][2 * half + 1])};
    }
  }
  __syncthreads();
}

template <>
FASTDRAW_DEVICE void multiply<float>(
    const Block& block, const Slice<float>& weights, Range rows, int first, int inputs, const float* x, int stride,
    int samples, float* to, bool add) {
  constexpr int kRows = 2, kSamples = 4;
  const int row_tiles = (rows.size() + kRows - 1) / kRows;
  block.each(row_tiles * (samples / kSamples), [&](int tile) {
    const int row = rows.begin + tile % row_tiles * kRows, sample = tile / row_tiles * kSamples;
    const float* a = weights.data + row * weights.stride() + first;
    const int below = row + 1 < rows.end ? weights.stride() : 0;
    const float* b = x + sample * stride;
    float sum[kRows][kSamples] = {};
    for (int from = 0; from < inputs; from += kTogether) {
      float part[kRows][kSamples] = {};
      const int end = min(from + kTogether, inputs);
      for (int k = from; k < end; k += 4) {
        const float4 upper = *reinterpret_cast<const float4*>(a + k);
        const float4 lower = *reinterpret_cast<const float4*>(a + below + k);
#pragma unroll
        for (int s = 0; s < kSamples; ++s) {
          const float4 in = *reinterpret_cast<const float4*>(b + s * stride + k);
          part[0][s] += upper.x * in.x;
          part[0][s] += upper.y * in.y;
          part[0][s] += upper.z * in.z;
          part[0][s] += upper.w * in.w;
          part[1][s] += lower.x * in.x;
          part[1][s] += lower.y * in.y;
          part[1][s] += lower.z * in.z;
          part[1][s] += lower.w * in.w;
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int s = 0; s < kSamples; ++s) sum[r][s] += part[r][s];
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (row + r >= rows.end) continue;
      float* at = to + (row + r - rows.begin) * samples + sample;
#pragma unroll
      for (int s = 0; s < kSamples; ++s) at[s] = add ? at[s] + sum[r][s] : sum[r][s];
    }
  });
}

#else

// The tensor cores' instructions on all lanes of a warp, as the PTX ISA has them.
namespace tensor_cores {

template <int kMatrices>
struct Fragment {
  __nv_bfloat16 of[kWarp][kMatrices][2];
};

template <int kMatrices>
Fragment<kMatrices> load_matrices(const __nv_bfloat16* (&rows)[kWarp]) {
  Fragment<kMatrices> to;
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int m = 0; m < kMatrices; ++m) {
      for (int i = 0; i < 2; ++i) to.of[lane][m][i] = rows[8 * m + lane / 4][lane % 4 * 2 + i];
    }
  }
  return to;
}

inline void multiply_add(float (&sums)[kWarp][4], const Fragment<4>& a, const Fragment<2>& b) {
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, sample = lane % 4 * 2 + i % 2;
      for (int k = 0; k < 16; ++k) {
        const auto x = a.of[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2][k % 2];
        sums[lane][i] += widen(x) * widen(b.of[sample * 4 + k % 8 / 2][k / 8][k % 2]);
      }
    }
  }
}

}  // namespace tensor_cores

template <>
inline void multiply<__nv_bfloat16>(
    const Block& block, const Slice<__nv_bfloat16>& weights, Range rows, int first, int inputs, const __nv_bfloat16* x,
    int stride, int samples, float* to, bool add) {
  const int row_tiles = (rows.size() + 15) / 16;
  block.each(row_tiles * (samples / 8), [&](int tile) {
    const int row = rows.begin + tile % row_tiles * 16, sample = tile / row_tiles * 8;
    float sums[2][kWarp][4] = {};  // in turn
    for (int k = 0; k < inputs; k += 16) {
      const __nv_bfloat16 *a[kWarp], *b[kWarp];
      for (int i = 0; i < kWarp; ++i) {
        const TileLane lane(i);
        a[i] = weights.data + std::min(row + lane.a_row, rows.end - 1) * weights.stride() + first + lane.a_input + k;
        b[i] = x + (sample + lane.b_sample) * stride + lane.b_input + k;
      }
      tensor_cores::multiply_add(
          sums[k / 16 % 2], tensor_cores::load_matrices<4>(a), tensor_cores::load_matrices<2>(b));
    }
    for (int i = 0; i < kWarp; ++i) {
      const TileLane lane(i);
      for (int part = 0; part < 4; ++part) {
        const int r = row + lane.sum_row + part / 2 * 8;
        if (r >= rows.end) continue;
        float& at = to[(r - rows.begin) * samples + sample + lane.sum_sample + part % 2];
        at = (add ? at : 0) + (sums[0][i][part] + sums[1][i][part]);
      }
    }
  });
}

template <>
inline void multiply<float>(
    const Block& block, const Slice<float>& weights, Range rows, int first, int inputs, const float* x, int stride,
    int samples, float* to, bool add) {
  block.each(rows.size() * samples, [&](int i) {
    const float* a = weights.data + (rows.begin + i / samples) * weights.stride() + first;
    const float* b = x + i % samples * stride;
    float sum = 0;
    for (int from = 0; from < inputs; from += kTogether) {
      float part = 0;
      for (int k = from; k < std::min(from + kTogether, inputs); ++k) part += a[k] * b[k];
      sum += part;
    }
    to[i] = add ? to[i] + sum : sum;
  });
}

#endif

}  // namespace fastdraw
