#include "cpu/recurrence.h"

#include <numeric>

#include "cpu/simd.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastdraw {

std::vector<int64_t> load_counts(const std::optional<Tensor>& tensor, int64_t B, int64_t otherwise) {
  std::vector<int64_t> counts(static_cast<size_t>(B), otherwise);
  if (!tensor) return counts;
  const int64_t stride = tensor->strides()[0];
  for (int64_t b = 0; b < B; ++b) {
    counts[b] = tensor->scalar_type() == ScalarType::Long
        ? static_cast<const int64_t*>(tensor->const_data_ptr())[b * stride]
        : static_cast<const int32_t*>(tensor->const_data_ptr())[b * stride];
  }
  return counts;
}

void give(StableIValue* stack, const std::vector<Tensor>& results) {
  for (size_t k = 0; k < results.size(); ++k) stack[k] = torch::stable::detail::from(results[k]);
}

namespace {

// The shape of a weight, or nothing if the call has no use for it.
std::vector<int64_t> weight_shape(int name, const Sizes& at) {
  const int64_t U = at.U, Z = at.Z, window = at.encoder ? at.read_window() : 0;
  const std::vector<int64_t> shapes[kWeights] = {
      {at.A, U},
      {at.A},
      {at.A, at.D},
      {at.A},
      {window, U},
      {window},
      {4 * U, at.glimpse() + U},
      {4 * U, U},
      {4 * U},
      {2 * Z, U},
      {2 * Z},
      {2 * Z, U},
      {2 * Z},
      {4 * U, Z + at.D},
      {4 * U, U},
      {4 * U},
      {at.patch(), U},
      {at.patch()},
      {at.write_window(), U},
      {at.write_window()},
      {U},
      {U},
      {at.C, at.H, at.W}};
  const bool encodes = name == kEncIh || name == kEncHh || name == kEncBias || name == kPosterior ||
      name == kPosteriorBias || name == kH0Enc;
  const bool aligns = name <= kAlignV, reads = name == kReadWindow || name == kReadWindowBias;
  const bool writes = name == kWriteWindow || name == kWriteWindowBias;
  const bool used =
      (at.encoder || !encodes) && (at.L > 0 || !aligns) && (window > 0 || !reads) && (at.write_window() > 0 || !writes);
  return used ? shapes[name] : std::vector<int64_t>{};
}

void check_shape(
    const char* op, const char* name, const std::optional<Tensor>& tensor, const std::vector<int64_t>& shape) {
  STD_TORCH_CHECK(tensor.has_value(), op, ": ", name, " is missing");
  const auto sizes = tensor->sizes();
  STD_TORCH_CHECK(
      std::equal(sizes.begin(), sizes.end(), shape.begin(), shape.end()), op, ": ", name, " must have shape ",
      shape_text(shape.data(), shape.size()), ", got ", shape_text(sizes.data(), sizes.size()));
}

void check_counts(
    const char* op, const char* name, const std::optional<Tensor>& counts, int64_t B, int64_t low, int64_t high) {
  if (!counts) return;
  check_shape(op, name, counts, {B});
  const ScalarType dtype = counts->scalar_type();
  STD_TORCH_CHECK(
      dtype == ScalarType::Long || dtype == ScalarType::Int, op, ": ", name, " must be int64 or int32, got ",
      torch::headeronly::toString(dtype));
  for (const int64_t count : load_counts(counts, B, low)) {
    STD_TORCH_CHECK(count >= low && count <= high, op, ": ", name, " must lie in ", low, "..", high, ", got ", count);
  }
}

}  // namespace

