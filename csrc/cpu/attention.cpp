// v (G, A): B / G samples in a row share one, all of them (G = 1) unless vmap varies v.
//
// A thread takes whole samples. Forward reads B (A + L (A + D)) elements and writes B (D + L); backward reads the same
// and writes a gradient of each. The gradient of v is added up over blocks of samples, and then over the blocks, so
// that its rounding does not depend on the number of threads.
#include "cpu/attention.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "cpu/simd.h"
#include "cpu/tensor.h"

namespace fastdraw {
namespace {

template <typename T>
inline void forward(
    int64_t length, int64_t A, int64_t D, const T* query, const T* keys, const T* values, const T* v,
    T* __restrict weights, T* __restrict context) {
  T most = -std::numeric_limits<T>::infinity();
  for (int64_t l = 0; l < length; ++l) {
    const T* key = keys + l * A;
    weights[l] = static_cast<T>(sum_blocks<T>(A, [=](int64_t a) { return v[a] * tanh(query[a] + key[a]).value; }));
    most = std::max(most, weights[l]);
  }
  double total = 0;
  for (int64_t l = 0; l < length; ++l) {
    weights[l] = exp_nonpositive(weights[l] - most).value;
    total += static_cast<double>(weights[l]);
  }
  std::fill_n(context, D, T(0));
  for (int64_t l = 0; l < length; ++l) {
    const T weight = weights[l] /= static_cast<T>(total);
    const T* __restrict value = values + l * D;
#pragma omp simd
    for (int64_t d = 0; d < D; ++d) context[d] += weight * value[d];
  }
}

template <typename T>
inline void backward(
    int64_t length, int64_t A, int64_t D, const T* dcontext, const T* dweights, const T* query, const T* keys,
    const T* values, const T* v, const T* weights, T* __restrict dquery, T* __restrict dkeys, T* __restrict dvalues,
    T* __restrict dv, T* __restrict de) {
  double mean = 0;
  for (int64_t l = 0; l < length; ++l) {
    const T* value = values + l * D;
    const double dot = sum_blocks<T>(D, [=](int64_t d) { return dcontext[d] * value[d]; });
    de[l] = static_cast<T>(dot) + (dweights ? dweights[l] : T(0));
    mean += static_cast<double>(weights[l]) * static_cast<double>(de[l]);
  }
  std::fill_n(dquery, A, T(0));
  for (int64_t l = 0; l < length; ++l) {
    const T weight = weights[l];
    de[l] = static_cast<T>(static_cast<double>(weight) * (static_cast<double>(de[l]) - mean));
    const T slope = de[l];
#pragma omp simd
    for (int64_t d = 0; d < D; ++d) dvalues[l * D + d] += weight * dcontext[d];
#pragma omp simd
    for (int64_t a = 0; a < A; ++a) {
      const Tanh<T> unit = tanh(query[a] + keys[l * A + a]);
      const T dkey = slope * v[a] * unit.slope;
      dkeys[l * A + a] += dkey;
      dquery[a] += dkey;
      dv[a] += slope * unit.value;
    }
  }
}

}  // namespace

FASTDRAW_CLONES void attend(
    int64_t length, int64_t A, int64_t D, const float* query, const float* keys, const float* values, const float* v,
    float* weights, float* context) {
  forward(length, A, D, query, keys, values, v, weights, context);
}
FASTDRAW_CLONES void attend(
    int64_t length, int64_t A, int64_t D, const double* query, const double* keys, const double* values,
    const double* v, double* weights, double* context) {
  forward(length, A, D, query, keys, values, v, weights, context);
}

FASTDRAW_CLONES void attend_bwd(
    int64_t length, int64_t A, int64_t D, const float* dcontext, const float* dweights, const float* query,
    const float* keys, const float* values, const float* v, const float* weights, float* dquery, float* dkeys,
    float* dvalues, float* dv, float* scratch) {
  backward(length, A, D, dcontext, dweights, query, keys, values, v, weights, dquery, dkeys, dvalues, dv, scratch);
}
FASTDRAW_CLONES void attend_bwd(
    int64_t length, int64_t A, int64_t D, const double* dcontext, const double* dweights, const double* query,
    const double* keys, const double* values, const double* v, const double* weights, double* dquery, double* dkeys,
    double* dvalues, double* dv, double* scratch) {
  backward(length, A, D, dcontext, dweights, query, keys, values, v, weights, dquery, dkeys, dvalues, dv, scratch);
}

namespace {

struct Arguments {
  int64_t B, L, A, D, G;
  std::vector<int64_t> lengths;
  Input<2> query;
  Input<3> keys, values;
  Input<2> v;
};

// One sample in scratch memory.
template <typename T>
class Sample {
  const Arguments& all_;
  std::vector<T> query_, keys_, values_, v_;

