// Additive attention of one sample, and its gradients. Arrays are contiguous and lie anywhere; 1 <= length.
//
//   e_l = v . tanh(query + keys[l]),  weights = softmax(e),  context = sum_l weights[l] values[l]
//
// Backward, with dw_l = dweights[l] + dcontext . values[l]:
//
//   de_l = weights[l] (dw_l - sum_m weights[m] dw_m),   dvalues[l] = weights[l] dcontext
//   dkeys[l] = de_l v (1 - tanh^2),   dquery = sum_l dkeys[l],   dv = sum_l de_l tanh
#pragma once

#include <cstdint>

namespace fastdraw {

// keys (length, A), values (length, D), v (A), weights (length), context (D).
void attend(
    int64_t length, int64_t A, int64_t D, const float* query, const float* keys, const float* values, const float* v,
    float* weights, float* context);
void attend(
    int64_t length, int64_t A, int64_t D, const double* query, const double* keys, const double* values,
    const double* v, double* weights, double* context);

// weights are those of attend; dweights is null where no gradient flows into them. dquery is written, while dkeys,
// dvalues and dv are added to. scratch (length).
void attend_bwd(
    int64_t length, int64_t A, int64_t D, const float* dcontext, const float* dweights, const float* query,
    const float* keys, const float* values, const float* v, const float* weights, float* dquery, float* dkeys,
    float* dvalues, float* dv, float* scratch);
void attend_bwd(
    int64_t length, int64_t A, int64_t D, const double* dcontext, const double* dweights, const double* query,
    const double* keys, const double* values, const double* v, const double* weights, double* dquery, double* dkeys,
    double* dvalues, double* dv, double* scratch);

}  // namespace fastdraw
