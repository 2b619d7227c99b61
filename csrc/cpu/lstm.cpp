// c' = sigmoid(f) c + sigmoid(i) tanh(g),   h' = sigmoid(o) tanh(c');   gates (B, 4U) are i, f, g, o side by side.
//
// A thread takes a run of the B U cells, in pieces of one row that fit the L1 cache. Forward reads 5 B U and writes
// 2 B U elements, backward 7 B U and 5 B U; the backward pass computes the gates again. No sums: deterministic.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>

#include "cpu/lstm.h"
#include "cpu/simd.h"
#include "cpu/tensor.h"

namespace fastdraw {
namespace {

constexpr int64_t kPiece = 256;  // cells; seven arrays of float are 7 KiB of the L1 cache

// A piece of one row in scratch memory; every result takes the place of an argument.
template <typename A>
struct Piece {
  alignas(64) A gate[4][kPiece];  // i, f, g, o before their nonlinearities; backward: then their gradients
  alignas(64) A cell[kPiece];     // c; forward: then c'
  alignas(64) A hidden[kPiece];   // forward: h'; backward: dh
  alignas(64) A dcell[kPiece];    // backward: dc', then dc
};

template <typename A>
inline void forward(Piece<A>& at, int64_t size) {
#pragma omp simd
  for (int64_t u = 0; u < size; ++u) {
    const A i = sigmoid(at.gate[0][u]).value, f = sigmoid(at.gate[1][u]).value, o = sigmoid(at.gate[3][u]).value;
    at.cell[u] = f * at.cell[u] + i * tanh(at.gate[2][u]).value;
    at.hidden[u] = o * tanh(at.cell[u]).value;
  }
}

template <typename A>
inline void backward(Piece<A>& at, int64_t size) {
#pragma omp simd
  for (int64_t u = 0; u < size; ++u) {
    const Sigmoid<A> i = sigmoid(at.gate[0][u]), f = sigmoid(at.gate[1][u]), o = sigmoid(at.gate[3][u]);
    const Tanh<A> g = tanh(at.gate[2][u]), out = tanh(f.value * at.cell[u] + i.value * g.value);
    const A dcell = at.dcell[u] + at.hidden[u] * o.value * out.slope;
    at.gate[0][u] = dcell * g.value * i.slope;
    at.gate[1][u] = dcell * at.cell[u] * f.slope;
    at.gate[2][u] = dcell * i.value * g.slope;
    at.gate[3][u] = at.hidden[u] * out.value * o.slope;
    at.dcell[u] = dcell * f.value;
  }
}

FASTDRAW_CLONES void run_forward(Piece<float>& at, int64_t size) { forward(at, size); }
FASTDRAW_CLONES void run_forward(Piece<double>& at, int64_t size) { forward(at, size); }
FASTDRAW_CLONES void run_backward(Piece<float>& at, int64_t size) { backward(at, size); }
FASTDRAW_CLONES void run_backward(Piece<double>& at, int64_t size) { backward(at, size); }

template <typename A>
inline void step_row(int64_t U, A* __restrict gates, const A* __restrict c, A* __restrict c_next, A* __restrict h) {
#pragma omp simd
  for (int64_t u = 0; u < U; ++u) {
    const A i = sigmoid(gates[u]).value, f = sigmoid(gates[U + u]).value;
    const A g = tanh(gates[2 * U + u]).value, o = sigmoid(gates[3 * U + u]).value;
    gates[u] = i, gates[U + u] = f, gates[2 * U + u] = g, gates[3 * U + u] = o;
    c_next[u] = f * c[u] + i * g;
    h[u] = o * tanh(c_next[u]).value;
  }
}

// Slopes are made of what is kept, i (1 - i) and not e / (1 + e)^2, as in plain PyTorch: the gates themselves are gone.
template <typename A>
inline void step_row_bwd(
    int64_t U, const A* __restrict gates, const A* __restrict c, const A* __restrict c_next, const A* __restrict dh,
    A* __restrict dc, A* __restrict dgates) {
#pragma omp simd
  for (int64_t u = 0; u < U; ++u) {
    const A i = gates[u], f = gates[U + u], g = gates[2 * U + u], o = gates[3 * U + u];
    const Tanh<A> out = tanh(c_next[u]);
    const A dcell = dc[u] + dh[u] * o * out.slope;
    dgates[u] = dcell * g * i * (1 - i);
    dgates[U + u] = dcell * c[u] * f * (1 - f);
    dgates[2 * U + u] = dcell * i * (1 - g * g);
    dgates[3 * U + u] = dh[u] * out.value * o * (1 - o);
    dc[u] = dcell * f;
  }
}

// Call body(cell, size) on pieces of rows that together are the cells begin..end.
template <typename Body>
void for_pieces(int64_t begin, int64_t end, int64_t U, const Body& body) {
  while (begin < end) {
    const CellIndex cell = split_cell(begin, U);
    const int64_t size = std::min({kPiece, U - cell.u, end - begin});
    body(cell, size);
    begin += size;
  }
}

template <typename A>
struct LstmForward {
  int64_t U;
  Input<2> gates, c;
  Output h, c_next;

