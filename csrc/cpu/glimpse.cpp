// read:   patch[c,i,j]  = gamma sum_{h,w} fy[i,h] image[c,h,w] fx[j,w]
// write:  canvas[c,h,w] = 1/gamma sum_{i,j} fy[i,h] patch[c,i,j] fx[j,w]  [+ canvas]
// draw_read: read of the image (part 0) and of the error image - sigmoid(canvas) (part 1), in one pass over both.
//
// A thread takes whole samples: it makes their filters from the window (again in the backward pass) and goes through
// the image in strips of rows, so that it needs scratch for the filters and one strip, and nothing else is stored.
// Reads C H W elements (twice that for draw_read) and writes C N N per sample, or the reverse. Every sum runs in one
// order, whatever the number of threads.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "cpu/filterbank.h"
#include "cpu/simd.h"

namespace fastdraw {
namespace {

constexpr int64_t kStrip = 8;  // rows of the image at a time

template <typename A>
inline void scale(A* x, int64_t size, A factor) {
  for (int64_t k = 0; k < size; ++k) x[k] *= factor;
}

template <typename A>
inline void subtract_sigmoid(const A* __restrict image, A* __restrict error, A* __restrict slope, int64_t size) {
#pragma omp simd
  for (int64_t w = 0; w < size; ++w) {
    const Sigmoid<A> mean = sigmoid(error[w]);
    error[w] = image[w] - mean.value;
    slope[w] = mean.slope;
  }
}

// error: the canvas, then image - sigmoid(canvas); slope: of the sigmoid.
FASTDRAW_CLONES void error_row(const float* image, float* error, float* slope, int64_t size) {
  subtract_sigmoid(image, error, slope, size);
}
FASTDRAW_CLONES void error_row(const double* image, double* error, double* slope, int64_t size) {
  subtract_sigmoid(image, error, slope, size);
}

// sum_{i,w} x[i,w] y[i,w]
template <typename A>
double row_dots(const Matrix<A>& x, const Matrix<A>& y, int64_t rows) {
  double total = 0;
  for (int64_t i = 0; i < rows; ++i) {
    A sum = 0;
    dot_add(1, 1, x.ld(), &sum, 1, x.row(i), x.ld(), y.row(i), y.ld());
    total += static_cast<double>(sum);
  }
  return total;
}

// A strip of the image and, side by side with it in every row, of the error image.
template <typename A>
struct Strip {
  int parts;
  Input<4> image, canvas;
  int64_t width, part;  // part: elements from a row of the image to that of the error
  Matrix<A> pixels, slope;

  Strip(int parts, const Input<4>& image, const Input<4>& canvas, int64_t width)
      : parts(parts),
        image(image),
        canvas(canvas),
        width(width),
        part(round_up(width, 64 / sizeof(A))),
        pixels(kStrip, parts * part),
        slope(kStrip, width) {}

  void load(int64_t b, int64_t c, int64_t top, int64_t count) {
    image.load(pixels.row(0), pixels.ld(), count, width, b, c, top);
    if (parts == 1) return;
    canvas.load(pixels.row(0) + part, pixels.ld(), count, width, b, c, top);
    for (int64_t h = 0; h < count; ++h) error_row(pixels.row(h), pixels.row(h) + part, slope.row(h), width);
  }
};

template <typename A>
struct ReadForward {
  Grid grid;
  int64_t C;
  int parts;
  Input<4> image, canvas;
  Input<2> window;
  Output patch;

  void operator()(int64_t begin, int64_t end) const {
    const int64_t N = grid.n, H = grid.height, W = grid.width;
    Filterbank<A> filters(grid);
    Strip<A> strip(parts, image, canvas, W);
    const int64_t ldh = filters.fy.ld(), ldw = filters.fx.ld(), wide = parts * ldw;
    Matrix<A> rows(N, wide), product(1, N * N);  // rows: fy @ pixels, a part beside the other
    for (int64_t b = begin; b < end; ++b) {
      filters.set_window(window, b);
      for (int64_t c = 0; c < C; ++c) {
        rows.zero();
        // Down the image first: the product that is left for the columns is then only N rows high.
        for (int64_t top = 0; top < H; top += kStrip) {
          const int64_t count = std::min(kStrip, H - top);
          strip.load(b, c, top, count);
          multiply_add(N, count, wide, rows.row(0), wide, filters.fy.row(0) + top, ldh, 1, strip.pixels.row(0), wide);
        }
        for (int part = 0; part < parts; ++part) {
          product.zero();
          dot_add(N, N, ldw, product.row(0), N, rows.row(0) + part * ldw, wide, filters.fx.row(0), ldw);
          scale(product.row(0), N * N, filters.gamma());
          patch.store(product.row(0), 0, 1, N * N, patch_offset(b, part, c, parts, C, N));
        }
      }
    }
  }
};

template <typename A>
struct ReadBackward {
  Grid grid;
  int64_t C;
  int parts;
  Input<4> dpatch[2], image, canvas;
  Input<2> window;
  Output dimage, dcanvas, dwindow;

