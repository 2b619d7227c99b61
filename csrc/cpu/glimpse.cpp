// read:   patch[c,i,j]  = gamma sum_{h,w} fy[i,h] image[c,h,w] fx[j,w]
// write:  canvas[c,h,w] = 1/gamma sum_{i,j} fy[i,h] patch[c,i,j] fx[j,w]  [+ canvas]
// draw_read: read of the image (part 0) and of the error image - sigmoid(canvas) (part 1), in one pass over both.
//
// A thread takes whole samples: it makes their filters from the window (again in the backward pass) and goes through the
// image in strips of rows, so that a sample needs N (H + W) + kStrip W numbers of scratch and nothing else is stored.
// Reads C H W (twice that for draw_read) and writes C N N elements per sample, or the reverse. Every sum runs in one
// order, whatever the number of threads.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "cpu/tensor.h"
#include "cpu/filterbank.h"

namespace fastdraw {
namespace {

constexpr int64_t kStrip = 8;  // rows of the image at a time

template <typename T>
struct ReadForward {
  Grid grid;
  int64_t C;
  int parts;
  Strided<T, 4> image, canvas;
  Strided<T, 2> window;
  T* patch;

  void operator()(int64_t begin, int64_t end) const {
    using A = Compute<T>;
    const int64_t N = grid.n;
    Filterbank<A> filters(grid);
    Matrix<A> pixels[2] = {{kStrip, grid.width}, {kStrip, grid.width}};
    Matrix<A> rows[2] = {{N, grid.width}, {N, grid.width}};  // fy @ pixels
    Matrix<A> product(1, N * N);
    for (int64_t b = begin; b < end; ++b) {
      filters.set_window(window.at(b), window.strides[1]);
      for (int64_t c = 0; c < C; ++c) {
        for (int part = 0; part < parts; ++part) rows[part].zero();
        for (int64_t top = 0; top < grid.height; top += kStrip) {
          const int64_t count = std::min(kStrip, grid.height - top);
          for (int64_t h = 0; h < count; ++h) load_strip_row(b, c, top + h, pixels[0].row(h), pixels[1].row(h));
          for (int part = 0; part < parts; ++part) {
            multiply_add(
                N, count, rows[part].ld(), rows[part].row(0), rows[part].ld(), filters.fy.row(0) + top,
                filters.fy.ld(), 1, pixels[part].row(0), pixels[part].ld());
          }
        }
        for (int part = 0; part < parts; ++part) {
          product.zero();
          dot_add(
              N, N, filters.fx.ld(), product.row(0), N, 1, rows[part].row(0), rows[part].ld(), filters.fx.row(0),
              filters.fx.ld());
          for (int64_t ij = 0; ij < N * N; ++ij) product.row(0)[ij] *= filters.gamma();
          store_row(product.row(0), N * N, patch + patch_offset(b, part, c, parts, C, N));
        }
      }
    }
  }

 private:
  void load_strip_row(int64_t b, int64_t c, int64_t h, Compute<T>* __restrict pixel, Compute<T>* __restrict error) const {
    load_row(image.at(b, c, h), image.strides[3], grid.width, pixel);
    if (parts == 1) return;
    load_row(canvas.at(b, c, h), canvas.strides[3], grid.width, error);
#pragma omp simd
    for (int64_t w = 0; w < grid.width; ++w) error[w] = pixel[w] - sigmoid(error[w]).value;
  }
};

template <typename T>
struct ReadBackward {
  Grid grid;
  int64_t C;
  int parts;
  Strided<T, 4> dpatch[2];
  Strided<T, 4> image, canvas;
  Strided<T, 2> window;
  T *dimage, *dcanvas, *dwindow;  // dimage: null where it is not wanted

