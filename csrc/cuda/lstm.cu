// i, f, o = sigmoid(gates_i), sigmoid(gates_f), sigmoid(gates_o)        g = tanh(gates_g)
// c' = f * c + i * g                                                    h' = o * tanh(c')
//
// do = dh * tanh(c')       dc' = dc_next + dh * o * (1 - tanh(c')^2)
// dgates = [dc' * g * i(1-i),  dc' * c * f(1-f),  dc' * i * (1-g^2),  do * o(1-o)]        dc = dc' * f
//
// One thread computes kVec neighbouring units of one sample, with one access of kVec elements per array.
// Forward: reads 5 B U elements, writes 2 B U. Backward: reads 7 B U, writes 5 B U.
// The backward pass recomputes gates and cell state from the forward pass's inputs: nothing is saved between.
// Every element is computed by one thread and nothing is summed across threads: deterministic.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "index.h"
#include "lstm.h"

namespace fastdraw {
namespace {

// Small, so that a small batch still reaches many multiprocessors (B = 100, U = 400: 79 blocks in float32).
// Not yet measured on a GPU.
constexpr int kThreads = 128;
constexpr int kVectorBytes = 16;  // the widest load of one thread

// float16 and bfloat16 are computed in float. Conversions by name: torch's build flags take the implicit ones away.
__device__ float widen(float x) { return x; }
__device__ double widen(double x) { return x; }
__device__ float widen(__half x) { return __half2float(x); }
__device__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

__device__ void narrow(float x, float& out) { out = x; }
__device__ void narrow(double x, double& out) { out = x; }
__device__ void narrow(float x, __half& out) { out = __float2half_rn(x); }
__device__ void narrow(float x, __nv_bfloat16& out) { out = __float2bfloat16_rn(x); }

template <typename T, int kVec>
struct alignas(sizeof(T) * kVec) Pack {
  T lane[kVec];
};

template <int kVec, typename T>
__device__ Pack<T, kVec> load(const T* array, int64_t offset) {
  return *reinterpret_cast<const Pack<T, kVec>*>(array + offset);
}

template <int kVec, typename T>
__device__ void store(T* array, int64_t offset, const Pack<T, kVec>& pack) {
  *reinterpret_cast<Pack<T, kVec>*>(array + offset) = pack;
}

template <typename F>
struct Activation {
  F value, slope;
};

// The slope as e / (1 + e)^2 and not s (1 - s), which has no digits left where s is close to 1.
template <typename F>
__device__ Activation<F> sigmoid(F x) {
  const F e = exp(-fabs(x));
  const F r = F(1) / (F(1) + e);
  return {x < F(0) ? e * r : r, e * r * r};
}

// The slope as 1 / cosh^2 and not 1 - t^2, for the same reason.
template <typename F>
__device__ Activation<F> tanh_(F x) {
  const F e = exp(F(-2) * fabs(x));
  const F r = F(1) / (F(1) + e);
  return {tanh(x), F(4) * e * r * r};
}

template <typename F>
struct Cell {
  Activation<F> i, f, g, o, tanh_c;
  F c_next;
};

template <typename F>
__device__ Cell<F> lstm_cell(F gate_i, F gate_f, F gate_g, F gate_o, F c) {
  Cell<F> cell{sigmoid(gate_i), sigmoid(gate_f), tanh_(gate_g), sigmoid(gate_o), {}, {}};
  cell.c_next = cell.f.value * c + cell.i.value * cell.g.value;
  cell.tanh_c = tanh_(cell.c_next);
  return cell;
}

template <typename T, int kVec>
__global__ void __launch_bounds__(kThreads) lstm_gates_fwd_kernel(
    T* __restrict__ h, T* __restrict__ c_next, const T* __restrict__ gates, const T* __restrict__ c, int64_t B,
    int64_t U) {
  const int64_t unit = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kVec;  // of B * U
  if (unit >= B * U) return;
  const CellIndex at = split_cell(unit, U);

  const auto gate_i = load<kVec>(gates, gate_offset(at, 0, U));
  const auto gate_f = load<kVec>(gates, gate_offset(at, 1, U));
  const auto gate_g = load<kVec>(gates, gate_offset(at, 2, U));
  const auto gate_o = load<kVec>(gates, gate_offset(at, 3, U));
  const auto c_old = load<kVec>(c, unit);

  Pack<T, kVec> h_new, c_new;
#pragma unroll
  for (int v = 0; v < kVec; ++v) {
    const auto cell = lstm_cell(
        widen(gate_i.lane[v]), widen(gate_f.lane[v]), widen(gate_g.lane[v]), widen(gate_o.lane[v]),
        widen(c_old.lane[v]));
    narrow(cell.o.value * cell.tanh_c.value, h_new.lane[v]);
    narrow(cell.c_next, c_new.lane[v]);
  }

  store(h, unit, h_new);
  store(c_next, unit, c_new);
}

template <typename T, int kVec>
__global__ void __launch_bounds__(kThreads) lstm_gates_bwd_kernel(
    T* __restrict__ dgates, T* __restrict__ dc, const T* __restrict__ dh, const T* __restrict__ dc_next,
    const T* __restrict__ gates, const T* __restrict__ c, int64_t B, int64_t U) {
  const int64_t unit = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kVec;  // of B * U
  if (unit >= B * U) return;
  const CellIndex at = split_cell(unit, U);

  const auto gate_i = load<kVec>(gates, gate_offset(at, 0, U));
  const auto gate_f = load<kVec>(gates, gate_offset(at, 1, U));
  const auto gate_g = load<kVec>(gates, gate_offset(at, 2, U));
  const auto gate_o = load<kVec>(gates, gate_offset(at, 3, U));
  const auto c_old = load<kVec>(c, unit);
  const auto dh_new = load<kVec>(dh, unit);
  const auto dc_new = load<kVec>(dc_next, unit);

  Pack<T, kVec> dgate_i, dgate_f, dgate_g, dgate_o, dc_old;
#pragma unroll
  for (int v = 0; v < kVec; ++v) {
    const auto c_v = widen(c_old.lane[v]);
    const auto dh_v = widen(dh_new.lane[v]);
    const auto cell =
        lstm_cell(widen(gate_i.lane[v]), widen(gate_f.lane[v]), widen(gate_g.lane[v]), widen(gate_o.lane[v]), c_v);
    const auto dc_v = widen(dc_new.lane[v]) + dh_v * cell.o.value * cell.tanh_c.slope;
    narrow(dc_v * cell.g.value * cell.i.slope, dgate_i.lane[v]);
    narrow(dc_v * c_v * cell.f.slope, dgate_f.lane[v]);
    narrow(dc_v * cell.i.value * cell.g.slope, dgate_g.lane[v]);
    narrow(dh_v * cell.tanh_c.value * cell.o.slope, dgate_o.lane[v]);
    narrow(dc_v * cell.f.value, dc_old.lane[v]);
  }

  store(dgates, gate_offset(at, 0, U), dgate_i);
  store(dgates, gate_offset(at, 1, U), dgate_f);
  store(dgates, gate_offset(at, 2, U), dgate_g);
  store(dgates, gate_offset(at, 3, U), dgate_o);
  store(dc, unit, dc_old);
}

// Whole vectors fit if every array and every row of U starts on a vector's boundary.
template <typename... T>
bool fits_vectors(int64_t U, const T*... arrays) {
  const auto is_aligned = [](const void* array) { return reinterpret_cast<uintptr_t>(array) % kVectorBytes == 0; };
  return ((U * sizeof(T) % kVectorBytes == 0 && is_aligned(arrays)) && ...);
}

unsigned blocks_for(int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

}  // namespace

template <typename T>
void launch_lstm_gates_fwd(T* h, T* c_next, const T* gates, const T* c, int64_t B, int64_t U, cudaStream_t stream) {
  constexpr int kVec = kVectorBytes / sizeof(T);
  if (B * U == 0) return;  // a grid of 0 blocks is an error
  if (fits_vectors(U, h, c_next, gates, c)) {
    lstm_gates_fwd_kernel<T, kVec><<<blocks_for(B * U / kVec), kThreads, 0, stream>>>(h, c_next, gates, c, B, U);
  } else {
    lstm_gates_fwd_kernel<T, 1><<<blocks_for(B * U), kThreads, 0, stream>>>(h, c_next, gates, c, B, U);
  }
}

template <typename T>
void launch_lstm_gates_bwd(
    T* dgates, T* dc, const T* dh, const T* dc_next, const T* gates, const T* c, int64_t B, int64_t U,
    cudaStream_t stream) {
  constexpr int kVec = kVectorBytes / sizeof(T);
  if (B * U == 0) return;  // a grid of 0 blocks is an error
  if (fits_vectors(U, dgates, dc, dh, dc_next, gates, c)) {
    lstm_gates_bwd_kernel<T, kVec>
        <<<blocks_for(B * U / kVec), kThreads, 0, stream>>>(dgates, dc, dh, dc_next, gates, c, B, U);
  } else {
    lstm_gates_bwd_kernel<T, 1><<<blocks_for(B * U), kThreads, 0, stream>>>(dgates, dc, dh, dc_next, gates, c, B, U);
  }
}

#define INSTANTIATE(T)                                                                                \
  template void launch_lstm_gates_fwd<T>(T*, T*, const T*, const T*, int64_t, int64_t, cudaStream_t); \
  template void launch_lstm_gates_bwd<T>(                                                             \
      T*, T*, const T*, const T*, const T*, const T*, int64_t, int64_t, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(__nv_bfloat16)
INSTANTIATE(__half)
#undef INSTANTIATE

}  // namespace fastdraw
