// A sample goes through the image in strips of rows that stay in the L1 cache, between which only sums of N rows are
// kept. In the ops a thread takes whole samples: it makes their filters from the window (again in the backward pass),
// reads C H W elements (twice that for draw_read) and writes C N N per sample, or the reverse. Every sum runs in one
// order, whatever the number of threads.
#include "cpu/glimpse.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "cpu/simd.h"

namespace fastdraw {
namespace {

constexpr int64_t kStrip = 16;  // rows of the image at a time

// In two loops: in one, the operations that wait for one another are more than a processor looks ahead.
template <typename A>
inline void subtract_sigmoid(
    int64_t count, int64_t width, const A* __restrict image, const A* __restrict canvas, A* __restrict error,
    A* __restrict slope, int64_t ld) {
  for (int64_t h = 0; h < count; ++h, image += width, canvas += width, error += ld, slope += ld) {
#pragma omp simd
    for (int64_t w = 0; w < width; ++w) slope[w] = exp_nonpositive(-std::abs(canvas[w])).value;
#pragma omp simd
    for (int64_t w = 0; w < width; ++w) {
      const Sigmoid<A> mean = sigmoid(canvas[w], slope[w]);
      error[w] = image[w] - mean.value;
      slope[w] = mean.slope;
    }
  }
}

template <typename A>
inline void add_error_gradient(
    int64_t count, int64_t width, const A* __restrict derror, const A* __restrict slope, int64_t ld,
    A* __restrict dimage, A* __restrict dcanvas) {
  for (int64_t h = 0; h < count; ++h) {
#pragma omp simd
    for (int64_t w = 0; w < width; ++w) dcanvas[h * width + w] -= derror[h * ld + w] * slope[h * ld + w];
    if (dimage == nullptr) continue;
#pragma omp simd
    for (int64_t w = 0; w < width; ++w) dimage[h * width + w] += derror[h * ld + w];
  }
}

}  // namespace

FASTDRAW_CLONES void make_error(
    int64_t count, int64_t width, const float* image, const float* canvas, float* error, float* slope, int64_t ld) {
  subtract_sigmoid(count, width, image, canvas, error, slope, ld);
}
FASTDRAW_CLONES void make_error(
    int64_t count, int64_t width, const double* image, const double* canvas, double* error, double* slope, int64_t ld) {
  subtract_sigmoid(count, width, image, canvas, error, slope, ld);
}

FASTDRAW_CLONES void error_gradient(
    int64_t count, int64_t width, const float* derror, const float* slope, int64_t ld, float* dimage, float* dcanvas) {
  add_error_gradient(count, width, derror, slope, ld, dimage, dcanvas);
}
FASTDRAW_CLONES void error_gradient(
    int64_t count, int64_t width, const double* derror, const double* slope, int64_t ld, double* dimage,
    double* dcanvas) {
  add_error_gradient(count, width, derror, slope, ld, dimage, dcanvas);
}

template <typename A>
Glimpse<A>::Glimpse(const Grid& grid, int64_t C, bool error)
    : N_(grid.n),
      H_(grid.height),
      W_(grid.width),
      C_(C),
      parts_(error ? 2 : 1),
      width_(round_up(W_, kLanes<A>)),
      filters_(grid),
      pixels_(kStrip, W_),
      slope_(error ? kStrip : 0, W_),
      dpixels_(kStrip, W_),
      product_(1, N_ * N_),
      rows_(N_, W_),
      drows_(N_, W_),
      dfy_(N_, H_),
      dfx_(N_, W_) {}

// Rows of whole vectors: where they lie, or in scratch memory with zeros at their ends.
template <typename A>
auto Glimpse<A>::whole_rows(const A* image, int64_t count) -> Strip {
  if (width_ == W_) return {image, W_};
  for (int64_t h = 0; h < count; ++h) std::copy_n(image + h * W_, W_, pixels_.row(h));
  return {pixels_.row(0), pixels_.ld()};
}

template <typename A>
auto Glimpse<A>::error_rows(const A* image, const A* canvas, int64_t count) -> Strip {
  make_error(count, W_, image, canvas, pixels_.row(0), slope_.row(0), pixels_.ld());
  return {pixels_.row(0), pixels_.ld()};
}

// to = base + fy^T @ rows, for some rows of the image.
template <typename A>
void Glimpse<A>::spread(const Matrix<A>& rows, int64_t top, int64_t count, const A* base, A* to) {
  const A* fy = filters_.fy.row(0) + top;
  const int64_t ldh = filters_.fy.ld();
  if (width_ == W_) return multiply(count, N_, W_, to, W_, base, fy, 1, ldh, rows.row(0), rows.ld());
  const int64_t ld = dpixels_.ld();
  multiply(count, N_, width_, dpixels_.row(0), ld, static_cast<const A*>(nullptr), fy, 1, ldh, rows.row(0), rows.ld());
  for (int64_t h = 0; h < count; ++h) {
    const A* from = dpixels_.row(h);
    for (int64_t w = h * W_; w < (h + 1) * W_; ++w) to[w] = base == nullptr ? *from++ : base[w] + *from++;
  }
}

template <typename A>
void Glimpse<A>::scaled_copy(const A* patch, A factor) {
  A* to = product_.row(0);
  for (int64_t k = 0; k < N_ * N_; ++k) to[k] = patch[k] * factor;
}

template <typename A>
void Glimpse<A>::read(const A* image, const A* canvas, A* patch) {
  const Matrix<A>&fy = filters_.fy, &fx = filters_.fx;
  const A* const zero = nullptr;
  for (int64_t part = 0; part < parts_; ++part) {
    for (int64_t c = 0; c < C_; ++c) {
      // Down the image first: the product that is left for the columns is then only N rows high.
      for (int64_t top = 0; top < H_; top += kStrip) {
        const int64_t count = std::min(kStrip, H_ - top), first = (c * H_ + top) * W_;
        const auto [pixels, ld] =
            part == 0 ? whole_rows(image + first, count) : error_rows(image + first, canvas + first, count);
        A* rows = rows_.row(0);
        multiply(N_, count, width_, rows, rows_.ld(), top == 0 ? zero : rows, fy.row(0) + top, fy.ld(), 1, pixels, ld);
      }
      A* to = patch + patch_offset(0, static_cast<int>(part), c, static_cast<int>(parts_), C_, N_);
      dot(N_, N_, width_, to, N_, zero, rows_.row(0), rows_.ld(), fx.row(0), fx.ld());
      for (int64_t k = 0; k < N_ * N_; ++k) to[k] *= filters_.gamma();
    }
  }
}

// With g = gamma dpatch and s = g @ fx (N, W), for each part:
//   dpixels = fy^T @ s,  dfy = s @ pixels^T,  dfx = g^T @ (fy @ pixels)
template <typename A>
void Glimpse<A>::read_bwd(const A* dpatch, const A* image, const A* canvas, A* dimage, A* dcanvas, A* dwindow) {
  const Matrix<A>&fy = filters_.fy, &fx = filters_.fx;
  const A* const zero = nullptr;
  A *rows = rows_.row(0), *drows = drows_.row(0), *g = product_.row(0), *dfx = dfx_.row(0);
  const int64_t ldw = rows_.ld(), ldh = fy.ld();
  for (int64_t part = 0; part < parts_; ++part) {
    for (int64_t c = 0; c < C_; ++c) {
      const bool first_sum = part == 0 && c == 0;
      scaled_copy(dpatch + (part * C_ + c) * N_ * N_, filters_.gamma());
      multiply(N_, N_, width_, drows, ldw, zero, g, N_, 1, fx.row(0), ldw);
      for (int64_t top = 0; top < H_; top += kStrip) {
        const int64_t count = std::min(kStrip, H_ - top), first = (c * H_ + top) * W_;
        const auto [pixels, ld] =
            part == 0 ? whole_rows(image + first, count) : error_rows(image + first, canvas + first, count);
        multiply(N_, count, width_, rows, ldw, top == 0 ? zero : rows, fy.row(0) + top, ldh, 1, pixels, ld);
        A* dfy = dfy_.row(0) + top;
        dot(N_, count, width_, dfy, ldh, first_sum ? zero : dfy, drows, ldw, pixels, ld);
        if (part == 0 && dimage != nullptr) spread(drows_, top, count, dimage + first, dimage + first);
        if (part == 1) {
          multiply(count, N_, width_, dpixels_.row(0), ldw, zero, fy.row(0) + top, 1, ldh, drows, ldw);
          A* to = dimage == nullptr ? nullptr : dimage + first;
          error_gradient(count, W_, dpixels_.row(0), slope_.row(0), ldw, to, dcanvas + first);
        }
      }
      multiply(N_, N_, width_, dfx, ldw, first_sum ? zero : dfx, g, 1, N_, rows, ldw);
    }
  }
  filters_.backward(dfy_, dfx_, 1, dwindow);
}

template <typename A>
void Glimpse<A>::write(const A* patch, const A* canvas, A* out) {
  const Matrix<A>& fx = filters_.fx;
  const A* const zero = nullptr;
  for (int64_t c = 0; c < C_; ++c) {
    scaled_copy(patch + c * N_ * N_, filters_.inverse_gamma());
    multiply(N_, N_, width_, rows_.row(0), rows_.ld(), zero, product_.row(0), N_, 1, fx.row(0), fx.ld());
    for (int64_t top = 0; top < H_; top += kStrip) {
      const int64_t count = std::min(kStrip, H_ - top), first = (c * H_ + top) * W_;
      // Summed apart from the canvas and added at the end, so that a faint stroke is not rounded at every filter.
      spread(rows_, top, count, canvas == nullptr ? zero : canvas + first, out + first);
    }
  }
}

// With p = patch / gamma, t = p @ fx (N, W) and g = fy @ dcanvas (N, W):
//   dpatch = g @ fx^T / gamma,  dfx = p^T @ g,  dfy = t @ dcanvas^T
template <typename A>
void Glimpse<A>::write_bwd(const A* dcanvas, const A* patch, A* dpatch, A* dwindow) {
  const Matrix<A>&fy = filters_.fy, &fx = filters_.fx;
  const A* const zero = nullptr;
  A *rows = rows_.row(0), *drows = drows_.row(0), *p = product_.row(0), *dfx = dfx_.row(0);
  const int64_t ldw = rows_.ld(), ldh = fy.ld();
  for (int64_t c = 0; c < C_; ++c) {
    scaled_copy(patch + c * N_ * N_, filters_.inverse_gamma());
    multiply(N_, N_, width_, rows, ldw, zero, p, N_, 1, fx.row(0), ldw);
    for (int64_t top = 0; top < H_; top += kStrip) {
      const int64_t count = std::min(kStrip, H_ - top);
      const auto [pixels, ld] = whole_rows(dcanvas + (c * H_ + top) * W_, count);
      multiply(N_, count, width_, drows, ldw, top == 0 ? zero : drows, fy.row(0) + top, ldh, 1, pixels, ld);
      A* dfy = dfy_.row(0) + top;
      dot(N_, count, width_, dfy, ldh, c == 0 ? zero : dfy, rows, ldw, pixels, ld);
    }
    A* to = dpatch + c * N_ * N_;
    dot(N_, N_, width_, to, N_, zero, drows, ldw, fx.row(0), ldw);
    for (int64_t k = 0; k < N_ * N_; ++k) to[k] *= filters_.inverse_gamma();
    multiply(N_, N_, width_, dfx, ldw, c == 0 ? zero : dfx, p, 1, N_, drows, ldw);
  }
  filters_.backward(dfy_, dfx_, -1, dwindow);
}

template class Glimpse<float>;
template class Glimpse<double>;

namespace {

// One sample of a tensor at a time, contiguous and of type A: where it lies if it is so there, else in scratch memory.
template <typename A>
class SampleInput {
  const Input<4>& input_;
  int64_t C_, rows_, columns_;
  bool in_place_;
  std::vector<A> scratch_;

