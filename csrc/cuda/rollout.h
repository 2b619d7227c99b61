// The persistent rollout: all steps of a pass in one launch. The schedule stands on top of rollout.cu and
// rollout_bwd.cu, its reasons in docs/design/persistent-rollout.md.
//
// P is what products multiply in, __nv_bfloat16 or float; all else is float. Arrays are contiguous and on the current
// device. A row is that of a step and a sample: row (t, b) stands at (t * B + b) of arrays that keep all steps, and at
// (t % 2 * B + b) of arrays that hold those of two steps in turn.
#pragma once

#include "cuda/attention.h"
#include "cuda/rollout_plan.h"

namespace fastdraw {

// Groups' counters lie so far apart that they share no cache line: every block of a group polls one.
constexpr int kCounterStride = 32;

// What both passes read; null where the call has none.
struct RolloutInputs {
  Sizes at;
  Options options;
  const float* weights[kWeights];
  const float *noise, *image, *labels;  // (T, B, Z), (B, C, H, W), (B, L, D)
  const float* keys;                    // (B, L, A): labels times align_key
  Counts lengths, steps;                // (B,)
};

// What a step leaves for others, and for the backward pass. Widths: padded() of the operands of products, else as said.
template <typename P>
struct RolloutRecord {
  P *x, *zy;         // (rows, padded(glimpse)), (rows, padded(Z + D)): row t of step t
  P *h_enc, *h_dec;  // (rows, padded(U)): row t before step t, row t + 1 after it
  float* heads;      // (rows, heads): row t of h_dec in row t
  // Of all steps, for the backward pass, or null.
  float *gates_enc, *gates_dec;  // (T B, 4U), before their nonlinearities
  float *c_enc, *c_dec;          // (T B, U), after the step
  float *posterior, *prior;      // (T B, 2Z), as the KL takes them: mu and log sigma
  float* canvas;                 // (T B, C H W), after the step
};

template <typename P>
struct RolloutForward {
  RolloutInputs in;
  RolloutRecord<P> record;
  bool keep;                          // the rows of all steps, for the backward pass
  float *nll, *kl, *canvas, *frames;  // (B,), (T, B), (B, C, H, W); (T, B, C, H, W) or null
  float* kl_parts;                    // (T, B, blocks of a group)
  unsigned* counters;                 // (groups, kCounterStride), 0
  Plan plan;
};

template <typename P>
struct RolloutBackward {
  RolloutInputs in;
  RolloutRecord<P> record;  // of all steps
  // Gradients that come in: (B,), (T, B), (B, C, H, W) or null, (T, B, C, H, W) or null.
  const float *dnll, *dkl, *dcanvas, *dframes;
  // What the blocks exchange, and what the gradients of the weights are made of afterwards: gradients of what the
  // products made, in rows t * B + b of padded() columns. dheads: row t as in RolloutRecord::heads.
  P *dheads, *dgates_enc, *dgates_dec, *dposterior, *dprior;
  float *dx, *dy;  // (B, glimpse), (B, D): of the step that is being taken
  // Results: (B, C, H, W); (B, C, H, W) or null, (T, B, Z) or null. Added to: (B, L, A), (B, L, D), (B, A).
  float *dcanvas0, *dimage, *dnoise, *dkeys, *dvalues, *dalign_v;
  unsigned* counters;  // (groups, kCounterStride), 0
  Plan plan;
};

// The plan of a pass for a device with so many multiprocessors, each of which grants a block `shared` bytes.
template <typename P>
Plan plan_forward(const RolloutInputs& in, int multiprocessors, int64_t shared);

template <typename P>
Plan plan_backward(const RolloutInputs& in, int multiprocessors, int64_t shared);

template <typename P>
void launch_forward(const RolloutForward<P>& call, cudaStream_t stream);

template <typename P>
void launch_backward(const RolloutBackward<P>& call, cudaStream_t stream);

}  // namespace fastdraw