Arguments take_arguments(const char* op, Stack& from, bool encoder) {
  Arguments given{};
  given.noise = from.tensor();
  if (encoder) given.image = from.tensor();
  given.labels = from.optional_tensor();
  given.lengths = from.optional_tensor();
  given.steps = from.optional_tensor();
  for (auto& weight : given.weights) weight = from.optional_tensor();
  Sizes& at = given.sizes;
  at.encoder = encoder;
  at.n_read = encoder ? from.integer() : 0;
  at.n_write = from.integer();
  given.options.tanh_prior = from.flag();
  given.options.standard_first = from.flag();
  given.options.log_variance = from.flag();
  given.options.per_axis = from.flag();
  given.options.eps = from.number();
  given.options.bfloat16 = from.flag();

  check_dim(op, "noise", *given.noise, 3);
  STD_TORCH_CHECK(given.weights[kCanvas0] && given.weights[kDecHh], op, ": canvas0 or dec_hh is missing");
  check_dim(op, "canvas0", *given.weights[kCanvas0], 3);
  check_dim(op, "dec_hh", *given.weights[kDecHh], 2);
  given.dtype = given.noise->scalar_type();
  STD_TORCH_CHECK(
      !given.options.bfloat16 || given.dtype != ScalarType::Double, op, ": products in bfloat16 are not for float64");
  at.T = given.noise->size(0), at.B = given.noise->size(1), at.Z = given.noise->size(2);
  at.C = given.weights[kCanvas0]->size(0), at.H = given.weights[kCanvas0]->size(1);
  at.W = given.weights[kCanvas0]->size(2);
  at.U = given.weights[kDecHh]->size(1);
  if (given.labels) {
    check_dim(op, "labels", *given.labels, 3);
    STD_TORCH_CHECK(given.weights[kAlignV].has_value(), op, ": align_v is missing");
    check_dim(op, "align_v", *given.weights[kAlignV], 1);
    at.L = given.labels->size(1), at.D = given.labels->size(2), at.A = given.weights[kAlignV]->size(0);
    check_tensor(op, "labels", *given.labels, given.dtype, {at.B, at.L, at.D});
  }
  STD_TORCH_CHECK(at.n_read >= 0 && at.n_write >= 0, op, ": the side of a glimpse must be at least 1");
  if (encoder) check_tensor(op, "image", *given.image, given.dtype, {at.B, at.C, at.H, at.W});
  check_counts(op, "lengths", given.lengths, at.B, 1, at.L);
  check_counts(op, "steps", given.steps, at.B, 0, at.T);
  for (int name = 0; name < kWeights; ++name) {
    const std::vector<int64_t> shape = weight_shape(name, at);
    if (shape.empty()) continue;
    check_shape(op, kWeightNames[name], given.weights[name], shape);
    const ScalarType got = given.weights[name]->scalar_type();
    STD_TORCH_CHECK(
        (got == ScalarType::Double) == (given.dtype == ScalarType::Double), op, ": ", kWeightNames[name], " is ",
        torch::headeronly::toString(got), " and noise ", torch::headeronly::toString(given.dtype));
    with_compute_type(op, got, [](auto) {});
  }
  return given;
}

Schedule::Schedule(const Sizes& at, const std::optional<Tensor>& steps, bool keep)
    : count_(static_cast<size_t>(at.T)), first_(static_cast<size_t>(at.T)), order(static_cast<size_t>(at.B)) {
  const std::vector<int64_t> given = load_counts(steps, at.B, at.T);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return given[a] > given[b]; });
  for (const int64_t b : order) steps_.push_back(given[b]);
  int64_t rows = 0;
  for (int64_t t = 0; t < at.T; ++t) {
    count_[t] = std::count_if(given.begin(), given.end(), [&](int64_t taken) { return taken > t; });
    first_[t] = keep ? rows : t % 2 * at.B;
    rows += count_[t];
  }
}

int64_t Schedule::rows() const { return std::accumulate(count_.begin(), count_.end(), int64_t{0}); }

std::vector<int64_t> Schedule::rows_before() const {
  std::vector<int64_t> before;
  for (size_t t = 0; t < count_.size(); ++t) {
    for (int64_t place = 0; place < count_[t]; ++place) before.push_back(t == 0 ? -1 : first_[t - 1] + place);
  }
  return before;
}

// A page fault for every 4 KiB of new memory would cost several percent of a training step.
void use_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] size_t bytes) {
#if defined(__linux__)
  constexpr size_t kHuge = size_t{2} << 20;
  const size_t begin = round_up(reinterpret_cast<size_t>(data), kHuge), end = reinterpret_cast<size_t>(data) + bytes;
  if (end >= begin + kHuge) madvise(reinterpret_cast<void*>(begin), (end - begin) / kHuge * kHuge, MADV_HUGEPAGE);
#endif
}

template <typename A>
Buffer<A>::Buffer(int64_t size)
    : data_(static_cast<A*>(::operator new[](static_cast<size_t>(size) * sizeof(A), std::align_val_t{64}))) {
  use_huge_pages(data_.get(), static_cast<size_t>(size) * sizeof(A));
}

namespace {

template <typename A>
inline void subtract_sigmoid(int64_t size, const A* __restrict image, const A* __restrict canvas, A* __restrict error) {
#pragma omp simd
  for (int64_t k = 0; k < size; ++k) error[k] = image[k] - sigmoid(canvas[k]).value;
}

template <typename A>
inline void subtract_sigmoid_bwd(
    int64_t size, const A* __restrict derror, const A* __restrict canvas, A* __restrict dimage, A* __restrict dcanvas) {
  for (int64_t k = 0; dimage != nullptr && k < size; ++k) dimage[k] += derror[k];
#pragma omp simd
  for (int64_t k = 0; k < size; ++k) dcanvas[k] -= derror[k] * sigmoid(canvas[k]).slope;
}

}  // namespace

