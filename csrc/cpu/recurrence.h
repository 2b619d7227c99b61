// What the forward and the backward pass of the rollouts share: sizes, the rows that are stored, which sample takes
// part in which step, and the weights in the order in which they are multiplied.
#pragma once

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "cpu/gemm.h"
#include "cpu/glimpse.h"
#include "cpu/tensor.h"
#include "weights.h"

namespace fastdraw {

template <typename A>
inline constexpr ScalarType compute_dtype = sizeof(A) == 8 ? ScalarType::Double : ScalarType::Float;

struct Sizes {
  int64_t B, C, H, W, T, L, D, A, U, Z;  // L, D, A: 0 without labels
  int64_t n_read, n_write;               // 0: no attention
  bool encoder;                          // false: draw_generate
  int64_t pixels() const { return C * H * W; }
  int64_t glimpse() const { return !encoder ? 0 : 2 * (n_read > 0 ? C * n_read * n_read : pixels()); }
  int64_t patch() const { return n_write > 0 ? C * n_write * n_write : pixels(); }
  int64_t read_window() const { return encoder && n_read > 0 ? 5 : 0; }
  int64_t write_window() const { return n_write > 0 ? 5 : 0; }
};

struct Options {
  bool tanh_prior, standard_first, log_variance, per_axis;
  double eps;
  bool bfloat16;  // products with weights, which are rounded
};

// What draw_rollout and draw_generate are called with.
struct Arguments {
  Sizes sizes;
  Options options;
  ScalarType dtype;  // of image, labels, noise and all results; the weights, and their gradients, may have another
  std::optional<Tensor> noise, image, labels, lengths, steps;
  std::array<std::optional<Tensor>, kWeights> weights;
};

// The arguments and results of an op that torch's dispatcher passes, one after the other.
class Stack {
  StableIValue* next_;

  template <typename T>
  T take() {
    return torch::stable::detail::to<T>(*next_++);
  }

 public:
  explicit Stack(StableIValue* first) : next_(first) {}
  Tensor tensor() { return take<Tensor>(); }
  std::optional<Tensor> optional_tensor() { return take<std::optional<Tensor>>(); }
  int64_t integer() { return take<int64_t>(); }
  double number() { return take<double>(); }
  bool flag() { return take<bool>(); }
};
void give(StableIValue* stack, const std::vector<Tensor>& results);

// Takes what all four ops share, from the noise to the last option, and checks every shape.
Arguments take_arguments(const char* op, Stack& from, bool encoder);

template <typename A>
constexpr int64_t padded(int64_t columns) {
  return panels<A>(columns) * kPanel<A>;
}

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

// Rows of a matrix in memory of others.
template <typename A>
struct Rows {
  A* data = nullptr;
  int64_t ld = 0;
  A* row(int64_t i) const { return data + i * ld; }
};

// What a step leaves for the backward pass, a row of each for every sample and step:
//   from_dec  query | read window | prior | encoder's gates | decoder's gates, these after their nonlinearities
//   x         glimpse | h_enc before the step
//   posterior, zy (z | y), written (patch | window), and h, c and the canvas after the step
template <typename A>
struct Record {
  Rows<A> from_dec, x, posterior, zy, written, h_enc, c_enc, h_dec, c_dec, canvas;

  // Lays out `rows` rows at data, and returns how many elements they take.
  int64_t place(A* data, int64_t rows, const Sizes& at) {
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
    for (const Rows<A>* part : {&from_dec, &x, &posterior, &zy, &written, &h_enc, &c_enc, &h_dec, &c_dec, &canvas}) {
      if (part->data != nullptr) std::fill(part->row(first), part->row(end), A{0});
    }
  }
};

// Elements of a row of all parts together; fastdraw/ops/rollout.py knows it too, to say the shape of what is saved.
template <typename A>
int64_t record_width(const Sizes& at) {
  return Record<A>().place(nullptr, 1, at);
}

// Samples in the order of their steps, most first, so that those that take part in a step are always the first ones.
class Schedule {
  std::vector<int64_t> steps_, count_, first_;

 public:
  std::vector<int64_t> order;  // the sample in every place

  // Rows of all steps in a row if `keep`, else those of two steps in turn.
  Schedule(const Sizes& at, const std::optional<Tensor>& steps, bool keep);
  int64_t steps(int64_t place) const { return steps_[place]; }
  int64_t count(int64_t t) const { return t < static_cast<int64_t>(count_.size()) ? count_[t] : 0; }
  int64_t first(int64_t t) const { return first_[t]; }
  int64_t rows() const;                      // of all steps
  std::vector<int64_t> rows_before() const;  // for every row, that of the sample's step before; -1: none
};

// Rows of all steps that are taken fit into what is saved.
template <typename A>
void check_saved(const Arguments& given, const Tensor& saved) {
  const Sizes& at = given.sizes;
  check_tensor("draw_rollout", "saved", saved, compute_dtype<A>, {saved.size(0), record_width<A>(at)});
  const int64_t rows = Schedule(at, given.steps, true).rows();
  STD_TORCH_CHECK(saved.size(0) >= rows, "draw_rollout: saved must have ", rows, " rows, got ", saved.size(0));
}

// Every stride-th place from `begin` on: what one thread takes through all steps.
struct Group {
  int64_t begin, stride;
  int64_t count(int64_t places) const { return std::max<int64_t>(0, (places - begin + stride - 1) / stride); }
};

// Memory that is not set to anything.
template <typename A>
class Buffer {
  struct Free {
    void operator()(A* data) const { ::operator delete[](data, std::align_val_t{64}); }
  };
  std::unique_ptr<A[], Free> data_;

