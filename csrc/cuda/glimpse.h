#pragma once

// Reading and writing glimpses on CUDA, one sample by one block: the class that the ops and the rollout share;
// equations in glimpse.cu.

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/filterbank.h"
#include "cuda/product.h"
#include "cuda/rows.h"

namespace fastdraw {

struct GlimpseShape {
  int C, H, W, N;
  bool per_axis;
  double eps;
};

// How a block goes about glimpses of one shape. Made on the host, because much of it takes divisions.
struct GlimpsePlan {
  GlimpseShape shape;
  int parts;          // 2: draw_read's, the image and its error image - sigmoid(canvas); else 1
  bool backward;      // whether there is memory for the backward pass
  int rows, columns;  // of a tile: what lies in shared memory of an image at a time; whole fours
  size_t bytes;       // of shared memory
  Divisor side, fours;
  Sharing of_rows, of_patch, of_spread, of_pixels, of_dfy, of_dfx;  // the products with these results
};

// All threads of a block call every function that takes it, and wait at its end. Arrays are contiguous, of any dtype,
// in global or in shared memory.
template <typename A>
class BlockGlimpse {
  GlimpsePlan plan_;
  BlockFilters<A> filters_;
  int ld_filters_, ld_pixels_, ld_rows_, ld_weighted_;
  A *fy_, *fx_;  // of the tile, pixel after pixel: its N filters; fx lies behind fy
  A* pixels_;    // rows of the tile: the columns of the first part, then those of the second
  A* square_;    // N x N of each part, one below the other
  A* patch_;     // the same, summed up over the tiles
  A* rows_;      // fy @ pixels: N x columns of each part, one below the other
  A* partials_;
  A* spread_;    // square @ fx: N rows, the columns of the first part, then those of the second
  A* weighted_;  // the gradients of the N filters times the filters

 public:
  FASTDRAW_HD BlockGlimpse(Arena& arena, const GlimpsePlan& plan)
      : plan_(plan),
        filters_(arena, {plan.shape.H, plan.shape.W, plan.shape.N, plan.shape.per_axis, plan.shape.eps}, plan.backward),
        ld_filters_(padded<A>(plan.shape.N)),
        ld_pixels_(padded<A>(plan.parts * plan.columns)),
        ld_rows_(padded<A>(plan.columns)),
        ld_weighted_(padded<A>(plan.rows > plan.columns ? plan.rows : plan.columns)),
        fy_(arena.take<A>((plan.rows + plan.columns) * ld_filters_)),
        fx_(fy_ + plan.rows * ld_filters_),
        pixels_(arena.take<A>(plan.rows * ld_pixels_)),
        square_(arena.take<A>(stacked() * ld_filters_)),
        patch_(square_),
        rows_(arena.take<A>(stacked() * ld_rows_)),
        partials_(arena.take<A>(Sharing::kBytes / sizeof(A))),
        spread_(rows_),
        weighted_(nullptr) {
    if (!plan.backward) return;  // a read has no square and no spread
    spread_ = arena.take<A>(side() * ld_pixels_);
    weighted_ = arena.take<A>(side() * ld_weighted_);
    if (plan.parts == 1 && plan.columns < plan.shape.W) patch_ = arena.take<A>(side() * ld_filters_);
  }

  // Makes the filters of a window, 5 numbers. T: the dtype that the glimpse is stored in.
  template <typename T, typename W>
  FASTDRAW_DEVICE void set_window(const Block& block, const W* window) {
    filters_.set_window(block, window, kLargestGamma<T>);
    if (all_rows() || all_columns()) make_filters(block, 0, 0, all_rows(), all_columns());
  }

  // patch (parts, C, N, N) from image (C, H, W) and, with two parts, the logits canvas (C, H, W).
  template <typename Image, typename Canvas, typename Patch>
  FASTDRAW_DEVICE void read(const Block& block, const Image* image, const Canvas* canvas, Patch* patch) {
    const auto [C, H, W, N, per_axis, eps] = plan_.shape;
    for (int c = 0; c < C; ++c) {
      const int64_t first = int64_t{c} * H * W;
      const Canvas* const canvas_c = canvas == nullptr ? nullptr : canvas + first;
      read_channel(block, image + first, canvas_c, patch + int64_t{c} * N * N, int64_t{C} * N * N);
    }
  }

