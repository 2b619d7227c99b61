// What both passes of a persistent rollout are made of: a group's blocks, slices of weights in shared memory, and
// products of these with rows that the group has exchanged.
#pragma once

#include <algorithm>
#include <limits>

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
  Shared<float> bias[kSlices];  // 0 for rows that have none; nothing for a slice of such

  // pieces(slice, visit) visits the pieces of a slice.
  template <typename Pieces>
  FASTDRAW_HD Slices(Arena& arena, const Pieces& pieces) {
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) {
      const SliceShape shape = slice_shape([&](const auto& visit) { pieces(slice, visit); });
      of[slice] = {arena.take<P>(int64_t{shape.rows} * row_stride<P>(shape.inputs)), shape.rows, shape.inputs};
      bias[slice] = arena.take<float>(shape.biases ? shape.rows : 0);
    }
  }

  template <typename Pieces>
  FASTDRAW_DEVICE void load(const Block& block, const RolloutInputs& in, const Pieces& pieces) const {
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) {
      const Slice<P>& to = of[slice];
      const bool biases = slice_shape([&](const auto& visit) { pieces(slice, visit); }).biases;
      block.each(to.rows * to.stride(), [&](int i) { narrow(0.0f, to.data[i]); });
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
          narrow(weight[from], to.data[(row + r) * to.stride() + piece.input + k]);
        });
        if (biases) {
          block.each(piece.rows, [&](int r) {
            bias[slice][row + r] = piece.bias == kWeights ? 0.0f : in.weights[piece.bias][piece.row(r)];
          });
        }
        from_row = row + piece.rows;
      });
    }
  }
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

// What a block of either pass knows of its samples. Memory is what it holds, and lies in shared memory itself, at its
// beginning: registers are scarce.
template <typename Memory>
class Member {
 protected:
  const RolloutInputs& in_;
  const Sizes& at_;
  const Plan& plan_;
  const Block block_{};
  const Group group_;
  const Memory& memory_;
  const int n_, ld_;  // samples, and from row to row of what products make

  FASTDRAW_DEVICE Member(const RolloutInputs& in, const Plan& plan)
      : in_(in),
        at_(in.at),
        plan_(plan),
        group_(block_, plan, at_.B),
        memory_(lay_out()),
        n_(group_.samples.size()),
        ld_(padded_samples(n_)) {}

  FASTDRAW_DEVICE const Memory& lay_out() const {
    Arena arena = block_.shared();
    Memory* const memory = arena.take<Memory>(1);
    block_.each(1, [&](int) { *memory = Memory(arena, in_, plan_, group_.k); });
    return *memory;
  }

  FASTDRAW_DEVICE Arena scratch() const { return block_.shared(memory_.used); }
  FASTDRAW_DEVICE int64_t sample_of(int s) const { return group_.samples.begin + s; }
  FASTDRAW_DEVICE int64_t kept_row(int t, int s) const { return t * at_.B + sample_of(s); }
  FASTDRAW_DEVICE int pixels() const { return static_cast<int>(at_.pixels()); }

  // How many steps a sample takes, and how many the group.
  FASTDRAW_DEVICE int taken(int s) const { return in_.steps.of(sample_of(s), static_cast<int>(at_.T)); }
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

// As many groups as fit: the fewer samples a group has, the fewer blocks wait for each other, and the less is
// exchanged. There are no more groups than eights of samples, because tensor cores take 8 at a time. Scratch memory is
// large if that fits. of_a_sample: the bytes of it that a sample takes.
template <typename P, typename Memory>
Plan make_plan(
    const RolloutInputs& in, bool backward, int multiprocessors, int64_t shared,
    int64_t (*of_a_sample)(const Sizes&, const Plan&)) {
  constexpr int64_t kMost = 128 << 10, kLeast = 8 << 10;
  const Sizes& at = in.at;
  Plan least{};
  least.shared = std::numeric_limits<int64_t>::max();
  for (int groups = static_cast<int>(std::min<int64_t>(multiprocessors, divide_up(at.B, 8))); groups > 0; --groups) {
    for (int64_t scratch = kMost; scratch >= kLeast; scratch /= 2) {
      Plan plan = complete_plan<P>(at, in.options, backward, groups, multiprocessors / groups, scratch, 0);
      for (int k = 0; k < plan.blocks; ++k) {
        Arena arena;
        arena.take<Memory>(1);
        plan.shared = std::max(plan.shared, static_cast<int64_t>(Memory(arena, in, plan, k).used));
      }
      plan.shared += std::max(Staging<P>::bytes(plan.samples, plan.chunk), of_a_sample(at, plan));
      if (plan.shared <= shared) return plan;
      least.shared = std::min(least.shared, plan.shared);
    }
  }
  return least;
}

}  // namespace fastdraw
