#pragma once

// The pointwise half of an LSTM cell on CUDA; equations in lstm.cu.
// Instantiated for float, double, __nv_bfloat16 and __half. Arrays are contiguous and on the current device;
// outputs overlap with no input.

#include <cuda_runtime_api.h>

#include <cstdint>

namespace fastdraw {

// h, c_next (B, U) from gates (B, 4U), c (B, U)
template <typename T>
void launch_lstm_gates_fwd(T* h, T* c_next, const T* gates, const T* c, int64_t B, int64_t U, cudaStream_t stream);

// dgates (B, 4U), dc (B, U) from dh, dc_next (B, U) and the forward pass's inputs
template <typename T>
void launch_lstm_gates_bwd(
    T* dgates, T* dc, const T* dh, const T* dc_next, const T* gates, const T* c, int64_t B, int64_t U,
    cudaStream_t stream);

}  // namespace fastdraw