  // With g = gamma dpatch and s = g @ fx (N, W):
  //   dpixels = fy^T @ s,  dfy = s @ pixels^T,  dfx = g^T @ (fy @ pixels),  dlog_gamma = sum s * (fy @ pixels)
  void operator()(int64_t begin, int64_t end) const {
    using A = Compute<T>;
    const int64_t N = grid.n, H = grid.height, W = grid.width;
    Filterbank<A> filters(grid);
    Matrix<A> pixels[2] = {{kStrip, W}, {kStrip, W}}, slope(kStrip, W), dpixels(kStrip, W);
    Matrix<A> rows[2] = {{N, W}, {N, W}}, drows[2] = {{N, W}, {N, W}}, dsum(N, W);
    Matrix<A> dproduct[2] = {{1, N * N}, {1, N * N}}, dfy(N, H), dfx(N, W);
    const int64_t ldh = filters.fy.ld(), ldw = filters.fx.ld();
    for (int64_t b = begin; b < end; ++b) {
      filters.set_window(window.at(b), window.strides[1]);
      dfy.zero();
      dfx.zero();
      double dlog_gamma = 0;
      for (int64_t c = 0; c < C; ++c) {
        for (int part = 0; part < parts; ++part) {
          A* g = dproduct[part].row(0);
          for (int64_t i = 0; i < N; ++i) load_row(dpatch[part].at(b, c, i), dpatch[part].strides[3], N, g + i * N);
          for (int64_t ij = 0; ij < N * N; ++ij) g[ij] *= filters.gamma();
          rows[part].zero();
          drows[part].zero();
          multiply_add(N, N, ldw, drows[part].row(0), ldw, g, N, 1, filters.fx.row(0), ldw);
        }
        add_drows(drows, dsum);
        for (int64_t top = 0; top < H; top += kStrip) {
          const int64_t count = std::min(kStrip, H - top);
          for (int64_t h = 0; h < count; ++h) {
            load_strip_row(b, c, top + h, pixels[0].row(h), pixels[1].row(h), slope.row(h));
          }
          const A* fy = filters.fy.row(0) + top;
          for (int part = 0; part < parts; ++part) {
            multiply_add(N, count, ldw, rows[part].row(0), ldw, fy, ldh, 1, pixels[part].row(0), ldw);
            dot_add(N, count, ldw, dfy.row(0) + top, ldh, 1, drows[part].row(0), ldw, pixels[part].row(0), ldw);
          }
          if (dimage != nullptr) {
            dpixels.zero();
            multiply_add(count, N, ldw, dpixels.row(0), ldw, fy, 1, ldh, dsum.row(0), ldw);
            for (int64_t h = 0; h < count; ++h) store_row(dpixels.row(h), W, dimage + ((b * C + c) * H + top + h) * W);
          }
          if (parts == 2) {
            dpixels.zero();
            multiply_add(count, N, ldw, dpixels.row(0), ldw, fy, 1, ldh, drows[1].row(0), ldw);
            for (int64_t h = 0; h < count; ++h) {
              A* d = dpixels.row(h);
              for (int64_t w = 0; w < W; ++w) d[w] *= -slope.row(h)[w];
              store_row(d, W, dcanvas + ((b * C + c) * H + top + h) * W);
            }
          }
        }
        for (int part = 0; part < parts; ++part) {
          multiply_add(N, N, ldw, dfx.row(0), ldw, dproduct[part].row(0), 1, N, rows[part].row(0), ldw);
          for (int64_t i = 0; i < N; ++i) {
            dlog_gamma += static_cast<double>(dot(ldw, rows[part].row(i), drows[part].row(i)));
          }
        }
      }
      filters.backward(dfy, dfx, dlog_gamma, dwindow + b * 5);
    }
  }

 private:
  // Both parts read the image, so that its gradient is that of their sum.
  void add_drows(const Matrix<Compute<T>>* drows, Matrix<Compute<T>>& dsum) const {
    const int64_t size = grid.n * dsum.ld();
    std::copy_n(drows[0].row(0), size, dsum.row(0));
    if (parts == 2) {
      for (int64_t k = 0; k < size; ++k) dsum.row(0)[k] += drows[1].row(0)[k];
    }
  }

