// What both passes of a persistent rollout are made of: a group's blocks, slices of weights in shared memory, and
// products of these with rows that the group has exchanged.
#pragma once

#include "cuda/attention.h"
#include "cuda/exchange.h"
#include "cuda/glimpse.h"
#include "cuda/rollout.h"
#include "cuda/slice_product.h"

namespace fastdraw {

constexpr int kRolloutThreads = 256;

// The block's place: it is block k of its group, which takes these samples.
struct Group {
  int index, k, blocks;
  Range samples;
  FASTDRAW_DEVICE Group(const Block& block, const Plan& plan, int64_t B)
      : index(static_cast<int>(block.index() / plan.blocks)),
        k(static_cast<int>(block.index() % plan.blocks)),
        blocks(plan.blocks),
        samples(share(B, plan.groups, index)) {}
};

template <typename P, int kSlices>
struct Slices {
  Slice<P> of[kSlices];
  float* bias[kSlices];  // 0 for rows that have none; null for a slice of such

  // pieces(slice, visit) visits the pieces of a slice.
  template <typename Pieces>
  FASTDRAW_HD Slices(Arena& arena, const Pieces& pieces) {
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) {
      const SliceShape shape = slice_shape([&](const auto& visit) { pieces(slice, visit); });
      const int stride = row_stride<P>(shape.inputs);
      of[slice] = {arena.take<P>(int64_t{shape.rows} * stride), shape.rows, shape.inputs, stride};
      bias[slice] = shape.biases ? arena.take<float>(shape.rows) : nullptr;
    }
  }

  template <typename Pieces>
  FASTDRAW_DEVICE void load(const Block& block, const RolloutInputs& in, const Pieces& pieces) const {
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) {
      const Slice<P>& to = of[slice];
      block.each(to.rows * to.stride, [&](int i) { narrow(0.0f, to.data[i]); });
      int from_row = 0;
      pieces(slice, [&](const Piece& piece) {
        const int row = piece.input > 0 ? 0 : from_row;
        const float* const weight = in.weights[piece.weight];
        const int64_t columns = weight_columns(piece.weight, in.at);
        block.each(piece.rows * piece.inputs, [&](int i) {
          // Neighbouring threads read neighbouring columns of the weight.
          const int r = piece.transposed ? i % piece.rows : i / piece.inputs;
          const int k = piece.transposed ? i / piece.rows : i % piece.inputs;
          const int64_t from =
              piece.transposed ? k * columns + piece.column + r : piece.row(r) * columns + piece.column + k;
          narrow(weight[from], to.data[(row + r) * to.stride + piece.input + k]);
        });
        if (bias[slice] != nullptr) {
          block.each(piece.rows, [&](int r) {
            bias[slice][row + r] = piece.bias == kWeights ? 0.0f : in.weights[piece.bias][piece.row(r)];
          });
        }
        from_row = row + piece.rows;
      });
    }
  }

  FASTDRAW_HD Range rows(int slice) const { return {0, of[slice].rows}; }
};

// to (rows, samples rounded up to 8) (+)= rows of a slice times the `samples` rows at `from`, which lie `apart` apart.
template <typename P>
FASTDRAW_DEVICE void product(
    const Block& block, const Slice<P>& slice, Range rows, const P* from, int64_t apart, int samples,
    const Staging<P>& staging, float* to, bool add) {
  const int all = padded_samples(samples);
  if (rows.size() == 0) return;
  for (int first = 0; first < slice.inputs; first += staging.chunk) {
    const int left = slice.inputs - first, inputs = left < staging.chunk ? left : staging.chunk;
    stage(block, from, apart, samples, first, inputs, staging.data, staging.stride);
    multiply(block, slice, rows, first, padded(inputs), staging.data, staging.stride, all, to, add || first > 0);
  }
}

// What a block of either pass knows of its samples.
class Member {
 protected:
  const RolloutInputs& in_;
  const Sizes& at_;
  const Plan& plan_;
  const Block block_{};
  const Group group_;
  const Owned own_;
  const int n_, ld_;  // samples, and from row to row of what products make

  FASTDRAW_DEVICE Member(const RolloutInputs& in, const Plan& plan)
      : in_(in),
        at_(in.at),
        plan_(plan),
        group_(block_, plan, at_.B),
        own_(at_, group_.blocks, group_.k),
        n_(group_.samples.size()),
        ld_(padded_samples(n_)) {}

  FASTDRAW_DEVICE int64_t sample_of(int s) const { return group_.samples.begin + s; }
  FASTDRAW_DEVICE int64_t kept_row(int t, int s) const { return t * at_.B + sample_of(s); }
  FASTDRAW_DEVICE int pixels() const { return static_cast<int>(at_.pixels()); }

  // How many steps a sample takes, and how many the group.
  FASTDRAW_DEVICE int taken(int s) const {
    return static_cast<int>(in_.steps == nullptr ? at_.T : in_.steps[sample_of(s)]);
  }
  FASTDRAW_DEVICE int steps() const {
    int most = 0;
    for (int s = 0; s < n_; ++s) most = taken(s) > most ? taken(s) : most;
    return most;
  }

  // body(i, s) for i = 0..count-1 of every sample.
  template <typename Body>
  FASTDRAW_DEVICE void each(int count, const Body& body) const {
    block_.each(count * n_, [&](int j) { body(j % count, j / count); });
  }

  // body(s, place) for the samples whose canvases lie in this block, one after the other.
  template <typename Body>
  FASTDRAW_DEVICE void each_own_sample(const Body& body) const {
    for (int s = group_.k, place = 0; s < n_; s += group_.blocks, ++place) body(s, place);
  }

  FASTDRAW_DEVICE void copy(const float* from, float* to, int count) const {
    block_.each(count, [&](int i) { to[i] = from[i]; });
  }
};

}  // namespace fastdraw