 public:
  int64_t length = 0;
  std::vector<T> weights, context;  // weights are 0 beyond the length

  explicit Sample(const Arguments& all)
      : all_(all),
        query_(all.A),
        keys_(all.L * all.A),
        values_(all.L * all.D),
        v_(all.A),
        weights(all.L),
        context(all.D) {}

  void attend(int64_t b) {
    const int64_t A = all_.A, D = all_.D;
    length = all_.lengths[b];
    all_.query.load(query_.data(), A, 1, A, b);
    all_.keys.load(keys_.data(), A, length, A, b);
    all_.values.load(values_.data(), D, length, D, b);
    all_.v.load(v_.data(), A, 1, A, b / (all_.B / all_.G));
    std::fill(weights.begin(), weights.end(), T(0));
    fastdraw::attend(
        length, A, D, query_.data(), keys_.data(), values_.data(), v_.data(), weights.data(), context.data());
  }

  void attend_bwd(const T* dcontext, const T* dweights, T* dquery, T* dkeys, T* dvalues, T* dv, T* scratch) const {
    fastdraw::attend_bwd(
        length, all_.A, all_.D, dcontext, dweights, query_.data(), keys_.data(), values_.data(), v_.data(),
        weights.data(), dquery, dkeys, dvalues, dv, scratch);
  }
};

template <typename T>
struct AttentionForward {
  Arguments arguments;
  Output context, weights;

  void operator()(int64_t begin, int64_t end) const {
    const int64_t L = arguments.L, D = arguments.D;
    Sample<T> at(arguments);
    for (int64_t b = begin; b < end; ++b) {
      at.attend(b);
      context.store(at.context.data(), D, 1, D, b * D);
      weights.store(at.weights.data(), L, 1, L, b * L);
    }
  }
};

// The samples that share a v, in blocks.
struct Blocks {
  static constexpr int64_t kSize = 4;  // small, so that the blocks of a usual batch divide evenly among threads
  int64_t per_v, samples_per_v;

  explicit Blocks(const Arguments& all)
      : per_v(all.G > 0 ? (all.B / all.G + kSize - 1) / kSize : 0), samples_per_v(all.G > 0 ? all.B / all.G : 0) {}
  int64_t first(int64_t block) const { return block / per_v * samples_per_v + block % per_v * kSize; }
  int64_t last(int64_t block) const { return std::min(first(block) + kSize, (block / per_v + 1) * samples_per_v); }
};

template <typename T>
struct AttentionBackward {
  Arguments arguments;
  Blocks blocks;
  Input<2> dcontext, dweights;
  Output dquery, dkeys, dvalues;
  T* dv;  // (blocks, A), zero at first