  // With g = gamma dpatch and s = g @ fx (N, W), for each part:
  //   dpixels = fy^T @ s,  dfy = s @ pixels^T,  dfx = g^T @ (fy @ pixels),  dlog_gamma = sum s * (fy @ pixels)
  void operator()(int64_t begin, int64_t end) const {
    const int64_t N = grid.n, H = grid.height, W = grid.width;
    Filterbank<A> filters(grid);
    Strip<A> strip(parts, image, canvas, W);
    const int64_t ldh = filters.fy.ld(), ldw = filters.fx.ld(), wide = parts * ldw;
    Matrix<A> rows(N, wide), drows(N, wide), dpixels(kStrip, wide), dproduct(parts, N * N), dfy(N, H), dfx(N, W);
    const Matrix<A>& fy = filters.fy;
    for (int64_t b = begin; b < end; ++b) {
      filters.set_window(window, b);
      dfy.zero();
      dfx.zero();
      double dlog_gamma = 0;
      for (int64_t c = 0; c < C; ++c) {
        rows.zero();
        drows.zero();
        for (int part = 0; part < parts; ++part) {
          A* g = dproduct.row(part);
          dpatch[part].load(g, N, N, N, b, c);
          scale(g, N * N, filters.gamma());
          multiply_add(N, N, ldw, drows.row(0) + part * ldw, wide, g, N, 1, filters.fx.row(0), ldw);
        }
        for (int64_t top = 0; top < H; top += kStrip) {
          const int64_t count = std::min(kStrip, H - top);
          strip.load(b, c, top, count);
          multiply_add(N, count, wide, rows.row(0), wide, fy.row(0) + top, ldh, 1, strip.pixels.row(0), wide);
          dot_add(N, count, wide, dfy.row(0) + top, ldh, drows.row(0), wide, strip.pixels.row(0), wide);
          const int64_t skip = dimage.data == nullptr ? ldw : 0;  // only the error's part is wanted, if there is one
          if (skip == wide) continue;
          dpixels.zero();
          multiply_add(
              count, N, wide - skip, dpixels.row(0) + skip, wide, fy.row(0) + top, 1, ldh, drows.row(0) + skip, wide);
          store_gradients(b, c, top, count, dpixels, strip);
        }
        for (int part = 0; part < parts; ++part) {
          multiply_add(N, N, ldw, dfx.row(0), ldw, dproduct.row(part), 1, N, rows.row(0) + part * ldw, wide);
        }
        dlog_gamma += row_dots(rows, drows, N);
      }
      filters.backward(dfy, dfx, dlog_gamma, dwindow, b);
    }
  }

 private:
  void store_gradients(
      int64_t b, int64_t c, int64_t top, int64_t count, Matrix<A>& dpixels, const Strip<A>& strip) const {
    const int64_t W = grid.width, offset = ((b * C + c) * grid.height + top) * W;
    if (dimage.data != nullptr) {
      // Both parts read the image.
      for (int64_t h = 0; parts == 2 && h < count; ++h) {
        A* d = dpixels.row(h);
        for (int64_t w = 0; w < W; ++w) d[w] += d[strip.part + w];
      }
      dimage.store(dpixels.row(0), dpixels.ld(), count, W, offset);
    }
    if (parts == 2) {
      for (int64_t h = 0; h < count; ++h) {
        A* d = dpixels.row(h) + strip.part;
        for (int64_t w = 0; w < W; ++w) d[w] *= -strip.slope.row(h)[w];
      }
      dcanvas.store(dpixels.row(0) + strip.part, dpixels.ld(), count, W, offset);
    }
  }
};

template <typename A>
struct WriteForward {
  Grid grid;
  int64_t C;
  Input<4> patch;
  Input<2> window;
  Input<4> canvas;
  Output out;