  void load_strip_row(
      int64_t b, int64_t c, int64_t h, Compute<T>* __restrict pixel, Compute<T>* __restrict error,
      Compute<T>* __restrict slope) const {
    load_row(image.at(b, c, h), image.strides[3], grid.width, pixel);
    if (parts == 1) return;
    load_row(canvas.at(b, c, h), canvas.strides[3], grid.width, error);
#pragma omp simd
    for (int64_t w = 0; w < grid.width; ++w) {
      const Sigmoid<Compute<T>> mean = sigmoid(error[w]);
      error[w] = pixel[w] - mean.value;
      slope[w] = mean.slope;
    }
  }
};

template <typename T>
struct WriteForward {
  Grid grid;
  int64_t C;
  Strided<T, 4> patch;
  Strided<T, 2> window;
  Strided<T, 4> canvas;  // null where there is none
  T* out;

  void operator()(int64_t begin, int64_t end) const {
    using A = Compute<T>;
    const int64_t N = grid.n, H = grid.height, W = grid.width;
    Filterbank<A> filters(grid);
    Matrix<A> product(1, N * N), rows(N, W), pixels(kStrip, W), before(1, W);
    const int64_t ldh = filters.fy.ld(), ldw = filters.fx.ld();
    for (int64_t b = begin; b < end; ++b) {
      filters.set_window(window.at(b), window.strides[1]);
      for (int64_t c = 0; c < C; ++c) {
        A* p = product.row(0);
        for (int64_t i = 0; i < N; ++i) load_row(patch.at(b, c, i), patch.strides[3], N, p + i * N);
        for (int64_t ij = 0; ij < N * N; ++ij) p[ij] *= filters.inverse_gamma();
        rows.zero();
        multiply_add(N, N, ldw, rows.row(0), ldw, p, N, 1, filters.fx.row(0), ldw);
        for (int64_t top = 0; top < H; top += kStrip) {
          const int64_t count = std::min(kStrip, H - top);
          pixels.zero();
          multiply_add(count, N, ldw, pixels.row(0), ldw, filters.fy.row(0) + top, 1, ldh, rows.row(0), ldw);
          for (int64_t h = 0; h < count; ++h) {
            A* pixel = pixels.row(h);
            if (canvas.data != nullptr) {
              load_row(canvas.at(b, c, top + h), canvas.strides[3], W, before.row(0));
              for (int64_t w = 0; w < W; ++w) pixel[w] += before.row(0)[w];
            }
            store_row(pixel, W, out + ((b * C + c) * H + top + h) * W);
          }
        }
      }
    }
  }
};

template <typename T>
struct WriteBackward {
  Grid grid;
  int64_t C;
  Strided<T, 4> dcanvas, patch;
  Strided<T, 2> window;
  T *dpatch, *dwindow;

