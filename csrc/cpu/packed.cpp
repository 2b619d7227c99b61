#include "cpu/packed.h"

#include "cpu/tensor.h"

namespace fastdraw {
namespace {

// Call body(rows, ld, first, count) on the rows of a weight, `columns` of them from `from` on, as elements of A; in
// groups of a panel, which threads share.
template <typename A, typename Body>
void for_weight_rows(const Tensor& weight, int64_t from, int64_t columns, const Body& body) {
  const Input<2> input = weight;
  const int64_t outputs = weight.size(0);
  const auto work = [&](int64_t begin, int64_t end) {
    const bool direct = element_size(input.dtype) == sizeof(A) && input.strides[1] == 1;
    Matrix<A> scratch(direct ? 0 : kPanel<A>, columns);
    for (int64_t p = begin; p < end; ++p) {
      const int64_t first = p * kPanel<A>, count = std::min(kPanel<A>, outputs - first);
      if (direct) {
        const A* data = reinterpret_cast<const A*>(input.data) + first * input.strides[0] + from;
        body(data, input.strides[0], first, count);
      } else {
        input.load(scratch.row(0), scratch.ld(), count, columns, first, from);
        body(static_cast<const A*>(scratch.row(0)), scratch.ld(), first, count);
      }
    }
  };
  run_parallel(work, panels<A>(outputs), 4 * columns * kPanel<A>);
}

}  // namespace

template <typename A>
void Packed<A>::put_transposed(const Tensor& weight, int64_t from, int64_t inputs, int64_t k, int64_t n) {
  for_weight_rows<A>(weight, from, inputs, [&](const A* rows, int64_t ld, int64_t first, int64_t count) {
    with_lines([&]<typename P>(P* data) {
      pack_transposed(
          count, inputs, rows, ld, data + (n + first) * lines_ + lines<P>(k) * kPanel<P>, lines_ * kPanel<P>);
    });
  });
}

template <typename A>
void Packed<A>::put(const Tensor& weight, int64_t from, int64_t inputs, int64_t k, int64_t n) {
  for_weight_rows<A>(weight, from, inputs, [&](const A* rows, int64_t ld, int64_t first, int64_t count) {
    with_lines([&]<typename P>(P* data) {
      pack(count, inputs, rows, ld, data + n * lines_ + lines<P>(k + first) * kPanel<P>, lines_ * kPanel<P>);
    });
  });
}

template <typename A>
void Packed<A>::zero_rows(int64_t k, int64_t k_end) {
  with_lines([&]<typename P>(P* data) {
    for (int64_t p = 0; p < panels<A>(N_); ++p) {
      P* panel = data + p * lines_ * kPanel<P>;
      std::fill(panel + lines<P>(k) * kPanel<P>, panel + lines<P>(k_end) * kPanel<P>, P{0});
    }
  });
}

template <typename A>
PackedRows<A>::PackedRows(
    int64_t rows, int64_t columns, const A* from, int64_t ld, const std::vector<int64_t>* at, const A* other)
    : rows_(rows), data_(rows * padded<A>(columns)) {
  const auto work = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = at == nullptr ? i : (*at)[i];
      pack(1, columns, row < 0 ? other : from + row * ld, ld, data_.get() + i * kPanel<A>, rows * kPanel<A>);
    }
  };
  run_parallel(work, rows, 4 * columns);
}

template class Packed<float>;
template class Packed<double>;
template class PackedRows<float>;
template class PackedRows<double>;

}  // namespace fastdraw
