// e_i = v . tanh(query + keys_i)      w = softmax of e over i < length      context = sum_i w_i values_i
//
// a_i = dweights_i + dcontext . values_i              s_i = w_i (a_i - sum_j w_j a_j), the gradient of e_i
// dkeys_i = s_i v (1 - tanh^2)      dquery = sum_i dkeys_i      dvalues_i = w_i dcontext      dv = sum_b,i s_i tanh
//
// v (G, A): B / G samples in a row share one, all of them (G = 1) unless vmap varies v.
//
// A block computes one sample. A warp scores some of the units of one item, of which each thread takes neighbours, and
// one warp makes weights of the scores; a thread computes a column of the context. Backward, a warp computes an item's
// row of dvalues, and a thread neighbouring units of all items. Accesses along the units are of 16 bytes, 8 in half
// precision; along the few columns they are of one element, neighbouring threads at neighbours. Scores and weights lie
// in shared memory, and in global memory where there are more than a few thousand items.
//
// Forward: reads B (A + L (A + D)) elements, writes B (D + L).
// Backward: reads the same, keys twice, and the gradients of the outputs, and writes a gradient of each input. Weights
// are computed again: nothing is saved between. dv comes in two stages, of which the second (sums.cu) adds up B rows of
// A numbers.
// Items beyond a length are not read.
// Every element is computed by one thread, and every sum has an order that the sizes of a sample alone decide, or for
// dv those of the batch: deterministic.

#include "cuda/attention.h"

#include "cuda/launch.h"
#include "cuda/sums.h"

namespace fastdraw {
namespace {

constexpr int kThreads = 256;  // a warp for every 128 units of 2 items of 512

// The scratch memory of this block.
template <typename T>
FASTDRAW_DEVICE Arena
scratch_of(const Block& block, const AttentionInputs<T>& inputs, const AttentionSizes& sizes, bool backward) {
  if (inputs.scratch == nullptr) return block.shared();
  return Arena(inputs.scratch + block.index() * sizes.scratch_of_block<T>(backward));
}

template <typename T>
FASTDRAW_KERNEL(kThreads)
attention_fwd_kernel(T* context, T* weights, AttentionInputs<T> from, AttentionSizes sizes) {
  const Block block;
  const auto [B, L, A, D, G] = sizes;
  const int64_t b = block.index();
  Arena arena = scratch_of(block, from, sizes, false);
  const BlockAttention<Compute<T>> attention(arena, L, A, D, false);
  attention.attend(
      block, from.query + b * A, from.keys + b * L * A, from.values + b * L * D, from.v + b / (B / G) * A,
      from.lengths.of(b, static_cast<int>(L)), context + b * D, weights + b * L);
}

template <typename T>
FASTDRAW_KERNEL(kThreads)
attention_bwd_kernel(
    AttentionGradients<T> to, const T* __restrict__ dcontext, const T* __restrict__ dweights, AttentionInputs<T> from,
    AttentionSizes sizes) {
  const Block block;
  const auto [B, L, A, D, G] = sizes;
  const int64_t b = block.index();
  Arena arena = scratch_of(block, from, sizes, true);
  const BlockAttention<Compute<T>> attention(arena, L, A, D, true);
  attention.attend_bwd(
      block, dcontext + b * D, dweights + b * L, from.query + b * A, from.keys + b * L * A, from.values + b * L * D,
      from.v + b / (B / G) * A, from.lengths.of(b, static_cast<int>(L)), to.dquery + b * A, to.dkeys + b * L * A,
      to.dvalues + b * L * D, to.dv_of_samples + b * A, false);
}

}  // namespace

template <typename T>
void launch_attention_fwd(
    T* context, T* weights, const AttentionInputs<T>& inputs, const AttentionSizes& sizes, cudaStream_t stream) {
  const int64_t shared = inputs.scratch == nullptr ? sizes.scratch_of_block<T>(false) : 0;
  launch(attention_fwd_kernel<T>, sizes.B, kThreads, shared, stream, context, weights, inputs, sizes);
}

template <typename T>
void launch_attention_bwd(
    const AttentionGradients<T>& gradients, const T* dcontext, const T* dweights, const AttentionInputs<T>& inputs,
    const AttentionSizes& sizes, cudaStream_t stream) {
  const int64_t shared = inputs.scratch == nullptr ? sizes.scratch_of_block<T>(true) : 0;
  launch(attention_bwd_kernel<T>, sizes.B, kThreads, shared, stream, gradients, dcontext, dweights, inputs, sizes);
  const int64_t samples_per_v = sizes.G > 0 ? sizes.B / sizes.G : 0;
  launch_sum_partials(gradients.dv, gradients.dv_of_samples, sizes.G, samples_per_v, sizes.A, stream);
}

#define INSTANTIATE(T)                                                                                           \
  template void launch_attention_fwd<T>(T*, T*, const AttentionInputs<T>&, const AttentionSizes&, cudaStream_t); \
  template void launch_attention_bwd<T>(                                                                         \
      const AttentionGradients<T>&, const T*, const T*, const AttentionInputs<T>&, const AttentionSizes&,        \
      cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(__nv_bfloat16)
INSTANTIATE(__half)
#undef INSTANTIATE

}  // namespace fastdraw