 public:
  explicit Buffer(int64_t size);
  A* get() const { return data_.get(); }
};

void use_huge_pages(void* data, size_t bytes);

// The integers of a tensor (B,), or `otherwise`.
std::vector<int64_t> load_counts(const std::optional<Tensor>& tensor, int64_t B, int64_t otherwise);

// A weight that has been packed, (K, N), of A or, beside float, of bfloat16.
template <typename A>
class Packed {
  int64_t K_, N_, lines_;
  bool bfloat16_;
  Buffer<A> data_;

  // Call body(data) with a pointer to what the lines hold.
  template <typename Body>
  void with_lines(const Body& body) const {
    if constexpr (std::is_same_v<A, float>) {
      if (bfloat16_) return body(reinterpret_cast<Pair*>(data_.get()));
    }
    body(data_.get());
  }

 public:
  Packed(int64_t K, int64_t N, bool bfloat16 = false)
      : K_(K), N_(padded<A>(N)), lines_(bfloat16 ? lines<Pair>(K) : K), bfloat16_(bfloat16), data_(lines_ * N_) {}
  int64_t K() const { return K_; }
  int64_t end() const { return N_ / kPanel<A>; }
  const A* get() const { return data_.get(); }
  void multiply(const Product& product, const A* a, const A* bias, A* c) const {
    with_lines([&](const auto* packed) { multiply_packed(product, a, packed, bias, c); });
  }
  // Columns `from`..`from + inputs` of weight (outputs, .), transposed, at row k (even) and column n (a whole panel).
  void put_transposed(const Tensor& weight, int64_t from, int64_t inputs, int64_t k, int64_t n);
  // The same as it is: its outputs are rows k.. and its inputs columns n...
  void put(const Tensor& weight, int64_t from, int64_t inputs, int64_t k, int64_t n);
  // `source` (K, N) in rows of ld. If `rows` is given, rows[k] is the row of k, and -1 stands for `other`.
  void put_rows(const A* source, int64_t ld, int64_t columns, const int64_t* rows = nullptr, const A* other = nullptr);
  // Rows k..k_end (even); an odd k's line is left to what ends in it.
  void zero_rows(int64_t k, int64_t k_end);
};

// DRAW without attention reads all of error = image - sigmoid(canvas). Backward: what is added to dimage (unless null)
// and to dcanvas.
void error_image(int64_t size, const float* image, const float* canvas, float* error);
void error_image(int64_t size, const double* image, const double* canvas, double* error);
void error_image_bwd(int64_t size, const float* derror, const float* canvas, float* dimage, float* dcanvas);
void error_image_bwd(int64_t size, const double* derror, const double* canvas, double* dimage, double* dcanvas);

// Groups for a batch: one per thread if each gets enough rows for whole tiles; else one, whose stages are shared.
int64_t groups_for(int64_t B);

// What one thread needs to work on one sample.
template <typename A>
struct Worker {
  std::optional<Glimpse<A>> reader, writer;
  Matrix<A> noise, weights, sums, context, dnoise, frame;

  explicit Worker(const Sizes& at, const Options& options)
      : noise(1, at.Z), weights(1, at.L), sums(1, at.L), context(1, at.D), dnoise(1, at.Z), frame(1, at.H * at.W) {
    const auto grid = [&](int64_t n) { return Grid{n, at.H, at.W, options.per_axis, options.eps}; };
    if (at.read_window() > 0) reader.emplace(grid(at.n_read), at.C, true);
    if (at.write_window() > 0) writer.emplace(grid(at.n_write), at.C, false);
  }
};

// What both passes know of a call, with samples in the order of their places.
template <typename A>
class Recurrence {
 protected:
  const Arguments& given_;
  const Input<3> noise_;
  const Sizes at_;
  const Options options_;
  const Columns columns_;
  const Schedule schedule_;
  const int64_t groups_;
  std::vector<Worker<A>> workers_;
  std::vector<int64_t> lengths_;
  Matrix<A> zeros_, h0_enc_, h0_dec_, canvas0_, align_v_;
  Buffer<A> image_, labels_, keys_;
  Record<A> record_;

  Recurrence(const Arguments& given, bool keep);

  const A* image(int64_t place) const { return image_.get() + place * at_.pixels(); }
  const A* labels(int64_t place) const { return labels_.get() + place * at_.L * at_.D; }
  const A* keys(int64_t place) const { return keys_.get() + place * at_.L * at_.A; }
  int64_t row(int64_t t, int64_t place) const { return schedule_.first(t) + place; }

  // The canvas of a sample after its first `steps` steps.
  const A* canvas(int64_t place, int64_t steps) const {
    return steps == 0 ? canvas0_.row(0) : record_.canvas.row(row(steps - 1, place));
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

  // c (n, .) = a x weight, from column `from` of the weight on, for the first n samples of a group; a and c are their
  // first rows, and c's columns begin at `from`. The threads share the columns if there is one group.
  void multiply(
      const Group& group, int64_t n, const A* a, int64_t lda, const Packed<A>& weight, int64_t from, int64_t columns,
      const A* bias, A* c, int64_t ldc, bool add = false) const {
    if (n == 0) return;
    const int64_t first = from / kPanel<A>;
    const auto work = [&](int64_t begin, int64_t end) {
      const Product product{n, weight.K(), first + begin, first + end, lda * group.stride, ldc * group.stride, add};
      weight.multiply(product, a, bias, c - from);
    };
    run_parallel(work, panels<A>(columns), n * weight.K() * kPanel<A>);
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

  // Multiply-adds of reading or writing one glimpse.
  int64_t glimpse_cost(int64_t n) const { return 6 * at_.pixels() + at_.C * n * (at_.H * at_.W + n * at_.W); }
};

}  // namespace fastdraw
