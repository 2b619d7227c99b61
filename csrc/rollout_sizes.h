// The sizes and options of a rollout, the same on the host and on the device.
#pragma once

#include "index.h"

namespace fastdraw {

struct Sizes {
  int64_t B, C, H, W, T, L, D, A, U, Z;  // L, D, A: 0 without labels
  int64_t n_read, n_write;               // 0: no attention
  bool encoder;                          // false: draw_generate
  FASTDRAW_HD int64_t pixels() const { return C * H * W; }
  FASTDRAW_HD int64_t glimpse() const { return !encoder ? 0 : 2 * (n_read > 0 ? C * n_read * n_read : pixels()); }
  FASTDRAW_HD int64_t patch() const { return n_write > 0 ? C * n_write * n_write : pixels(); }
  FASTDRAW_HD int64_t read_window() const { return encoder && n_read > 0 ? 5 : 0; }
  FASTDRAW_HD int64_t write_window() const { return n_write > 0 ? 5 : 0; }
};

struct Options {
  bool tanh_prior, standard_first, log_variance, per_axis;
  double eps;
  bool bfloat16;  // multiply with weights that are rounded to bfloat16
};

}  // namespace fastdraw
