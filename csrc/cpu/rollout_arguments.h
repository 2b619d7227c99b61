// What the rollouts are called with: from torch's stack, checked.
#pragma once

#include <torch/csrc/stable/library.h>

#include <array>
#include <optional>
#include <vector>

#include "cpu/filterbank.h"
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
  bool bfloat16;  // multiply with weights that are rounded to bfloat16
};

struct RolloutArguments {
  Sizes sizes;
  Options options;
  ScalarType dtype;  // of image, labels, noise and all results; the weights, and their gradients, may have another
  std::optional<Tensor> noise, image, labels;
  std::vector<int64_t> lengths, steps;
  std::array<std::optional<Tensor>, kWeights> weights;  // those that have no part in the call are not looked at
};

// The arguments and results of an op that torch's dispatcher passes, one after the other: so many that a function with
// a parameter for each would hide what they are.
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

// Takes what all four ops share, from the noise to the last option, and checks every size.
RolloutArguments take_arguments(const char* op, Stack& from, bool encoder);

}  // namespace fastdraw
