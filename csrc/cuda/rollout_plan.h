// Who does what in a persistent rollout: which block of a group owns which slice of every weight, what lies where in
// its shared memory, and how many blocks a call takes. The kernels, the host that launches them and the emulation share
// it. docs/design/persistent-rollout.md has the reasons.
//
// Samples are parted among groups of blocks. Within a group every block takes all samples of the group through its
// slice of the outputs of every product: its units of both LSTMs with their four gates, its latents with both halves of
// prior and posterior, its columns of the heads (query, read window, patch, write window). What one sample has alone,
// its canvas and its glimpses, belongs to one block.
#pragma once

#include <algorithm>

#include "cuda/glimpse.h"
#include "rollout_sizes.h"
#include "weights.h"

namespace fastdraw {

struct Range {
  int begin, end;
  FASTDRAW_HD constexpr int size() const { return end - begin; }
};

// The k-th of `parts` shares of 0..total, which differ by one at most.
FASTDRAW_HD constexpr Range share(int64_t total, int64_t parts, int64_t k) {
  return {static_cast<int>(total * k / parts), static_cast<int>(total * (k + 1) / parts)};
}
static_assert(share(400, 33, 0).begin == 0 && share(400, 33, 32).end == 400 && share(400, 33, 5).size() == 12);
static_assert(share(3, 5, 0).size() == 0 && share(3, 5, 4).size() == 1);

// Columns of the heads, which h_dec makes for the blocks that own the samples. Row t of them holds query and read
// window of step t, and patch and write window of step t - 1: all of the same h_dec.
struct Heads {
  int query, read_window, patch, write_window, columns;
  FASTDRAW_HD explicit Heads(const Sizes& at)
      : query(0),
        read_window(static_cast<int>(at.A)),
        patch(read_window + static_cast<int>(at.read_window())),
        write_window(patch + static_cast<int>(at.patch())),
        columns(write_window + static_cast<int>(at.write_window())) {}
};

// A product's operands start at whole vectors of 16 bytes, and its tensor-core tiles take 16 inputs at a time.
FASTDRAW_HD constexpr int padded(int64_t inputs) { return static_cast<int>(round_up(inputs, 16)); }
FASTDRAW_HD constexpr int padded_samples(int64_t samples) { return static_cast<int>(round_up(samples, 8)); }

// From row to row in shared memory: an odd number of 16-byte vectors, so that the same column of 8 rows lies in 8
// different places of the 128 bytes that are read at once.
template <typename P>
FASTDRAW_HD constexpr int row_stride(int inputs) {
  constexpr int kVector = 16 / sizeof(P);
  return (padded(inputs) / kVector | 1) * kVector;
}
static_assert(row_stride<float>(400) == 404 && row_stride<float>(16) == 20 && row_stride<int16_t>(400) == 408);

// Rows of one weight within a slice: element (r, input + i) is W[row(r)][column + i], or, transposed,
// W[i][column + r].
struct Piece {
  Weight weight;
  int rows, inputs;
  int column = 0, input = 0;
  bool transposed = false;
  // Row r: part r % parts of unit first + r / parts, and parts lie `apart` rows apart.
  int parts = 1, first = 0, apart = 0;
  Weight bias = kWeights;  // none
  FASTDRAW_HD int row(int r) const { return r % parts * apart + first + r / parts; }
};

// The matrices of one block. Each is one product; its rows are multiplied in one or two runs.
enum ForwardSlice { kHeadsSlice, kFromDecSlice, kGlimpseSlice, kFromEncSlice, kZySlice, kForwardSlices };
enum BackwardSlice {
  kHeadsBack,      // gradients of the heads -> of h_dec
  kDecBack,        // of the decoder's gates -> of h_dec
  kPriorBack,      // of the prior -> of h_dec
  kZyBack,         // of the decoder's gates -> of z and y
  kPosteriorBack,  // of the posterior -> of h_enc
  kGlimpseBack,    // of the encoder's gates -> of the glimpse
  kEncBack,        // of the encoder's gates -> of h_dec, then of h_enc
  kBackwardSlices
};

// What block `k` of `blocks` owns.
struct Owned {
  Range units, latents, heads, labels, glimpse;
  FASTDRAW_HD Owned(const Sizes& at, int blocks, int k)
      : units(share(at.U, blocks, k)),
        latents(share(at.Z, blocks, k)),
        heads(share(Heads(at).columns, blocks, k)),
        labels(share(at.D, blocks, k)),
        glimpse(share(at.glimpse(), blocks, k)) {}
};

// Calls visit(piece) for the pieces of a slice, from its first row on.
template <typename Visit>
FASTDRAW_HD void forward_pieces(int slice, const Sizes& at, const Owned& own, const Visit& visit) {
  const int U = static_cast<int>(at.U), Z = static_cast<int>(at.Z), glimpse = static_cast<int>(at.glimpse());
  const auto gates = [&](Weight weight, int inputs, int column, Weight bias) {
    visit(Piece{weight, 4 * own.units.size(), inputs, column, 0, false, 4, own.units.begin, U, bias});
  };
  const auto latents = [&](Weight weight, Weight bias) {
    visit(Piece{weight, 2 * own.latents.size(), U, 0, 0, false, 2, own.latents.begin, Z, bias});
  };
  // The part of the heads from `first` to `end` that is this block's.
  const auto head = [&](Weight weight, int first, int end, Weight bias) {
    const int from = first > own.heads.begin ? first : own.heads.begin;
    const int to = end < own.heads.end ? end : own.heads.end;
    if (from < to) visit(Piece{weight, to - from, U, 0, 0, false, 1, from - first, 0, bias});
  };
  const Heads heads(at);
  switch (slice) {
    case kHeadsSlice:
      head(kAlignQuery, heads.query, heads.read_window, kAlignBias);
      head(kReadWindow, heads.read_window, heads.patch, kReadWindowBias);
      head(kPatch, heads.patch, heads.write_window, kPatchBias);
      head(kWriteWindow, heads.write_window, heads.columns, kWriteWindowBias);
      break;
    case kFromDecSlice:
      latents(kPrior, kPriorBias);
      gates(kDecHh, U, 0, kDecBias);
      if (at.encoder) gates(kEncIh, U, glimpse, kEncBias);
      break;
    case kGlimpseSlice:
      if (at.encoder) gates(kEncIh, glimpse, 0, kWeights);
      break;
    case kFromEncSlice:
      if (at.encoder) {
        latents(kPosterior, kPosteriorBias);
        gates(kEncHh, U, 0, kWeights);
      }
      break;
    case kZySlice: gates(kDecIh, static_cast<int>(at.Z + at.D), 0, kWeights); break;
  }
}

template <typename Visit>
FASTDRAW_HD void backward_pieces(int slice, const Sizes& at, const Owned& own, const Visit& visit) {
  const int U = static_cast<int>(at.U), Z = static_cast<int>(at.Z), glimpse = static_cast<int>(at.glimpse());
  const auto columns = [&](Weight weight, Range rows, int column, int inputs, int input = 0) {
    if (rows.size() > 0 && inputs > 0) visit(Piece{weight, rows.size(), inputs, column + rows.begin, input, true});
  };
  const Heads heads(at);
  switch (slice) {
    // These stand side by side, all on the same rows.
    case kHeadsBack:
      columns(kAlignQuery, own.units, 0, heads.read_window - heads.query, heads.query);
      columns(kReadWindow, own.units, 0, heads.patch - heads.read_window, heads.read_window);
      columns(kPatch, own.units, 0, heads.write_window - heads.patch, heads.patch);
      columns(kWriteWindow, own.units, 0, heads.columns - heads.write_window, heads.write_window);
      break;
    case kDecBack: columns(kDecHh, own.units, 0, 4 * U); break;
    case kPriorBack: columns(kPrior, own.units, 0, 2 * Z); break;
    case kZyBack:
      columns(kDecIh, own.latents, 0, 4 * U);
      columns(kDecIh, own.labels, Z, 4 * U);
      break;
    case kPosteriorBack:
      if (at.encoder) columns(kPosterior, own.units, 0, 2 * Z);
      break;
    case kGlimpseBack:
      if (at.encoder) columns(kEncIh, own.glimpse, 0, 4 * U);
      break;
    case kEncBack:
      if (at.encoder) {
        columns(kEncIh, own.units, glimpse, 4 * U);
        columns(kEncHh, own.units, 0, 4 * U);
      }
      break;
  }
}

// A slice in shared memory.
template <typename P>
struct Slice {
  Shared<P> data;
  int rows, inputs;
  FASTDRAW_HD int stride() const { return row_stride<P>(inputs); }
};

struct SliceShape {
  int rows, inputs;
  bool biases;
};

// Pieces stand below one another, or side by side on the same rows (kHeadsBack).
template <typename Pieces>
FASTDRAW_HD SliceShape slice_shape(const Pieces& pieces) {
  SliceShape shape{0, 0, false};
  pieces([&](const Piece& piece) {
    shape.rows = piece.input > 0 ? shape.rows : shape.rows + piece.rows;
    shape.inputs = piece.input + piece.inputs > shape.inputs ? piece.input + piece.inputs : shape.inputs;
    shape.biases = shape.biases || piece.bias != kWeights;
  });
  return shape;
}

// Columns of a weight (rows, columns).
FASTDRAW_HD constexpr int64_t weight_columns(Weight weight, const Sizes& at) {
  return weight == kEncIh ? at.glimpse() + at.U : weight == kDecIh ? at.Z + at.D : at.U;
}

// Where the inputs of products are put, a chunk of them at a time.
template <typename P>
struct Staging {
  P* data;
  int chunk, stride;