  // One channel; the parts of the patch are `apart` from each other.
  template <typename Image, typename Canvas, typename Patch>
  FASTDRAW_DEVICE void read_channel(
      const Block& block, const Image* image, const Canvas* canvas, Patch* patch, int64_t apart) {
    for (int left = 0; left < plan_.shape.W; left += plan_.columns) {
      if (!all_columns()) make_filters(block, 0, left, false, true);
      for (int top = 0; top < plan_.shape.H; top += plan_.rows) {
        if (!all_rows()) make_filters(block, top, 0, true, false);
        load_pixels(block, top, left, image, canvas);
        add_rows(block, top);
      }
      add_patch(block, left, filters_.gamma(), patch, apart);
    }
  }

  // dwindow (5) is written, once for each window. Gradients of image and canvas (C, H, W; null: not wanted) are written
  // too, or with kAdd added to what is there.
  template <bool kAdd, typename DPatch, typename Image, typename Canvas, typename DImage, typename DCanvas, typename W>
  FASTDRAW_DEVICE void read_bwd(
      const Block& block, const DPatch* dpatch, const Image* image, const Canvas* canvas, DImage* dimage,
      DCanvas* dcanvas, W* dwindow) {
    const auto [C, height, width, N, per_axis, eps] = plan_.shape;
    for (int c = 0; c < C; ++c) {
      const int64_t first = int64_t{c} * height * width;
      const auto channel = [first](auto* array) { return array == nullptr ? nullptr : array + first; };
      load_square(block, dpatch + int64_t{c} * N * N, int64_t{C} * N * N, filters_.gamma());
      for (int left = 0; left < width; left += plan_.columns) {
        if (!all_columns()) make_filters(block, 0, left, false, true);
        make_spread(block);
        for (int top = 0; top < height; top += plan_.rows) {
          if (!all_rows()) make_filters(block, top, 0, true, false);
          load_pixels(block, top, left, image + first, channel(canvas));
          add_rows(block, top);
          add_fy_gradient(block, top);
          if (dcanvas != nullptr) write_dcanvas<kAdd>(block, top, left, canvas + first, dcanvas + first);
          if (dimage != nullptr) {
            write_pixels(block, top, left, kAdd ? dimage + first : nullptr, dimage + first);
          }
        }
        add_fx_gradient(block, left);
      }
    }
    filters_.window_gradient(block, 1, dwindow);
  }

  // out (C, H, W) = canvas + written; canvas may be null (nothing to add to), and may be out itself.
  template <typename Patch, typename Canvas, typename Out>
  FASTDRAW_DEVICE void write(const Block& block, const Patch* patch, const Canvas* canvas, Out* out) {
    const auto [C, H, W, N, per_axis, eps] = plan_.shape;
    for (int c = 0; c < C; ++c) {
      const int64_t first = int64_t{c} * H * W;
      write_channel(block, patch + int64_t{c} * N * N, canvas == nullptr ? nullptr : canvas + first, out + first);
    }
  }

  template <typename Patch, typename Canvas, typename Out>
  FASTDRAW_DEVICE void write_channel(const Block& block, const Patch* patch, const Canvas* canvas, Out* out) {
    load_square(block, patch, 0, filters_.inverse_gamma());
    for (int left = 0; left < plan_.shape.W; left += plan_.columns) {
      if (!all_columns()) make_filters(block, 0, left, false, true);
      make_spread(block);
      for (int top = 0; top < plan_.shape.H; top += plan_.rows) {
        if (!all_rows()) make_filters(block, top, 0, true, false);
        write_pixels(block, top, left, canvas, out);
      }
    }
  }

  // dpatch (C, N, N) and dwindow (5) are written, dwindow once for each window.
  template <typename DCanvas, typename Patch, typename DPatch, typename W>
  FASTDRAW_DEVICE void write_bwd(
      const Block& block, const DCanvas* dcanvas, const Patch* patch, DPatch* dpatch, W* dwindow) {
    const auto [C, height, width, N, per_axis, eps] = plan_.shape;
    for (int c = 0; c < C; ++c) {
      const int64_t first = int64_t{c} * N * N;
      const DCanvas* const pixels = dcanvas + int64_t{c} * height * width;
      load_square(block, patch + first, 0, filters_.inverse_gamma());
      for (int left = 0; left < width; left += plan_.columns) {
        if (!all_columns()) make_filters(block, 0, left, false, true);
        make_spread(block);
        for (int top = 0; top < height; top += plan_.rows) {
          if (!all_rows()) make_filters(block, top, 0, true, false);
          load_pixels(block, top, left, pixels, pixels);
          add_rows(block, top);
          add_fy_gradient(block, top);
        }
        add_patch(block, left, filters_.inverse_gamma(), dpatch + first, 0);
        add_fx_gradient(block, left);
      }
    }
    filters_.window_gradient(block, -1, dwindow);
  }

