// One row of the pointwise half of an LSTM step, as the rollouts call it: the gates are kept after their
// nonlinearities, so that the backward pass has them at hand.
#pragma once

#include <cstdint>

namespace fastdraw {

// gates (4U): i, f, g, o before their nonlinearities; then after them. c_next (U) and h (U) are written.
void lstm_row(int64_t U, float* gates, const float* c, float* c_next, float* h);
void lstm_row(int64_t U, double* gates, const double* c, double* c_next, double* h);

// gates: after their nonlinearities. dc (U): of c_next, then of c. dgates (4U) is written.
void lstm_row_bwd(
    int64_t U, const float* gates, const float* c, const float* c_next, const float* dh, float* dc, float* dgates);
void lstm_row_bwd(
    int64_t U, const double* gates, const double* c, const double* c_next, const double* dh, double* dc,
    double* dgates);

}  // namespace fastdraw
