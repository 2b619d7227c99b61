#include "cpu/weight_gradients.h"

namespace fastdraw {
namespace {

// c (M, columns) = a^T (M, K) x packed (K, columns)
template <typename A>
struct Piece {
  int64_t M, columns;
  const A* a;
  const A* packed;
  A* c;
  int64_t ldc;
};

}  // namespace

template <typename A>
A* WeightGradients<A>::of(Weight weight) {
  if (!found_[weight]) {
    const Tensor& like = *given_.weights[weight];
    const Tensor value = torch::stable::new_empty(like, like.sizes(), compute_dtype<A>);
    const bool same = like.scalar_type() == compute_dtype<A>;
    found_[weight] = {value, same ? value : torch::stable::new_empty(like, like.sizes())};
  }
  return static_cast<A*>(found_[weight]->value.mutable_data_ptr());
}

template <typename A>
void WeightGradients<A>::add(const Linear& linear, const PackedRows<A>& inputs, const Rows<A>& dresult) {
  const int64_t K = inputs.rows();
  std::vector<Piece<A>> pieces;
  for (const Block& block : linear.blocks) {
    const int64_t ld = given_.weights[block.weight]->size(1);
    A* const to = of(block.weight) + block.from;
    for (int64_t m = 0; m < block.outputs; m += kTransposedRows) {
      const int64_t M = std::min(kTransposedRows, block.outputs - m);
      pieces.push_back({M, block.inputs, dresult.data + block.column + m, inputs.column(block.row), to + m * ld, ld});
    }
  }
  const auto work = [&](int64_t begin, int64_t end) {
    const Buffer<A> scratch(kTransposedScratch);
    for (int64_t k = begin; k < end; ++k) {
      const Piece<A>& at = pieces[k];
      multiply_transposed(at.M, K, at.columns, at.a, dresult.ld, at.packed, at.c, at.ldc, scratch.get());
    }
  };
  run_parallel(work, pieces.size(), K * kTransposedRows * 16);
  for (const Bias& bias : linear.biases) add_sum(bias.weight, bias.size, dresult.from(bias.column), K);
}

template <typename A>
void WeightGradients<A>::add_sum(Weight weight, int64_t size, const Rows<A>& from, int64_t rows) {
  constexpr int64_t kTogether = 64;  // rows whose sum is rounded apart from the total
  A* const out = of(weight);
  const auto work = [&](int64_t begin, int64_t end) {
    std::vector<A> part(end - begin);
    std::fill(out + begin, out + end, A{0});
    for (int64_t first = 0; first < rows; first += kTogether) {
      std::fill(part.begin(), part.end(), A{0});
      for (int64_t i = first; i < std::min(rows, first + kTogether); ++i) {
        for (int64_t k = begin; k < end; ++k) part[k - begin] += from.row(i)[k];
      }
      for (int64_t k = begin; k < end; ++k) out[k] += part[k - begin];
    }
  };
  run_parallel(work, size, rows);
}

template <typename A>
std::vector<Tensor> WeightGradients<A>::finish() const {
  std::vector<Tensor> gradients;
  for (const auto& gradient : found_) {
    if (!gradient) {
      gradients.push_back(new_empty(*given_.noise, {0}));
      continue;
    }
    if (gradient->result.scalar_type() != compute_dtype<A>) {
      const A* value = static_cast<const A*>(gradient->value.const_data_ptr());
      Output(gradient->result).store(value, 0, 1, gradient->value.numel(), 0);
    }
    gradients.push_back(gradient->result);
  }
  return gradients;
}

template class WeightGradients<float>;
template class WeightGradients<double>;

}  // namespace fastdraw