 public:
  SampleInput(const Input<4>& input, int64_t C, int64_t rows, int64_t columns)
      : input_(input), C_(C), rows_(rows), columns_(columns) {
    const auto& [_, channel, row, column] = input.strides;
    in_place_ = element_size(input.dtype) == sizeof(A) && (columns == 1 || column == 1) &&
        (rows == 1 || row == columns) && (C == 1 || channel == rows * columns);
    if (!in_place_ && input.data != nullptr) scratch_.resize(static_cast<size_t>(C * rows * columns));
  }

  const A* operator()(int64_t b) {
    if (input_.data == nullptr) return nullptr;
    if (in_place_) return reinterpret_cast<const A*>(input_.data) + b * input_.strides[0];
    for (int64_t c = 0; c < C_; ++c) {
      input_.load(scratch_.data() + c * rows_ * columns_, columns_, rows_, columns_, b, c);
    }
    return scratch_.data();
  }
};

// The same for a contiguous tensor that is written.
template <typename A>
class SampleOutput {
  const Output& output_;
  int64_t size_;
  bool in_place_;
  std::vector<A> scratch_;

 public:
  SampleOutput(const Output& output, int64_t size)
      : output_(output), size_(size), in_place_(element_size(output.dtype) == sizeof(A)) {
    if (!in_place_ && output.data != nullptr) scratch_.resize(static_cast<size_t>(size));
  }