 private:
  // Of a square, in whole tiles.
  FASTDRAW_HD int side() const { return plan_.side.by; }
  FASTDRAW_HD int stacked() const { return plan_.parts * side(); }
  FASTDRAW_DEVICE bool all_rows() const { return plan_.rows >= plan_.shape.H; }
  FASTDRAW_DEVICE bool all_columns() const { return plan_.columns >= plan_.shape.W; }

  // The N filters of the tile's pixels, of one axis or both; 0 beyond the image and beyond the filters.
  FASTDRAW_DEVICE void make_filters(const Block& block, int top, int left, bool of_y, bool of_x) {
    const auto [C, H, W, N, per_axis, eps] = plan_.shape;
    const int first = of_y ? 0 : plan_.rows, last = of_x ? plan_.rows + plan_.columns : plan_.rows;
    block.each((last - first) * side(), [&, H = H, W = W, N = N](int k) {
      const int pixel = first + plan_.side.quotient(k), i = plan_.side.rest(k);
      const bool is_x = pixel >= plan_.rows;
      const int a = is_x ? left + pixel - plan_.rows : top + pixel;
      const bool is_inside = i < N && a < (is_x ? W : H);
      fy_[pixel * ld_filters_ + i] = is_inside ? filters_.value(is_x ? N + i : i, a) : A(0);
    });
  }

  // Of the four pixels from column w on, those that lie in the image.
  FASTDRAW_DEVICE int inside(int h, int w) const {
    const int left = plan_.shape.W - w;
    return h >= plan_.shape.H || left < 0 ? 0 : left < kTile ? left : kTile;
  }

  // The tile of an image (H, W); 0 beyond it. With two parts also that of its error.
  template <typename Image, typename Canvas>
  FASTDRAW_DEVICE void load_pixels(const Block& block, int top, int left, const Image* image, const Canvas* canvas) {
    const int W = plan_.shape.W;
    const bool fit = fits<kTile>(W, image) && (plan_.parts == 1 || fits<kTile>(W, canvas));
    block.each(plan_.rows * plan_.fours.by, [&](int k) {
      const int h = plan_.fours.quotient(k), w = plan_.fours.rest(k) * kTile, count = inside(top + h, left + w);
      const int64_t from = int64_t{top + h} * W + left + w;
      const bool whole = fit && count > 0;
      A* const to = pixels_ + h * ld_pixels_ + w;
      const auto pixels = load_wide<kTile>(image, from, count, whole);
      store_four(to, pixels.lane);
      if (plan_.parts == 1) return;
      auto errors = load_wide<kTile>(canvas, from, count, whole);
#pragma unroll
      for (int q = 0; q < kTile; ++q) {
        errors.lane[q] = q < count ? pixels.lane[q] - sigmoid(errors.lane[q]).value : A(0);
      }
      store_four(to + plan_.columns, errors.lane);
    });
  }

  // rows (+)= fy @ pixels, for both parts at once.
  FASTDRAW_DEVICE void add_rows(const Block& block, int top) {
    multiply(
        block, plan_.of_rows, Across<A>{fy_, ld_filters_}, Across<A>{pixels_, ld_pixels_}, partials_,
        [&](int i, int tile, const A(&sums)[kTile]) {
          const int column = tile * kTile, w = column < plan_.columns ? column : column - plan_.columns;
          A* const to = rows_ + (column < plan_.columns ? i : side() + i) * ld_rows_ + w;
          A four[kTile]{};
          if (top > 0) load_four(to, four);
#pragma unroll
          for (int q = 0; q < kTile; ++q) four[q] += sums[q];
          store_four(to, four);
        });
  }

