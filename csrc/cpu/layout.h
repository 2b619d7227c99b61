// Where the numbers of a rollout lie: the columns of what a step makes, the weights side by side that make them, the
// rows that are kept, and which sample takes part in which step.
//
// Words: a sample's *place* is its position after sorting by steps, most first; those that take part in a step are
// always the first ones. Its *row* at step t is first(t) + place.
#pragma once

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "cpu/packed.h"
#include "cpu/rollout_arguments.h"

namespace fastdraw {

// First columns of the parts of a row; every part fills whole panels.
struct Columns {
  int64_t query, read_window, prior, enc, dec, from_dec;  // made from h_dec before a step; enc and dec are gates
  int64_t h_enc, x;                                       // the encoder's input: glimpse, then h_enc
  int64_t write_window, written;                          // made from h_dec after a step: patch, then window
};

template <typename A>
Columns columns_of(const Sizes& at) {
  Columns to{};
  to.read_window = padded<A>(at.A);
  to.prior = to.read_window + padded<A>(at.read_window());
  to.enc = to.prior + padded<A>(2 * at.Z);
  to.dec = to.enc + (at.encoder ? padded<A>(4 * at.U) : 0);
  to.from_dec = to.dec + padded<A>(4 * at.U);
  to.h_enc = padded<A>(at.glimpse());
  to.x = to.h_enc + padded<A>(at.U);
  to.write_window = padded<A>(at.patch());
  to.written = to.write_window + padded<A>(at.write_window());
  return to;
}

// Columns `from`..`from + inputs` of a weight (outputs, .): they make the columns from `column` on of a result out of
// those from `row` on of what is multiplied.
struct Block {
  Weight weight;
  int64_t from, inputs, outputs, row, column;
};

struct Bias {
  Weight weight;
  int64_t column, size;
};

// Weights side by side, which are one product.
struct Linear {
  int64_t inputs, outputs;
  std::vector<Block> blocks;
  std::vector<Bias> biases;
};

// All products of a step. Which weight stands where is said here and nowhere else.
struct Linears {
  Linear from_dec, enc, posterior, dec, written;
};

template <typename A>
Linears linears_of(const Sizes& at) {
  const Columns to = columns_of<A>(at);
  const int64_t U = at.U, gates = padded<A>(4 * U);
  Linears all{};
  all.from_dec = {
      U,
      to.from_dec,
      {{kPrior, 0, U, 2 * at.Z, 0, to.prior}, {kDecHh, 0, U, 4 * U, 0, to.dec}},
      {{kPriorBias, to.prior, 2 * at.Z}, {kDecBias, to.dec, 4 * U}}};
  if (at.L > 0) {
    all.from_dec.blocks.push_back({kAlignQuery, 0, U, at.A, 0, to.query});
    all.from_dec.biases.push_back({kAlignBias, to.query, at.A});
  }
  if (at.read_window() > 0) {
    all.from_dec.blocks.push_back({kReadWindow, 0, U, 5, 0, to.read_window});
    all.from_dec.biases.push_back({kReadWindowBias, to.read_window, 5});
  }
  if (at.encoder) {
    all.from_dec.blocks.push_back({kEncIh, at.glimpse(), U, 4 * U, 0, to.enc});
    all.from_dec.biases.push_back({kEncBias, to.enc, 4 * U});
    all.enc = {to.h_enc + U, gates, {{kEncIh, 0, at.glimpse(), 4 * U, 0, 0}, {kEncHh, 0, U, 4 * U, to.h_enc, 0}}, {}};
    all.posterior = {U, padded<A>(2 * at.Z), {{kPosterior, 0, U, 2 * at.Z, 0, 0}}, {{kPosteriorBias, 0, 2 * at.Z}}};
  }
  all.dec = {at.Z + at.D, gates, {{kDecIh, 0, at.Z + at.D, 4 * U, 0, 0}}, {}};
  all.written = {U, to.written, {{kPatch, 0, U, at.patch(), 0, 0}}, {{kPatchBias, 0, at.patch()}}};
  if (at.write_window() > 0) {
    all.written.blocks.push_back({kWriteWindow, 0, U, 5, 0, to.write_window});
    all.written.biases.push_back({kWriteWindowBias, to.write_window, 5});
  }
  return all;
}

// What lies between intervals (first, size) within 0..width.
using Intervals = std::vector<std::pair<int64_t, int64_t>>;

inline Intervals gaps(Intervals taken, int64_t width) {
  std::sort(taken.begin(), taken.end());
  Intervals between;
  int64_t at = 0;
  for (const auto& [first, size] : taken) {
    if (first > at) between.emplace_back(at, first - at);
    at = std::max(at, first + size);
  }
  if (width > at) between.emplace_back(at, width - at);
  return between;
}

inline Intervals input_gaps(const Linear& of) {
  Intervals taken;
  for (const Block& block : of.blocks) taken.emplace_back(block.row, block.inputs);
  return gaps(taken, of.inputs);
}

inline Intervals output_gaps(const Linear& of) {
  Intervals taken;
  for (const Block& block : of.blocks) taken.emplace_back(block.column, block.outputs);
  return gaps(taken, of.outputs);
}

// Rows of a matrix in memory of others.
template <typename A>
struct Rows {
  A* data = nullptr;
  int64_t ld = 0;
  A* row(int64_t i) const { return data + i * ld; }
  Rows from(int64_t column) const { return {data + column, ld}; }
};

// What a step leaves for the backward pass, a row of each for every sample and step:
//   from_dec  query | read window | prior | encoder's gates | decoder's gates, these after their nonlinearities
//   x         glimpse | h_enc before the step
//   posterior, zy (z | y), written (patch | window), and h, c and the canvas after the step
template <typename A>
struct Record {
  Rows<A> from_dec, zy, written, h_dec, c_dec, canvas, x, posterior, h_enc, c_enc;