  A* operator()(int64_t b) {
    if (output_.data == nullptr) return nullptr;
    return in_place_ ? reinterpret_cast<A*>(output_.data) + b * size_ : scratch_.data();
  }
  A* zeros(int64_t b) {
    A* data = (*this)(b);
    if (data != nullptr) std::fill_n(data, size_, A(0));
    return data;
  }
  void store(int64_t b) const {
    if (!in_place_ && output_.data != nullptr) output_.store(scratch_.data(), 0, 1, size_, b * size_);
  }
};

// (B, K) as (B, 1, 1, K).
Input<4> flat_input(const Input<2>& input) {
  Input<4> flat;
  flat.data = input.data;
  flat.dtype = input.dtype;
  flat.strides = {input.strides[0], 0, 0, input.strides[1]};
  return flat;
}

// What the samples of every op are made of.
struct Call {
  Grid grid;
  int64_t C;
  Input<4> window;

  int64_t patch() const { return C * grid.n * grid.n; }
  int64_t image() const { return C * grid.height * grid.width; }
  template <typename A>
  SampleInput<A> images(const Input<4>& input) const {
    return {input, C, grid.height, grid.width};
  }
  template <typename A>
  SampleInput<A> patches(const Input<4>& input) const {
    return {input, C, grid.n, grid.n};
  }
  template <typename A>
  SampleInput<A> windows() const {
    return {window, 1, 1, 5};
  }
};

template <typename A>
struct ReadForward {
  Call call;
  Input<4> image, canvas;  // canvas: null with one part
  Output patch;