  void operator()(int64_t begin, int64_t end) const {
    const int64_t N = grid.n, H = grid.height, W = grid.width;
    Filterbank<A> filters(grid);
    const int64_t ldh = filters.fy.ld(), ldw = filters.fx.ld();
    Matrix<A> product(1, N * N), rows(N, W), pixels(kStrip, W), before(kStrip, W);
    for (int64_t b = begin; b < end; ++b) {
      filters.set_window(window, b);
      for (int64_t c = 0; c < C; ++c) {
        patch.load(product.row(0), N, N, N, b, c);
        scale(product.row(0), N * N, filters.inverse_gamma());
        rows.zero();
        multiply_add(N, N, ldw, rows.row(0), ldw, product.row(0), N, 1, filters.fx.row(0), ldw);
        for (int64_t top = 0; top < H; top += kStrip) {
          const int64_t count = std::min(kStrip, H - top);
          // Summed apart from the canvas and added at the end, so that a faint stroke is not rounded at every filter.
          pixels.zero();
          multiply_add(count, N, ldw, pixels.row(0), ldw, filters.fy.row(0) + top, 1, ldh, rows.row(0), ldw);
          if (canvas.data != nullptr) {
            canvas.load(before.row(0), ldw, count, W, b, c, top);
            for (int64_t k = 0; k < count * ldw; ++k) pixels.row(0)[k] += before.row(0)[k];
          }
          out.store(pixels.row(0), ldw, count, W, ((b * C + c) * H + top) * W);
        }
      }
    }
  }
};

template <typename A>
struct WriteBackward {
  Grid grid;
  int64_t C;
  Input<4> dcanvas, patch;
  Input<2> window;
  Output dpatch, dwindow;

  // With p = patch / gamma, t = p @ fx (N, W) and g = fy @ dcanvas (N, W):
  //   dpatch = g @ fx^T / gamma,  dfx = p^T @ g,  dfy = t @ dcanvas^T,  dlog_gamma = -sum t * g
  void operator()(int64_t begin, int64_t end) const {
    const int64_t N = grid.n, H = grid.height, W = grid.width;
    Filterbank<A> filters(grid);
    const int64_t ldh = filters.fy.ld(), ldw = filters.fx.ld();
    Matrix<A> product(1, N * N), dproduct(1, N * N), rows(N, W), drows(N, W), dpixels(kStrip, W), dfy(N, H), dfx(N, W);
    for (int64_t b = begin; b < end; ++b) {
      filters.set_window(window, b);
      dfy.zero();
      dfx.zero();
      double dlog_gamma = 0;
      for (int64_t c = 0; c < C; ++c) {
        patch.load(product.row(0), N, N, N, b, c);
        scale(product.row(0), N * N, filters.inverse_gamma());
        rows.zero();
        drows.zero();
        dproduct.zero();
        multiply_add(N, N, ldw, rows.row(0), ldw, product.row(0), N, 1, filters.fx.row(0), ldw);
        for (int64_t top = 0; top < H; top += kStrip) {
          const int64_t count = std::min(kStrip, H - top);
          dcanvas.load(dpixels.row(0), ldw, count, W, b, c, top);
          multiply_add(N, count, ldw, drows.row(0), ldw, filters.fy.row(0) + top, ldh, 1, dpixels.row(0), ldw);
          dot_add(N, count, ldw, dfy.row(0) + top, ldh, rows.row(0), ldw, dpixels.row(0), ldw);
        }
        dot_add(N, N, ldw, dproduct.row(0), N, drows.row(0), ldw, filters.fx.row(0), ldw);
        scale(dproduct.row(0), N * N, filters.inverse_gamma());
        dpatch.store(dproduct.row(0), 0, 1, N * N, patch_offset(b, 0, c, 1, C, N));
        multiply_add(N, N, ldw, dfx.row(0), ldw, product.row(0), 1, N, drows.row(0), ldw);
        dlog_gamma -= row_dots(rows, drows, N);
      }
      filters.backward(dfy, dfx, dlog_gamma, dwindow, b);
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
    ReadForward<decltype(compute)> work{grid, C, 1, image, {}, window, patch};
    if (canvas != nullptr) work.parts = 2, work.canvas = *canvas;
    run_parallel(work, B, work.parts * product_cost(grid, C));
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
    ReadBackward<decltype(compute)> work{grid, C, 1, {dpatch, {}}, image, {}, window, {}, {}, dwindow};
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
    const Input<2> flat = dglimpse;
    const int64_t step = flat.strides[1];
    Input<4> dpatch;  // of the image; that of the error lies C n n elements further
    dpatch.data = flat.data;
    dpatch.dtype = dtype;
    dpatch.strides = {flat.strides[0], n * n * step, n * step, step};
    ReadBackward<decltype(compute)> work{grid, C, 2, {dpatch, dpatch}, image, canvas, window, {}, dcanvas, dwindow};
    work.dpatch[1].data += patch_offset(0, 1, 0, 2, C, n) * step * element_size(dtype);
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
    WriteForward<decltype(compute)> work{grid, C, patch, window, {}, out};
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
    const WriteBackward<decltype(compute)> work{grid, C, dcanvas, patch, window, dpatch, dwindow};
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
