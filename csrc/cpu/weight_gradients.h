// The gradients of weights from what flowed into all that they made: one product over all rows for each.
#pragma once

#include <array>
#include <optional>

#include "cpu/layout.h"

namespace fastdraw {

template <typename A>
class WeightGradients {
  // In the compute type, and in the end in the dtype of the weight.
  struct Gradient {
    Tensor value, result;
  };
  const RolloutArguments& given_;
  std::array<std::optional<Gradient>, kWeights> found_;

 public:
  explicit WeightGradients(const RolloutArguments& given) : given_(given) {}

  // Memory for the gradient of a weight, to be written.
  A* of(Weight weight);

  // Of a Linear: `inputs` is what it multiplied, dresult the gradient of what it made, in as many rows.
  void add(const Linear& linear, const PackedRows<A>& inputs, const Rows<A>& dresult);

  // The sum of `rows` rows of a gradient, as the gradient of what was added to each of them.
  void add_sum(Weight weight, int64_t size, const Rows<A>& from, int64_t rows);

  // In the order of the weights; an empty tensor for those that have no part in the call.
  std::vector<Tensor> finish() const;
};

}  // namespace fastdraw