  void operator()(int64_t begin, int64_t end) const {
    const bool error = canvas.data != nullptr;
    Glimpse<A> glimpse(call.grid, call.C, error);
    auto windows = call.windows<A>(), images = call.images<A>(image), canvases = call.images<A>(canvas);
    SampleOutput<A> patches(patch, (error ? 2 : 1) * call.patch());
    for (int64_t b = begin; b < end; ++b) {
      glimpse.set_window(windows(b), call.window.dtype);
      glimpse.read(images(b), canvases(b), patches(b));
      patches.store(b);
    }
  }
};

template <typename A>
struct ReadBackward {
  Call call;
  Input<4> dpatch, image, canvas;  // dpatch: as (B, 1, 1, K) with two parts
  Output dimage, dcanvas, dwindow;

  void operator()(int64_t begin, int64_t end) const {
    const bool error = canvas.data != nullptr;
    Glimpse<A> glimpse(call.grid, call.C, error);
    auto windows = call.windows<A>(), images = call.images<A>(image), canvases = call.images<A>(canvas);
    auto dpatches = error ? SampleInput<A>(dpatch, 1, 1, 2 * call.patch()) : call.patches<A>(dpatch);
    SampleOutput<A> dimages(dimage, call.image()), dcanvases(dcanvas, call.image()), dwindows(dwindow, 5);
    for (int64_t b = begin; b < end; ++b) {
      glimpse.set_window(windows(b), call.window.dtype);
      glimpse.read_bwd(dpatches(b), images(b), canvases(b), dimages.zeros(b), dcanvases.zeros(b), dwindows(b));
      dimages.store(b);
      dcanvases.store(b);
      dwindows.store(b);
    }
  }
};

template <typename A>
struct WriteForward {
  Call call;
  Input<4> patch, canvas;
  Output out;