FASTDRAW_CLONES void error_image(int64_t size, const float* image, const float* canvas, float* error) {
  subtract_sigmoid(size, image, canvas, error);
}
FASTDRAW_CLONES void error_image(int64_t size, const double* image, const double* canvas, double* error) {
  subtract_sigmoid(size, image, canvas, error);
}

FASTDRAW_CLONES void error_image_bwd(
    int64_t size, const float* derror, const float* canvas, float* dimage, float* dcanvas) {
  subtract_sigmoid_bwd(size, derror, canvas, dimage, dcanvas);
}
FASTDRAW_CLONES void error_image_bwd(
    int64_t size, const double* derror, const double* canvas, double* dimage, double* dcanvas) {
  subtract_sigmoid_bwd(size, derror, canvas, dimage, dcanvas);
}

int64_t groups_for(int64_t B) {
  constexpr int64_t kRows = 8;  // with fewer, reading the weights takes longer than multiplying
  const int64_t threads = torch::stable::get_num_threads();
  return B >= kRows * threads ? threads : 1;
}

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
void Packed<A>::put_rows(const A* source, int64_t ld, int64_t columns, const int64_t* rows, const A* other) {
  const auto work = [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t row = rows == nullptr ? k : rows[k];
      const A* from = row < 0 ? other : source + row * ld;
      pack(1, columns, from, ld, data_.get() + k * kPanel<A>, K_ * kPanel<A>);
    }
  };
  run_parallel(work, K_, 4 * columns);
}

template <typename A>
void Packed<A>::zero_rows(int64_t k, int64_t k_end) {
  with_lines([&]<typename P>(P* data) {
    for (int64_t p = 0; p < end(); ++p) {
      P* panel = data + p * lines_ * kPanel<P>;
      std::fill(panel + lines<P>(k) * kPanel<P>, panel + lines<P>(k_end) * kPanel<P>, P{0});
    }
  });
}

template <typename A>
Recurrence<A>::Recurrence(const Arguments& given, bool keep)
    : given_(given),
      noise_(*given.noise),
      at_(given.sizes),
      options_(given.options),
      columns_(columns_of<A>(given.sizes)),
      schedule_(given.sizes, given.steps, keep),
      groups_(groups_for(given.sizes.B)),
      zeros_(1, std::max(at_.U, at_.Z)),
      h0_enc_(1, at_.U),
      h0_dec_(1, at_.U),
      canvas0_(1, at_.pixels()),
      align_v_(1, at_.A),
      image_(at_.encoder ? at_.B * at_.pixels() : 0),
      labels_(at_.B * at_.L * at_.D),
      keys_(at_.B * at_.L * at_.A) {
  const int64_t threads = torch::stable::get_num_threads();
  for (int64_t w = 0; w < threads; ++w) workers_.emplace_back(at_, options_);

  const auto load = [&](Matrix<A>& to, int weight, int64_t size) {
    Input<1>(*given.weights[weight]).load(to.row(0), size, 1, size);
  };
  if (at_.encoder) load(h0_enc_, kH0Enc, at_.U);
  load(h0_dec_, kH0Dec, at_.U);
  for (int64_t c = 0; c < at_.C; ++c) {
    Input<3>(*given.weights[kCanvas0]).load(canvas0_.row(0) + c * at_.H * at_.W, at_.W, at_.H, at_.W, c);
  }
  if (at_.L > 0) load(align_v_, kAlignV, at_.A);

  const std::vector<int64_t> lengths = load_counts(given.lengths, at_.B, at_.L);
  for (int64_t place = 0; place < at_.B; ++place) {
    const int64_t b = schedule_.order[place];
    lengths_.push_back(lengths[b]);
    if (at_.L > 0) {
      Input<3>(*given.labels).load(labels_.get() + place * at_.L * at_.D, at_.D, at_.L, at_.D, b);
    }
    for (int64_t c = 0; at_.encoder && c < at_.C; ++c) {
      A* to = image_.get() + place * at_.pixels() + c * at_.H * at_.W;
      Input<4>(*given.image).load(to, at_.W, at_.H, at_.W, b, c);
    }
  }
  if (at_.L == 0) return;
  Packed<A> align_key(at_.D, at_.A, options_.bfloat16);
  align_key.put_transposed(*given.weights[kAlignKey], 0, at_.D, 0, 0);
  const int64_t items = at_.B * at_.L, ld = padded<A>(at_.A);
  const Buffer<A> keys(items * ld);
  align_key.multiply({items, at_.D, 0, align_key.end(), at_.D, ld}, labels_.get(), nullptr, keys.get());
  for (int64_t i = 0; i < items; ++i) std::copy_n(keys.get() + i * ld, at_.A, keys_.get() + i * at_.A);
}

template class Buffer<float>;
template class Buffer<double>;
template class Packed<float>;
template class Packed<double>;
template class Recurrence<float>;
template class Recurrence<double>;

}  // namespace fastdraw