  void operator()(int64_t begin, int64_t end) const {
    Piece<A> at;
    for_pieces(begin, end, U, [&](CellIndex cell, int64_t size) {
      for (int k = 0; k < 4; ++k) gates.load(at.gate[k], kPiece, 1, size, cell.b, k * U + cell.u);
      c.load(at.cell, kPiece, 1, size, cell.b, cell.u);
      run_forward(at, size);
      h.store(at.hidden, kPiece, 1, size, join_cell(cell, U));
      c_next.store(at.cell, kPiece, 1, size, join_cell(cell, U));
    });
  }
};

template <typename A>
struct LstmBackward {
  int64_t U;
  Input<2> dh, dc_next, gates, c;
  Output dgates, dc;

  void operator()(int64_t begin, int64_t end) const {
    Piece<A> at;
    for_pieces(begin, end, U, [&](CellIndex cell, int64_t size) {
      for (int k = 0; k < 4; ++k) gates.load(at.gate[k], kPiece, 1, size, cell.b, k * U + cell.u);
      c.load(at.cell, kPiece, 1, size, cell.b, cell.u);
      dh.load(at.hidden, kPiece, 1, size, cell.b, cell.u);
      dc_next.load(at.dcell, kPiece, 1, size, cell.b, cell.u);
      run_backward(at, size);
      for (int k = 0; k < 4; ++k) dgates.store(at.gate[k], kPiece, 1, size, gate_offset(cell, k, U));
      dc.store(at.dcell, kPiece, 1, size, join_cell(cell, U));
    });
  }
};

std::tuple<Tensor, Tensor> lstm_gates(const Tensor& gates, const Tensor& c) {
  const char* op = "lstm_gates";
  check_dim(op, "c", c, 2);
  const int64_t B = c.size(0), U = c.size(1);
  const ScalarType dtype = c.scalar_type();
  check_tensor(op, "gates", gates, dtype, {B, 4 * U});
  const Tensor h = new_empty(c, {B, U}), c_next = new_empty(c, {B, U});
  with_compute_type(op, dtype, [&](auto compute) {
    run_parallel(LstmForward<decltype(compute)>{U, gates, c, h, c_next}, B * U, 40);
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
  with_compute_type(op, dtype, [&](auto compute) {
    run_parallel(LstmBackward<decltype(compute)>{U, dh, dc_next, gates, c, dgates, dc}, B * U, 60);
  });
  return {dgates, dc};
}

}  // namespace

FASTDRAW_CLONES void lstm_row(int64_t U, float* gates, const float* c, float* c_next, float* h) {
  step_row(U, gates, c, c_next, h);
}
FASTDRAW_CLONES void lstm_row(int64_t U, double* gates, const double* c, double* c_next, double* h) {
  step_row(U, gates, c, c_next, h);
}

FASTDRAW_CLONES void lstm_row_bwd(
    int64_t U, const float* gates, const float* c, const float* c_next, const float* dh, float* dc, float* dgates) {
  step_row_bwd(U, gates, c, c_next, dh, dc, dgates);
}
FASTDRAW_CLONES void lstm_row_bwd(
    int64_t U, const double* gates, const double* c, const double* c_next, const double* dh, double* dc,
    double* dgates) {
  step_row_bwd(U, gates, c, c_next, dh, dc, dgates);
}

STABLE_TORCH_LIBRARY_IMPL(fastdraw, CPU, m) {
  m.impl("lstm_gates", TORCH_BOX(&lstm_gates));
  m.impl("lstm_gates_bwd", TORCH_BOX(&lstm_gates_bwd));
}

}  // namespace fastdraw