  void operator()(int64_t begin, int64_t end) const {
    Glimpse<A> glimpse(call.grid, call.C, false);
    auto windows = call.windows<A>(), patches = call.patches<A>(patch), canvases = call.images<A>(canvas);
    SampleOutput<A> outs(out, call.image());
    for (int64_t b = begin; b < end; ++b) {
      glimpse.set_window(windows(b), call.window.dtype);
      glimpse.write(patches(b), canvases(b), outs(b));
      outs.store(b);
    }
  }
};

template <typename A>
struct WriteBackward {
  Call call;
  Input<4> dcanvas, patch;
  Output dpatch, dwindow;

  void operator()(int64_t begin, int64_t end) const {
    Glimpse<A> glimpse(call.grid, call.C, false);
    auto windows = call.windows<A>(), patches = call.patches<A>(patch), dcanvases = call.images<A>(dcanvas);
    SampleOutput<A> dpatches(dpatch, call.patch()), dwindows(dwindow, 5);
    for (int64_t b = begin; b < end; ++b) {
      glimpse.set_window(windows(b), call.window.dtype);
      glimpse.write_bwd(dcanvases(b), patches(b), dpatches(b), dwindows(b));
      dpatches.store(b);
      dwindows.store(b);
    }
  }
};

struct ImageShape {
  int64_t B, C, H, W;
};

ImageShape image_shape(const char* op, const char* name, const Tensor& image) {
  check_dim(op, name, image, 4);
  return {image.size(0), image.size(1), image.size(2), image.size(3)};
}

// Multiply-adds per sample of one product with the image and of the filters: the unit of what an op costs.
int64_t product_cost(const Grid& grid, int64_t C) {
  return C * grid.n * grid.height * grid.width + 16 * grid.n * (grid.height + grid.width);
}

Tensor read(
    const char* op, const Tensor& image, const Tensor* canvas, const Tensor& window, int64_t n, bool per_axis,
    double eps) {
  const auto [B, C, H, W] = image_shape(op, "image", image);
  const Grid grid = make_grid(op, n, H, W, per_axis, eps);
  const ScalarType dtype = image.scalar_type();
  check_tensor(op, "window", window, dtype, {B, 5});
  if (canvas != nullptr) check_tensor(op, "canvas", *canvas, dtype, {B, C, H, W});
  const Tensor patch = canvas == nullptr ? new_empty(image, {B, C, n, n}) : new_empty(image, {B, 2 * C * n * n});
  with_compute_type(op, dtype, [&, C = C, B = B](auto compute) {
    ReadForward<decltype(compute)> work{{grid, C, flat_input(window)}, image, {}, patch};
    if (canvas != nullptr) work.canvas = *canvas;
    run_parallel(work, B, (canvas == nullptr ? 1 : 2) * product_cost(grid, C));
  });
  return patch;
}

Tensor glimpse_read(const Tensor& image, const Tensor& window, int64_t n, bool per_axis, double eps) {
  return read("glimpse_read", image, nullptr, window, n, per_axis, eps);
}

Tensor draw_read(
    const Tensor& image, const Tensor& canvas, const Tensor& window, int64_t n, bool per_axis, double eps) {
  return read("draw_read", image, &canvas, window, n, per_axis, eps);
}

std::tuple<Tensor, Tensor> glimpse_read_bwd(
    const Tensor& dpatch, const Tensor& image, const Tensor& window, int64_t n, bool per_axis, double eps,
    bool need_dimage) {
  const char* op = "glimpse_read_bwd";
  const auto [B, C, H, W] = image_shape(op, "image", image);
  const Grid grid = make_grid(op, n, H, W, per_axis, eps);
  const ScalarType dtype = image.scalar_type();
  check_tensor(op, "window", window, dtype, {B, 5});
  check_tensor(op, "dpatch", dpatch, dtype, {B, C, n, n});
  const Tensor dimage = need_dimage ? new_empty(image, {B, C, H, W}) : new_empty(image, {0});
  const Tensor dwindow = new_empty(window, {B, 5});
  with_compute_type(op, dtype, [&, C = C, B = B](auto compute) {
    ReadBackward<decltype(compute)> work{{grid, C, flat_input(window)}, dpatch, image, {}, {}, {}, dwindow};
    if (need_dimage) work.dimage = dimage;
    run_parallel(work, B, 3 * product_cost(grid, C));
  });
  return {dimage, dwindow};
}

std::tuple<Tensor, Tensor, Tensor> draw_read_bwd(
    const Tensor& dglimpse, const Tensor& image, const Tensor& canvas, const Tensor& window, int64_t n, bool per_axis,
    double eps, bool need_dimage) {
  const char* op = "draw_read_bwd";
  const auto [B, C, H, W] = image_shape(op, "image", image);
  const Grid grid = make_grid(op, n, H, W, per_axis, eps);
  const ScalarType dtype = image.scalar_type();
  check_tensor(op, "canvas", canvas, dtype, {B, C, H, W});
  check_tensor(op, "window", window, dtype, {B, 5});
  check_tensor(op, "dglimpse", dglimpse, dtype, {B, 2 * C * n * n});
  const Tensor dimage = need_dimage ? new_empty(image, {B, C, H, W}) : new_empty(image, {0});
  const Tensor dcanvas = new_empty(canvas, {B, C, H, W}), dwindow = new_empty(window, {B, 5});
  with_compute_type(op, dtype, [&, C = C, B = B](auto compute) {
    ReadBackward<decltype(compute)> work{
        {grid, C, flat_input(window)}, flat_input(dglimpse), image, canvas, {}, dcanvas, dwindow};
    if (need_dimage) work.dimage = dimage;
    run_parallel(work, B, 6 * product_cost(grid, C));
  });
  return {dimage, dcanvas, dwindow};
}

Tensor glimpse_write(
    const Tensor& patch, const Tensor& window, const std::optional<Tensor>& canvas, int64_t height, int64_t width,
    bool per_axis, double eps) {
  const char* op = "glimpse_write";
  const auto [B, C, N, N_] = image_shape(op, "patch", patch);
  const Grid grid = make_grid(op, N, height, width, per_axis, eps);
  const ScalarType dtype = patch.scalar_type();
  check_tensor(op, "patch", patch, dtype, {B, C, N, N});
  check_tensor(op, "window", window, dtype, {B, 5});
  if (canvas) check_tensor(op, "canvas", *canvas, dtype, {B, C, height, width});
  const Tensor out = new_empty(patch, {B, C, height, width});
  with_compute_type(op, dtype, [&, C = C, B = B](auto compute) {
    WriteForward<decltype(compute)> work{{grid, C, flat_input(window)}, patch, {}, out};
    if (canvas) work.canvas = *canvas;
    run_parallel(work, B, product_cost(grid, C));
  });
  return out;
}

std::tuple<Tensor, Tensor> glimpse_write_bwd(
    const Tensor& dcanvas, const Tensor& patch, const Tensor& window, bool per_axis, double eps) {
  const char* op = "glimpse_write_bwd";
  const auto [B, C, H, W] = image_shape(op, "dcanvas", dcanvas);
  check_dim(op, "patch", patch, 4);
  const int64_t N = patch.size(3);
  const Grid grid = make_grid(op, N, H, W, per_axis, eps);
  const ScalarType dtype = patch.scalar_type();
  check_tensor(op, "patch", patch, dtype, {B, C, N, N});
  check_tensor(op, "dcanvas", dcanvas, dtype, {B, C, H, W});
  check_tensor(op, "window", window, dtype, {B, 5});
  const Tensor dpatch = new_empty(patch, {B, C, N, N}), dwindow = new_empty(window, {B, 5});
  with_compute_type(op, dtype, [&, C = C, B = B](auto compute) {
    const WriteBackward<decltype(compute)> work{{grid, C, flat_input(window)}, dcanvas, patch, dpatch, dwindow};
    run_parallel(work, B, 2 * product_cost(grid, C));
  });
  return {dpatch, dwindow};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdraw, CPU, m) {
  m.impl("glimpse_read", TORCH_BOX(&glimpse_read));
  m.impl("glimpse_read_bwd", TORCH_BOX(&glimpse_read_bwd));
  m.impl("glimpse_write", TORCH_BOX(&glimpse_write));
  m.impl("glimpse_write_bwd", TORCH_BOX(&glimpse_write_bwd));
  m.impl("draw_read", TORCH_BOX(&draw_read));
  m.impl("draw_read_bwd", TORCH_BOX(&draw_read_bwd));
}

}  // namespace fastdraw
