// c' = sigmoid(f) c + sigmoid(i) tanh(g),   h' = sigmoid(o) tanh(c');   gates (B, 4U) are i, f, g, o side by side.
//
// A thread takes a run of the B U cells, in pieces of one row that fit the L1 cache. Forward reads 5 B U and writes
// 2 B U elements, backward 7 B U and 5 B U; the backward pass computes the gates again. No sums: deterministic.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cpu/tensor.h"

namespace fastdraw {
namespace {

constexpr int64_t kPiece = 256;  // cells; ten arrays of float are 10 KiB of the L1 cache

// Call piece(cell, size) on pieces of rows that together are the cells begin..end.
template <typename Piece>
inline void for_pieces(int64_t begin, int64_t end, int64_t U, const Piece& piece) {
  while (begin < end) {
    const CellIndex cell = split_cell(begin, U);
    const int64_t size = std::min({kPiece, U - cell.u, end - begin});
    piece(cell, size);
    begin += size;
  }
}

template <typename T>
struct LstmForward {
  int64_t U;
  Strided<T, 2> gates, c;
  T *h, *c_next;

  void operator()(int64_t begin, int64_t end) const {
    using A = Compute<T>;
    for_pieces(begin, end, U, [this](CellIndex cell, int64_t size) {
      alignas(64) A gate[4][kPiece], state[kPiece], hidden[kPiece];
      for (int k = 0; k < 4; ++k) load_row(gates.at(cell.b, k * U + cell.u), gates.strides[1], size, gate[k]);
      load_row(c.at(cell.b, cell.u), c.strides[1], size, state);
#pragma omp simd
      for (int64_t u = 0; u < size; ++u) {
        state[u] = sigmoid(gate[1][u]).value * state[u] + sigmoid(gate[0][u]).value * tanh(gate[2][u]).value;
        hidden[u] = sigmoid(gate[3][u]).value * tanh(state[u]).value;
      }
      store_row(hidden, size, h + join_cell(cell, U));
      store_row(state, size, c_next + join_cell(cell, U));
    });
  }
};

template <typename T>
struct LstmBackward {
  int64_t U;
  Strided<T, 2> dh, dc_next, gates, c;
  T *dgates, *dc;

  void operator()(int64_t begin, int64_t end) const {
    using A = Compute<T>;
    for_pieces(begin, end, U, [this](CellIndex cell, int64_t size) {
      alignas(64) A gate[4][kPiece], state[kPiece], dhidden[kPiece], dstate[kPiece];
      for (int k = 0; k < 4; ++k) load_row(gates.at(cell.b, k * U + cell.u), gates.strides[1], size, gate[k]);
      load_row(c.at(cell.b, cell.u), c.strides[1], size, state);
      load_row(dh.at(cell.b, cell.u), dh.strides[1], size, dhidden);
      load_row(dc_next.at(cell.b, cell.u), dc_next.strides[1], size, dstate);
#pragma omp simd
      for (int64_t u = 0; u < size; ++u) {
        const Sigmoid<A> i = sigmoid(gate[0][u]), f = sigmoid(gate[1][u]), o = sigmoid(gate[3][u]);
        const Tanh<A> g = tanh(gate[2][u]), out = tanh(f.value * state[u] + i.value * g.value);
        const A dcell = dstate[u] + dhidden[u] * o.value * out.slope;
        gate[0][u] = dcell * g.value * i.slope;
        gate[1][u] = dcell * state[u] * f.slope;
        gate[2][u] = dcell * i.value * g.slope;
        gate[3][u] = dhidden[u] * out.value * o.slope;
        dstate[u] = dcell * f.value;
      }
      for (int k = 0; k < 4; ++k) store_row(gate[k], size, dgates + gate_offset(cell, k, U));
      store_row(dstate, size, dc + join_cell(cell, U));
    });
  }
};

FASTDRAW_RUN_RANGE(LstmForward)
FASTDRAW_RUN_RANGE(LstmBackward)

std::tuple<Tensor, Tensor> lstm_gates(const Tensor& gates, const Tensor& c) {
  const char* op = "lstm_gates";
  check_dim(op, "c", c, 2);
  const int64_t B = c.size(0), U = c.size(1);
  const ScalarType dtype = c.scalar_type();
  check_tensor(op, "gates", gates, dtype, {B, 4 * U});
  const Tensor h = new_empty(c, {B, U}), c_next = new_empty(c, {B, U});
  with_dtype(op, dtype, [&](auto element) {
    using T = decltype(element);
    run_parallel(LstmForward<T>{U, gates, c, output<T>(h), output<T>(c_next)}, B * U, 80);
  });
  return {h, c_next};
}

std::tuple<Tensor, Tensor> lstm_gates_bwd(
    const Tensor& dh, const Tensor& dc_next, const Tensor& gates, const Tensor& c) {
  const char* op = "lstm_gates_bwd";
  check_dim(op, "c", c, 2);
  const int64_t B = c.size(0), U = c.size(1);
  const ScalarType dtype = c.scalar_type();
  check_tensor(op, "gates", gates, dtype, {B, 4 * U});
  check_tensor(op, "dh", dh, dtype, {B, U});
  check_tensor(op, "dc_next", dc_next, dtype, {B, U});
  const Tensor dgates = new_empty(c, {B, 4 * U}), dc = new_empty(c, {B, U});
  with_dtype(op, dtype, [&](auto element) {
    using T = decltype(element);
    run_parallel(LstmBackward<T>{U, dh, dc_next, gates, c, output<T>(dgates), output<T>(dc)}, B * U, 100);
  });
  return {dgates, dc};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdraw, CPU, m) {
  m.impl("lstm_gates", TORCH_BOX(&lstm_gates));
  m.impl("lstm_gates_bwd", TORCH_BOX(&lstm_gates_bwd));
}

}  // namespace fastdraw
