// What the rollouts are called with: from torch's stack, checked.
#pragma once

#include <torch/csrc/stable/library.h>

#include <array>
#include <optional>
#include <vector>

#include "cpu/filterbank.h"
#include "cpu/tensor.h"
#include "rollout_sizes.h"
#include "weights.h"

namespace fastdraw {

template <typename A>
inline constexpr ScalarType compute_dtype = sizeof(A) == 8 ? ScalarType::Double : ScalarType::Float;

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
