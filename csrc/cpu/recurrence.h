// What both passes of a rollout know of a call, and how its work is shared among threads.
#pragma once

#include "cpu/glimpse.h"
#include "cpu/layout.h"

namespace fastdraw {

// What one thread needs to work on one sample.
template <typename A>
struct Worker {
  std::optional<Glimpse<A>> reader, writer;
  Matrix<A> noise, dnoise, weights, sums, context, canvas, slope;

  explicit Worker(const Sizes& at, const Options& options)
      : noise(1, at.Z),
        dnoise(1, at.Z),
        weights(1, at.L),
        sums(1, at.L),
        context(1, at.D),
        canvas(1, at.pixels()),
        slope(1, at.pixels()) {
    const auto grid = [&](int64_t n) { return Grid{n, at.H, at.W, options.per_axis, options.eps}; };
    if (at.read_window() > 0) reader.emplace(grid(at.n_read), at.C, true);
    if (at.write_window() > 0) writer.emplace(grid(at.n_write), at.C, false);
  }
};

// Samples are in the order of their places.
template <typename A>
class Recurrence {
 protected:
  const RolloutArguments& given_;
  const Input<3> noise_;
  const Sizes at_;
  const Options options_;
  const Columns columns_;
  const Linears linears_;
  const Schedule schedule_;
  const int64_t groups_;
  std::vector<Worker<A>> workers_;
  Matrix<A> zeros_, h0_enc_, h0_dec_, canvas0_, align_v_;
  Buffer<A> image_, labels_, keys_;
  Record<A> record_;

  // keep: as for Schedule. `given` is looked at as long as this lives.
  Recurrence(const RolloutArguments& given, bool keep);

  int64_t length(int64_t place) const { return given_.lengths[schedule_.order[place]]; }
  const A* image(int64_t place) const { return image_.get() + place * at_.pixels(); }
  const A* labels(int64_t place) const { return labels_.get() + place * at_.L * at_.D; }
  const A* keys(int64_t place) const { return keys_.get() + place * at_.L * at_.A; }
  int64_t row(int64_t t, int64_t place) const { return schedule_.first(t) + place; }

  // The canvas of a sample after its first `steps` steps.
  const A* canvas(int64_t place, int64_t steps) const {
    return steps == 0 ? canvas0_.row(0) : record_.canvas.row(row(steps - 1, place));
  }

  const A* cell_before(const Rows<A>& cells, int64_t t, int64_t place) const {
    return t == 0 ? zeros_.row(0) : cells.row(row(t - 1, place));
  }

  // Call body(group) for all groups, each on a thread of its own.
  template <typename Body>
  void for_groups(const Body& body) const {
    if (groups_ == 1) return body(Group{0, 1});
    const auto work = [&](int64_t begin, int64_t end) {
      for (int64_t g = begin; g < end; ++g) body(Group{g, groups_});
    };
    torch::stable::parallel_for(0, groups_, 1, work);
  }

  // Call body(place, worker) for the first n samples of a group. The threads share them if there is one group.
  template <typename Body>
  void for_samples(const Group& group, int64_t n, int64_t cost, const Body& body) {
    if (groups_ > 1) {
      for (int64_t i = 0; i < n; ++i) body(group.begin + i * group.stride, workers_[group.begin]);
      return;
    }
    const int64_t shares = std::min<int64_t>(n, workers_.size());
    const auto work = [&](int64_t begin, int64_t end) {
      for (int64_t share = begin; share < end; ++share) {
        for (int64_t i = share * n / shares; i < (share + 1) * n / shares; ++i) body(i, workers_[share]);
      }
    };
    if (shares > 0) run_parallel(work, shares, cost * n / shares);
  }

  // c (n, columns) = a x weight, whose columns are those from `column` on, for the first n samples of a group, of which
  // a and c are the first rows. The threads share the columns if there is one group.
  void multiply(
      const Group& group, int64_t n, const A* a, int64_t lda, const Packed<A>& weight, int64_t column, int64_t columns,
      const A* bias, const Rows<A>& c, bool add = false) const {
    const auto work = [&](int64_t begin, int64_t end) {
      weight.multiply(
          {n, weight.K(), begin, end, lda * group.stride, c.ld * group.stride, add}, column, a, bias, c.data);
    };
    if (n > 0) run_parallel(work, panels<A>(columns), n * weight.K() * kPanel<A>);
  }

  // Multiply-adds of reading or writing one glimpse.
  int64_t glimpse_cost(int64_t n) const { return 6 * at_.pixels() + at_.C * n * (at_.H * at_.W + n * at_.W); }
};

}  // namespace fastdraw