  // With p = patch / gamma, t = p @ fx (N, W) and g = fy @ dcanvas (N, W):
  //   dpatch = g @ fx^T / gamma,  dfx = p^T @ g,  dfy = t @ dcanvas^T,  dlog_gamma = -sum g * t
  void operator()(int64_t begin, int64_t end) const {
    using A = Compute<T>;
    const int64_t N = grid.n, H = grid.height, W = grid.width;
    Filterbank<A> filters(grid);
    Matrix<A> product(1, N * N), dproduct(1, N * N), rows(N, W), drows(N, W), dpixels(kStrip, W), dfy(N, H), dfx(N, W);
    const int64_t ldh = filters.fy.ld(), ldw = filters.fx.ld();
    for (int64_t b = begin; b < end; ++b) {
      filters.set_window(window.at(b), window.strides[1]);
      dfy.zero();
      dfx.zero();
      double dlog_gamma = 0;
      for (int64_t c = 0; c < C; ++c) {
        A *p = product.row(0), *dp = dproduct.row(0);
        for (int64_t i = 0; i < N; ++i) load_row(patch.at(b, c, i), patch.strides[3], N, p + i * N);
        for (int64_t ij = 0; ij < N * N; ++ij) p[ij] *= filters.inverse_gamma();
        rows.zero();
        drows.zero();
        dproduct.zero();
        multiply_add(N, N, ldw, rows.row(0), ldw, p, N, 1, filters.fx.row(0), ldw);
        for (int64_t top = 0; top < H; top += kStrip) {
          const int64_t count = std::min(kStrip, H - top);
          for (int64_t h = 0; h < count; ++h) {
            load_row(dcanvas.at(b, c, top + h), dcanvas.strides[3], W, dpixels.row(h));
          }
          multiply_add(N, count, ldw, drows.row(0), ldw, filters.fy.row(0) + top, ldh, 1, dpixels.row(0), ldw);
          dot_add(N, count, ldw, dfy.row(0) + top, ldh, 1, rows.row(0), ldw, dpixels.row(0), ldw);
        }
        dot_add(N, N, ldw, dp, N, 1, drows.row(0), ldw, filters.fx.row(0), ldw);
        for (int64_t ij = 0; ij < N * N; ++ij) dp[ij] *= filters.inverse_gamma();
        store_row(dp, N * N, dpatch + patch_offset(b, 0, c, 1, C, N));
        multiply_add(N, N, ldw, dfx.row(0), ldw, p, 1, N, drows.row(0), ldw);
        for (int64_t i = 0; i < N; ++i) dlog_gamma -= static_cast<double>(dot(ldw, rows.row(i), drows.row(i)));
      }
      filters.backward(dfy, dfx, dlog_gamma, dwindow + b * 5);
    }
  }
};

FASTDRAW_RUN_RANGE(ReadForward)
FASTDRAW_RUN_RANGE(ReadBackward)
FASTDRAW_RUN_RANGE(WriteForward)
FASTDRAW_RUN_RANGE(WriteBackward)

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
    const char* op, const Tensor& image, const Tensor* canvas, const Tensor& window, int64_t n, bool per_axis, double eps) {
  const auto [B, C, H, W] = image_shape(op, "image", image);
  const Grid grid = make_grid(op, n, H, W, per_axis, eps);
  const ScalarType dtype = image.scalar_type();
  check_tensor(op, "window", window, dtype, {B, 5});
  if (canvas != nullptr) check_tensor(op, "canvas", *canvas, dtype, {B, C, H, W});
  const Tensor patch = canvas == nullptr ? new_empty(image, {B, C, n, n}) : new_empty(image, {B, 2 * C * n * n});
  with_dtype(op, dtype, [&, C = C, B = B](auto element) {
    using T = decltype(element);
    ReadForward<T> work{grid, C, 1, image, {}, window, output<T>(patch)};
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
  with_dtype(op, dtype, [&, C = C, B = B](auto element) {
    using T = decltype(element);
    const ReadBackward<T> work{
        grid, C, 1, {dpatch, {}}, image, {}, window, need_dimage ? output<T>(dimage) : nullptr, nullptr,
        output<T>(dwindow)};
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
  with_dtype(op, dtype, [&, C = C, B = B](auto element) {
    using T = decltype(element);
    const Strided<T, 2> flat = dglimpse;
    const int64_t step = flat.strides[1];
    const std::array<int64_t, 4> strides = {flat.strides[0], n * n * step, n * step, step};
    const ReadBackward<T> work{
        grid, C, 2, {{flat.data, strides}, {flat.data + patch_offset(0, 1, 0, 2, C, n) * step, strides}}, image, canvas,
        window, need_dimage ? output<T>(dimage) : nullptr, output<T>(dcanvas), output<T>(dwindow)};
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
  with_dtype(op, dtype, [&, C = C, B = B](auto element) {
    using T = decltype(element);
    WriteForward<T> work{grid, C, patch, window, {}, output<T>(out)};
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
  with_dtype(op, dtype, [&, C = C, B = B](auto element) {
    using T = decltype(element);
    const WriteBackward<T> work{grid, C, dcanvas, patch, window, output<T>(dpatch), output<T>(dwindow)};
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
