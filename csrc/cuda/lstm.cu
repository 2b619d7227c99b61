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

#include "cuda/lstm.h"

#include "cuda/launch.h"

namespace fastdraw {
namespace {

// Small, so that a small batch still reaches many multiprocessors (B = 100, U = 400: 79 blocks in float32).
// Not yet measured on a GPU.
constexpr int kThreads = 128;

template <typename T, int kVec>
FASTDRAW_KERNEL(kThreads)
lstm_gates_fwd_kernel(
    T* __restrict__ h, T* __restrict__ c_next, const T* __restrict__ gates, const T* __restrict__ c, int64_t B,
    int64_t U) {
  Block().each_of_all(B * U / kVec, [&](int64_t vector) {
    const int64_t unit = vector * kVec;  // of B * U
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
      narrow(cell.h(), h_new.lane[v]);
      narrow(cell.c_next, c_new.lane[v]);
    }

    store(h, unit, h_new);
    store(c_next, unit, c_new);
  });
}

template <typename T, int kVec>
FASTDRAW_KERNEL(kThreads)
lstm_gates_bwd_kernel(
    T* __restrict__ dgates, T* __restrict__ dc, const T* __restrict__ dh, const T* __restrict__ dc_next,
    const T* __restrict__ gates, const T* __restrict__ c, int64_t B, int64_t U) {
  Block().each_of_all(B * U / kVec, [&](int64_t vector) {
    const int64_t unit = vector * kVec;  // of B * U
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
      const auto cell =
          lstm_cell(widen(gate_i.lane[v]), widen(gate_f.lane[v]), widen(gate_g.lane[v]), widen(gate_o.lane[v]), c_v);
      const auto gradients = lstm_cell_bwd(widen(dh_new.lane[v]), widen(dc_new.lane[v]), cell, c_v);
      narrow(gradients.i, dgate_i.lane[v]);
      narrow(gradients.f, dgate_f.lane[v]);
      narrow(gradients.g, dgate_g.lane[v]);
      narrow(gradients.o, dgate_o.lane[v]);
      narrow(gradients.c, dc_old.lane[v]);
    }

    store(dgates, gate_offset(at, 0, U), dgate_i);
    store(dgates, gate_offset(at, 1, U), dgate_f);
    store(dgates, gate_offset(at, 2, U), dgate_g);
    store(dgates, gate_offset(at, 3, U), dgate_o);
    store(dc, unit, dc_old);
  });
}

template <int kVec, typename Kernel, typename... Arguments>
void launch_cells(Kernel kernel, int64_t B, int64_t U, cudaStream_t stream, const Arguments&... arguments) {
  launch(kernel, blocks_for(B * U / kVec, kThreads), kThreads, 0, stream, arguments..., B, U);
}

}  // namespace

template <typename T>
void launch_lstm_gates_fwd(T* h, T* c_next, const T* gates, const T* c, int64_t B, int64_t U, cudaStream_t stream) {
  constexpr int kVec = kVectorBytes / sizeof(T);
  if (fits_vectors(U, h, c_next, gates, c)) {
    launch_cells<kVec>(lstm_gates_fwd_kernel<T, kVec>, B, U, stream, h, c_next, gates, c);
  } else {
    launch_cells<1>(lstm_gates_fwd_kernel<T, 1>, B, U, stream, h, c_next, gates, c);
  }
}

template <typename T>
void launch_lstm_gates_bwd(
    T* dgates, T* dc, const T* dh, const T* dc_next, const T* gates, const T* c, int64_t B, int64_t U,
    cudaStream_t stream) {
  constexpr int kVec = kVectorBytes / sizeof(T);
  if (fits_vectors(U, dgates, dc, dh, dc_next, gates, c)) {
    launch_cells<kVec>(lstm_gates_bwd_kernel<T, kVec>, B, U, stream, dgates, dc, dh, dc_next, gates, c);
  } else {
    launch_cells<1>(lstm_gates_bwd_kernel<T, 1>, B, U, stream, dgates, dc, dh, dc_next, gates, c);
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