  void operator()(int64_t begin, int64_t end) const {
    const int64_t L = arguments.L, A = arguments.A, D = arguments.D;
    Sample<T> at(arguments);
    std::vector<T> upstream(D), upstream_weights(L), scratch(L), query(A), keys(L * A), values(L * D);
    for (int64_t block = begin; block < end; ++block) {
      for (int64_t b = blocks.first(block); b < blocks.last(block); ++b) {
        at.attend(b);
        dcontext.load(upstream.data(), D, 1, D, b);
        dweights.load(upstream_weights.data(), L, 1, L, b);
        std::fill(keys.begin(), keys.end(), T(0));
        std::fill(values.begin(), values.end(), T(0));
        at.attend_bwd(
            upstream.data(), upstream_weights.data(), query.data(), keys.data(), values.data(), dv + block * A,
            scratch.data());
        dquery.store(query.data(), A, 1, A, b * A);
        dkeys.store(keys.data(), A, L, A, b * L * A);
        dvalues.store(values.data(), D, L, D, b * L * D);
      }
    }
  }
};

// Row g of dv = the sum of its blocks.
template <typename T>
void add_blocks(const std::vector<T>& blocks, int64_t per_v, int64_t G, int64_t A, const Output& dv) {
  std::vector<double> total(A);
  std::vector<T> rounded(A);
  for (int64_t g = 0; g < G; ++g) {
    std::fill(total.begin(), total.end(), 0.0);
    for (int64_t block = g * per_v; block < (g + 1) * per_v; ++block) {
      for (int64_t a = 0; a < A; ++a) total[a] += static_cast<double>(blocks[block * A + a]);
    }
    std::copy(total.begin(), total.end(), rounded.begin());
    dv.store(rounded.data(), A, 1, A, g * A);
  }
}

Arguments make_arguments(
    const char* op, const Tensor& query, const Tensor& keys, const Tensor& values, const Tensor& v,
    const std::optional<Tensor>& lengths) {
  check_dim(op, "keys", keys, 3);
  check_dim(op, "values", values, 3);
  const int64_t B = keys.size(0), L = keys.size(1), A = keys.size(2), D = values.size(2);
  const ScalarType dtype = query.scalar_type();
  STD_TORCH_CHECK(L >= 1, op, ": keys must hold at least one item, got L = 0");
  check_tensor(op, "query", query, dtype, {B, A});
  check_tensor(op, "keys", keys, dtype, {B, L, A});
  check_tensor(op, "values", values, dtype, {B, L, D});
  check_dim(op, "v", v, 2);
  const int64_t G = v.size(0);
  STD_TORCH_CHECK(B == 0 || (G > 0 && B % G == 0), op, ": v must serve equal parts of the batch, got ", G, " of ", B);
  check_tensor(op, "v", v, dtype, {G, A});
  std::vector<int64_t> items = load_counts(op, "lengths", lengths, B, 1, L, L);
  return {B, L, A, D, G, std::move(items), query, keys, values, v};
}

std::tuple<Tensor, Tensor> additive_attention(
    const Tensor& query, const Tensor& keys, const Tensor& values, const Tensor& v,
    const std::optional<Tensor>& lengths) {
  const char* op = "additive_attention";
  const Arguments arguments = make_arguments(op, query, keys, values, v, lengths);
  const int64_t B = arguments.B, L = arguments.L, A = arguments.A, D = arguments.D;
  const Tensor context = new_empty(query, {B, D}), weights = new_empty(query, {B, L});
  with_compute_type(op, query.scalar_type(), [&](auto compute) {
    run_parallel(AttentionForward<decltype(compute)>{arguments, context, weights}, B, L * (8 * A + D) + 1);
  });
  return {context, weights};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> additive_attention_bwd(
    const Tensor& dcontext, const Tensor& dweights, const Tensor& query, const Tensor& keys, const Tensor& values,
    const Tensor& v, const std::optional<Tensor>& lengths) {
  const char* op = "additive_attention_bwd";
  const Arguments arguments = make_arguments(op, query, keys, values, v, lengths);
  const int64_t B = arguments.B, L = arguments.L, A = arguments.A, D = arguments.D, G = arguments.G;
  const ScalarType dtype = query.scalar_type();
  check_tensor(op, "dcontext", dcontext, dtype, {B, D});
  check_tensor(op, "dweights", dweights, dtype, {B, L});
  const Tensor dquery = new_empty(query, {B, A}), dkeys = new_empty(query, {B, L, A});
  const Tensor dvalues = new_empty(query, {B, L, D}), dv = new_empty(query, {G, A});
  with_compute_type(op, dtype, [&](auto compute) {
    using T = decltype(compute);
    const Blocks blocks(arguments);
    std::vector<T> dv_of_blocks(G * blocks.per_v * A);
    const AttentionBackward<T> work{arguments, blocks, dcontext, dweights, dquery, dkeys, dvalues, dv_of_blocks.data()};
    run_parallel(work, G * blocks.per_v, Blocks::kSize * L * (20 * A + 3 * D) + 1);
    add_blocks(dv_of_blocks, blocks.per_v, G, A, dv);
  });
  return {dquery, dkeys, dvalues, dv};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdraw, CPU, m) {
  m.impl("additive_attention", TORCH_BOX(&additive_attention));
  m.impl("additive_attention_bwd", TORCH_BOX(&additive_attention_bwd));
}

}  // namespace fastdraw
