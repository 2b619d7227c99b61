#pragma once

// One cell of an LSTM for any kernel, and the launchers of its pointwise half; equations in lstm.cu.
// Launchers are instantiated for float, double, __nv_bfloat16 and __half. Arrays are contiguous and on the current
// device; outputs overlap with no input.

#include "cuda/numbers.h"

namespace fastdraw {

template <typename A>
struct Cell {
  Activation<A> i, f, g, o, tanh_c;
  A c_next;

  FASTDRAW_DEVICE A h() const { return o.value * tanh_c.value; }
};

// c' and h' from gates before their nonlinearities.
template <typename A>
FASTDRAW_DEVICE Cell<A> lstm_cell(A gate_i, A gate_f, A gate_g, A gate_o, A c) {
  Cell<A> cell{sigmoid(gate_i), sigmoid(gate_f), tanh_(gate_g), sigmoid(gate_o), {}, {}};
  cell.c_next = cell.f.value * c + cell.i.value * cell.g.value;
  cell.tanh_c = tanh_(cell.c_next);
  return cell;
}

template <typename A>
struct CellGradients {
  A i, f, g, o, c;
};

// The gradients of the gates before their nonlinearities and of c, from those of h' and c'.
template <typename A>
FASTDRAW_DEVICE CellGradients<A> lstm_cell_bwd(A dh, A dc_next, const Cell<A>& cell, A c) {
  const A dc = dc_next + dh * cell.o.value * cell.tanh_c.slope;
  return {
      dc * cell.g.value * cell.i.slope, dc * c * cell.f.slope, dc * cell.i.value * cell.g.slope,
      dh * cell.tanh_c.value * cell.o.slope, dc * cell.f.value};
}

// h, c_next (B, U) from gates (B, 4U), c (B, U)
template <typename T>
void launch_lstm_gates_fwd(T* h, T* c_next, const T* gates, const T* c, int64_t B, int64_t U, cudaStream_t stream);

// dgates (B, 4U), dc (B, U) from dh, dc_next (B, U) and the forward pass's inputs
template <typename T>
void launch_lstm_gates_bwd(
    T* dgates, T* dc, const T* dh, const T* dc_next, const T* gates, const T* c, int64_t B, int64_t U,
    cudaStream_t stream);

}  // namespace fastdraw