  // Lays out `rows` rows at data, and returns how many elements they take.
  int64_t lay_out(A* data, int64_t rows, const Sizes& at) {
    const Columns to = columns_of<A>(at);
    int64_t used = 0;
    const auto put = [&](Rows<A>& part, int64_t width) {
      part = {data + used, padded<A>(width)};
      used += rows * part.ld;
    };
    put(from_dec, to.from_dec);
    put(zy, at.Z + at.D);
    put(written, to.written);
    put(h_dec, at.U);
    put(c_dec, at.U);
    put(canvas, at.pixels());
    if (at.encoder) {
      put(x, to.x);
      put(posterior, 2 * at.Z);
      put(h_enc, at.U);
      put(c_enc, at.U);
    }
    return used;
  }

  // What no step writes, so that all that is saved is the same from run to run.
  void zero_padding(int64_t row, const Sizes& at) const {
    const Columns to = columns_of<A>(at);
    const auto pad = [&](const Rows<A>& part, int64_t from, int64_t end) {
      std::fill(part.row(row) + from, part.row(row) + end, A{0});
    };
    pad(zy, at.Z + at.D, zy.ld);
    pad(canvas, at.pixels(), canvas.ld);
    for (const Rows<A>* part : {&h_dec, &c_dec}) pad(*part, at.U, part->ld);
    if (!at.encoder) return;
    for (const Rows<A>* part : {&h_enc, &c_enc}) pad(*part, at.U, part->ld);
    pad(x, at.glimpse(), to.h_enc);
    pad(x, to.h_enc + at.U, to.x);
  }

  void zero_rows(int64_t first, int64_t end) const {
    for (const Rows<A>* part : {&from_dec, &zy, &written, &h_dec, &c_dec, &canvas, &x, &posterior, &h_enc, &c_enc}) {
      if (part->data != nullptr) std::fill(part->row(first), part->row(end), A{0});
    }
  }
};

// Elements of a row of all parts together; fastdraw/ops/rollout.py knows it too, to say the shape of what is saved.
template <typename A>
int64_t record_width(const Sizes& at) {
  return Record<A>().lay_out(nullptr, 1, at);
}

// Which samples take part in a step, and where the rows of a step begin.
class Schedule {
  std::vector<int64_t> steps_, count_, first_;

 public:
  std::vector<int64_t> order;  // the sample at every place

  // keep: rows of all steps, one after the other. Else those of two steps in turn, which is enough to go on, and the
  // last row of a sample that has stopped is not written again, because its place is beyond count(t).
  Schedule(const RolloutArguments& given, bool keep)
      : count_(static_cast<size_t>(given.sizes.T)), first_(count_.size()), order(given.steps.size()) {
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return given.steps[a] > given.steps[b]; });
    for (const int64_t b : order) steps_.push_back(given.steps[b]);
    int64_t rows = 0;
    for (int64_t t = 0; t < given.sizes.T; ++t) {
      count_[t] = std::count_if(steps_.begin(), steps_.end(), [&](int64_t taken) { return taken > t; });
      first_[t] = keep ? rows : t % 2 * given.sizes.B;
      rows += count_[t];
    }
  }
  int64_t steps(int64_t place) const { return steps_[place]; }
  int64_t count(int64_t t) const { return t < static_cast<int64_t>(count_.size()) ? count_[t] : 0; }
  int64_t first(int64_t t) const { return first_[t]; }
  int64_t rows() const { return std::accumulate(steps_.begin(), steps_.end(), int64_t{0}); }  // of all steps

  // For every row, where all are kept, that of the sample's step before; -1: none.
  std::vector<int64_t> rows_before() const {
    std::vector<int64_t> before;
    for (size_t t = 0; t < count_.size(); ++t) {
      for (int64_t place = 0; place < count_[t]; ++place) before.push_back(t == 0 ? -1 : first_[t - 1] + place);
    }
    return before;
  }
};

// Every stride-th place from `begin` on: what one thread takes through all steps.
struct Group {
  int64_t begin, stride;
  int64_t count(int64_t places) const { return std::max<int64_t>(0, (places - begin + stride - 1) / stride); }
};

}  // namespace fastdraw
