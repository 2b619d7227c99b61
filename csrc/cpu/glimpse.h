// Reading and writing glimpses, one sample at a time: the loops that the ops and the rollout share.
//
//   read:   patch[c,i,j]  = gamma sum_{h,w} fy[i,h] image[c,h,w] fx[j,w]
//   write:  canvas[c,h,w] = 1/gamma sum_{i,j} fy[i,h] patch[c,i,j] fx[j,w]  [+ canvas]
#pragma once

#include "cpu/filterbank.h"

namespace fastdraw {

// error = image - sigmoid(canvas) of `count` rows, and the slope of the sigmoid, both in rows of ld.
void make_error(
    int64_t count, int64_t width, const float* image, const float* canvas, float* error, float* slope, int64_t ld);
void make_error(
    int64_t count, int64_t width, const double* image, const double* canvas, double* error, double* slope, int64_t ld);

// From the gradient of the error, in rows of ld, what is added to dimage (unless null) and to dcanvas.
void error_gradient(
    int64_t count, int64_t width, const float* derror, const float* slope, int64_t ld, float* dimage, float* dcanvas);
void error_gradient(
    int64_t count, int64_t width, const double* derror, const double* slope, int64_t ld, double* dimage,
    double* dcanvas);

// Reads and writes glimpses of one sample at a time in scratch memory of its own. All arrays are contiguous, of the
// compute type A, with no alignment assumed.
template <typename A>
class Glimpse {
 public:
  // error: draw_read's two parts, the image and the error image - sigmoid(canvas); else one.
  Glimpse(const Grid& grid, int64_t C, bool error);

  // Makes the filters of a window: 5 numbers that were stored as `dtype`.
  void set_window(const A* window, ScalarType dtype) { filters_.set_window(window, dtype); }

  // patch (parts, C, N, N) from image (C, H, W) and, with two parts, the logits canvas (C, H, W).
  void read(const A* image, const A* canvas, A* patch);

  // dwindow (5) is written. dimage (C, H, W; null: not wanted) and dcanvas (C, H, W; null with one part) are added to.
  void read_bwd(const A* dpatch, const A* image, const A* canvas, A* dimage, A* dcanvas, A* dwindow);

  // out (C, H, W) = canvas + written; canvas may be null (nothing to add to), and may be out itself.
  void write(const A* patch, const A* canvas, A* out);

  // dpatch (C, N, N) and dwindow (5) are written.
  void write_bwd(const A* dcanvas, const A* patch, A* dpatch, A* dwindow);

 private:
  struct Strip {
    const A* pixels;
    int64_t ld;
  };
  Strip whole_rows(const A* image, int64_t count);
  Strip error_rows(const A* image, const A* canvas, int64_t count);
  void spread(const Matrix<A>& rows, int64_t top, int64_t count, const A* base, A* to);
  void scaled_copy(const A* patch, A factor);

  int64_t N_, H_, W_, C_, parts_;
  int64_t width_;  // W in whole vectors
  Filterbank<A> filters_;
  Matrix<A> pixels_, slope_, dpixels_;  // a strip
  Matrix<A> product_;                   // N N
  Matrix<A> rows_, drows_;              // (N, W)
  Matrix<A> dfy_, dfx_;
};

}  // namespace fastdraw