  // patch (+)= rows @ fx^T; times `factor` it goes out after the last tile.
  template <typename Patch>
  FASTDRAW_DEVICE void add_patch(const Block& block, int left, A factor, Patch* patch, int64_t apart) {
    const int N = plan_.shape.N;
    const bool is_last = left + plan_.columns >= plan_.shape.W;
    multiply(
        block, plan_.of_patch, Along<A>{rows_, ld_rows_, stacked() / kTile}, Across<A>{fx_, ld_filters_}, partials_,
        [&](int row, int tile, const A(&sums)[kTile]) {
          const int part = row < side() ? 0 : 1, i = row - part * side();
#pragma unroll
          for (int q = 0; q < kTile; ++q) {
            const int j = tile * kTile + q;
            if (i >= N || j >= N) continue;
            A* const so_far = patch_ + row * ld_filters_ + j;
            const A sum = left == 0 ? sums[q] : *so_far + sums[q];
            if (is_last) {
              narrow(sum * factor, patch[part * apart + i * N + j]);
            } else {
              *so_far = sum;
            }
          }
        });
  }

  // square = factor * patch, whose parts are `apart` from each other; 0 beyond the patch.
  template <typename Patch>
  FASTDRAW_DEVICE void load_square(const Block& block, const Patch* patch, int64_t apart, A factor) {
    const int N = plan_.shape.N;
    block.each(stacked() * side(), [&](int k) {
      const int row = plan_.side.quotient(k), j = plan_.side.rest(k), part = row < side() ? 0 : 1;
      const int i = row - part * side();
      const bool is_inside = i < N && j < N;
      square_[row * ld_filters_ + j] = is_inside ? factor * widen(patch[part * apart + i * N + j]) : A(0);
    });
  }

  // spread = square @ fx.
  FASTDRAW_DEVICE void make_spread(const Block& block) {
    const int apart = plan_.columns / kTile;
    multiply(
        block, plan_.of_spread, Along<A>{square_, ld_filters_, stacked() / kTile}, Along<A>{fx_, ld_filters_, apart},
        partials_, [&](int row, int tile, const A(&sums)[kTile]) {
          A* const to = spread_ + (row < side() ? row * ld_pixels_ : (row - side()) * ld_pixels_ + plan_.columns);
#pragma unroll
          for (int q = 0; q < kTile; ++q) to[tile + q * apart] = sums[q];
        });
  }

  // The spread of one part, or the sum of both.
  struct Spread {
    Across<A> first, second;
    bool both;

    FASTDRAW_DEVICE void load(int tile, int k, A (&terms)[kTile][kTile]) const {
      first.load(tile, k, terms);
      if (!both) return;
      A others[kTile][kTile];
      second.load(tile, k, others);
#pragma unroll
      for (int p = 0; p < kTile; ++p) {
#pragma unroll
        for (int q = 0; q < kTile; ++q) terms[p][q] += others[p][q];
      }
    }
  };

  // to (+)= fy^T @ spread, of both parts, for a tile of an image. Summed apart from what it is added to, so that a
  // faint stroke is not rounded at every filter.
  template <typename Base, typename To>
  FASTDRAW_DEVICE void write_pixels(const Block& block, int top, int left, const Base* base, To* to) {
    const int W = plan_.shape.W;
    const bool fit = fits<kTile>(W, base) && fits<kTile>(W, to);
    const Spread spread{{spread_, ld_pixels_}, {spread_ + plan_.columns, ld_pixels_}, plan_.parts == 2};
    each_four(block, top, left, spread, [&](int64_t at, int count, const A(&sums)[kTile]) {
      Pack<A, kTile> four{};
      if (base != nullptr) four = load_wide<kTile>(base, at, count, fit);
#pragma unroll
      for (int q = 0; q < kTile; ++q) four.lane[q] += sums[q];
      store_narrow<kTile>(to, at, four, count, fit);
    });
  }

  // dcanvas (+)= -fy^T @ spread * the slope of the sigmoid, of the error's part.
  template <bool kAdd, typename Canvas, typename DCanvas>
  FASTDRAW_DEVICE void write_dcanvas(const Block& block, int top, int left, const Canvas* canvas, DCanvas* dcanvas) {
    const int W = plan_.shape.W;
    const bool fit = fits<kTile>(W, canvas) && fits<kTile>(W, dcanvas);
    const Across<A> spread{spread_ + plan_.columns, ld_pixels_};
    each_four(block, top, left, spread, [&](int64_t at, int count, const A(&sums)[kTile]) {
      const auto logits = load_wide<kTile>(canvas, at, count, fit);
      Pack<A, kTile> four{};
      if (kAdd) four = load_wide<kTile>(dcanvas, at, count, fit);
#pragma unroll
      for (int q = 0; q < kTile; ++q) four.lane[q] -= sums[q] * sigmoid(logits.lane[q]).slope;
      store_narrow<kTile>(dcanvas, at, four, count, fit);
    });
  }

