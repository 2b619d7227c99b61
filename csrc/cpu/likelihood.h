// The Bernoulli negative log-likelihood of one row of logits x and targets y, and its gradients.
//
//   nll = sum max(x, 0) - x y + log(1 + e^-|x|),   dx = sigmoid(x) - y,   dy = -x
#pragma once

#include <cstdint>

namespace fastdraw {

float bernoulli_nll_row(int64_t size, const float* logits, const float* target);
double bernoulli_nll_row(int64_t size, const double* logits, const double* target);

// The gradients of dnll * nll are written; dtarget may be null.
void bernoulli_nll_row_bwd(
    int64_t size, float dnll, const float* logits, const float* target, float* dlogits, float* dtarget);
void bernoulli_nll_row_bwd(
    int64_t size, double dnll, const double* logits, const double* target, double* dlogits, double* dtarget);

}  // namespace fastdraw