  FASTDRAW_HD Staging(Arena arena, int chunk) : data(arena.take<P>(0)), chunk(chunk), stride(row_stride<P>(chunk)) {}
  static int64_t bytes(int samples, int chunk) {
    return int64_t{padded_samples(samples)} * row_stride<P>(chunk) * static_cast<int64_t>(sizeof(P));
  }
};

// What a launch takes: groups * blocks blocks, all resident at once, one on a multiprocessor.
struct Plan {
  int groups, blocks;  // blocks of one group; 0: there is none that fits
  int64_t scratch;     // bytes that the inputs of a product, or the glimpses of a sample, may take if they can do so
  int64_t shared;      // bytes of a block; of the smallest that was tried, where none fits
  // What follows from these.
  int samples;  // of the largest group
  int chunk;    // inputs of a product that are staged at a time
  GlimpsePlan reader, writer;
};

template <typename P>
Plan complete_plan(
    const Sizes& at, const Options& options, bool backward, int groups, int blocks, int64_t scratch, int64_t shared) {
  Plan plan{groups, blocks, scratch, shared, static_cast<int>(divide_up(at.B, groups)), 0, {}, {}};
  const int64_t forward = std::max({at.U, at.glimpse(), at.Z + at.D});
  const int64_t widest = backward ? std::max<int64_t>({4 * at.U, 2 * at.Z, Heads(at).columns}) : forward;
  for (plan.chunk = padded(widest); plan.chunk > 64 && Staging<P>::bytes(plan.samples, plan.chunk) > scratch;) {
    plan.chunk = padded(plan.chunk / 2);
  }
  const auto glimpses = [&](int64_t n, int parts) {
    const GlimpseShape shape{static_cast<int>(at.C), static_cast<int>(at.H), static_cast<int>(at.W),
                             static_cast<int>(n),    options.per_axis,       options.eps};
    return plan_glimpse<float>(shape, parts, backward, scratch);
  };
  if (at.n_read > 0) plan.reader = glimpses(at.n_read, 2);
  if (at.n_write > 0) plan.writer = glimpses(at.n_write, 1);
  return plan;
}

}  // namespace fastdraw