  // store(at, count, sums) for the first `count` of four pixels that lie at `at` in an image, with the sums of
  // fy^T @ spread.
  template <typename Right, typename Store>
  FASTDRAW_DEVICE void each_four(const Block& block, int top, int left, const Right& spread, const Store& store) {
    multiply(
        block, plan_.of_pixels, Along<A>{fy_, ld_filters_, plan_.rows / kTile}, spread, partials_,
        [&](int h, int tile, const A(&sums)[kTile]) {
          const int w = left + tile * kTile, count = inside(top + h, w);
          if (count > 0) store(int64_t{top + h} * plan_.shape.W + w, count, sums);
        });
  }

  // dfy = spread @ pixels^T, of both parts.
  FASTDRAW_DEVICE void add_fy_gradient(const Block& block, int top) {
    const int apart = plan_.rows / kTile;
    multiply(
        block, plan_.of_dfy, Along<A>{spread_, ld_pixels_, side() / kTile}, Along<A>{pixels_, ld_pixels_, apart},
        partials_, [&](int i, int tile, const A(&sums)[kTile]) {
#pragma unroll
          for (int q = 0; q < kTile; ++q) {
            const int h = tile + q * apart;
            weighted_[i * ld_weighted_ + h] = sums[q] * fy_[h * ld_filters_ + i];
          }
        });
    add_gradients(block, 0, top, plan_.shape.H, plan_.rows);
  }

  // dfx = square^T @ rows, of both parts.
  FASTDRAW_DEVICE void add_fx_gradient(const Block& block, int left) {
    multiply(
        block, plan_.of_dfx, Across<A>{square_, ld_filters_}, Across<A>{rows_, ld_rows_}, partials_,
        [&](int j, int tile, const A(&sums)[kTile]) {
          A weighted[kTile];
#pragma unroll
          for (int q = 0; q < kTile; ++q) weighted[q] = sums[q] * fx_[(tile * kTile + q) * ld_filters_ + j];
          store_four(weighted_ + j * ld_weighted_ + tile * kTile, weighted);
        });
    add_gradients(block, plan_.shape.N, left, plan_.shape.W, plan_.columns);
  }

  FASTDRAW_DEVICE void add_gradients(const Block& block, int filter, int first, int length, int most) {
    const int count = first + most < length ? most : length - first;
    block.each_warp(plan_.shape.N, [&](int i, const Warp& warp) {
      const A* const weighted = weighted_ + i * ld_weighted_;
      filters_.add_gradient(warp, filter + i, first, count, [&](int a) -> double { return weighted[a]; });
    });
  }
};

// A plan that needs at most `most` bytes, if there is one: of large tiles, but so that blocks can share a
// multiprocessor.
template <typename A>
GlimpsePlan plan_glimpse(const GlimpseShape& shape, int parts, bool backward, size_t most);

// Instantiated for float, double, __nv_bfloat16 and __half. Arrays are contiguous and on the current device; outputs
// overlap with no input.

// patch (B, parts, C, N, N) from image, canvas (B, C, H, W; null with one part) and window (B, 5)
template <typename T>
void launch_glimpse_read_fwd(
    T* patch, const T* image, const T* canvas, const T* window, int64_t B, const GlimpsePlan& plan,
    cudaStream_t stream);

// dimage (B, C, H, W; null: not wanted), dcanvas (the same; null with one part) and dwindow (B, 5) from dpatch and the
// forward pass's inputs
template <typename T>
void launch_glimpse_read_bwd(
    T* dimage, T* dcanvas, T* dwindow, const T* dpatch, const T* image, const T* canvas, const T* window, int64_t B,
    const GlimpsePlan& plan, cudaStream_t stream);

// out (B, C, H, W) from patch (B, C, N, N), window (B, 5) and canvas (B, C, H, W; may be null)
template <typename T>
void launch_glimpse_write_fwd(
    T* out, const T* patch, const T* canvas, const T* window, int64_t B, const GlimpsePlan& plan, cudaStream_t stream);

// dpatch (B, C, N, N) and dwindow (B, 5) from dcanvas (B, C, H, W), patch and window
template <typename T>
void launch_glimpse_write_bwd(
    T* dpatch, T* dwindow, const T* dcanvas, const T* patch, const T* window, int64_t B, const GlimpsePlan& plan,
    cudaStream_t stream);

}  // namespace fastdraw
