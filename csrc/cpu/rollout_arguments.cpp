#include "cpu/rollout_arguments.h"

namespace fastdraw {
namespace {

// The shapes of the weights; empty for one that has no part in the call.
std::array<std::vector<int64_t>, kWeights> weight_shapes(const Sizes& at) {
  const int64_t U = at.U, Z = at.Z;
  std::array<std::vector<int64_t>, kWeights> shapes;
  if (at.L > 0) {
    shapes[kAlignQuery] = {at.A, U}, shapes[kAlignBias] = {at.A};
    shapes[kAlignKey] = {at.A, at.D}, shapes[kAlignV] = {at.A};
  }
  if (at.read_window() > 0) shapes[kReadWindow] = {5, U}, shapes[kReadWindowBias] = {5};
  if (at.encoder) {
    shapes[kEncIh] = {4 * U, at.glimpse() + U}, shapes[kEncHh] = {4 * U, U}, shapes[kEncBias] = {4 * U};
    shapes[kPosterior] = {2 * Z, U}, shapes[kPosteriorBias] = {2 * Z}, shapes[kH0Enc] = {U};
  }
  shapes[kPrior] = {2 * Z, U}, shapes[kPriorBias] = {2 * Z};
  shapes[kDecIh] = {4 * U, Z + at.D}, shapes[kDecHh] = {4 * U, U}, shapes[kDecBias] = {4 * U};
  shapes[kPatch] = {at.patch(), U}, shapes[kPatchBias] = {at.patch()};
  if (at.write_window() > 0) shapes[kWriteWindow] = {5, U}, shapes[kWriteWindowBias] = {5};
  shapes[kH0Dec] = {U}, shapes[kCanvas0] = {at.C, at.H, at.W};
  return shapes;
}

void check_weights(const char* op, const RolloutArguments& given) {
  const auto shapes = weight_shapes(given.sizes);
  for (int name = 0; name < kWeights; ++name) {
    if (shapes[name].empty()) continue;
    STD_TORCH_CHECK(given.weights[name].has_value(), op, ": ", kWeightNames[name], " is missing");
    check_shape(op, kWeightNames[name], *given.weights[name], shapes[name].data(), shapes[name].size());
    const ScalarType got = given.weights[name]->scalar_type();
    with_compute_type(op, got, [](auto) {});
    STD_TORCH_CHECK(
        (got == ScalarType::Double) == (given.dtype == ScalarType::Double), op, ": ", kWeightNames[name], " is ",
        torch::headeronly::toString(got), " and noise ", torch::headeronly::toString(given.dtype));
  }
}

// A glimpse's side, of which 0 means none. So small that products of sizes are 64-bit integers.
void check_side(const char* op, int64_t n, const Sizes& at, const Options& options) {
  constexpr int64_t kMax = 1'000'000;
  STD_TORCH_CHECK(n >= 0 && n <= kMax, op, ": the side of a glimpse must lie in 1..", kMax, ", or be 0, got ", n);
  if (n > 0) make_grid(op, n, at.H, at.W, options.per_axis, options.eps);
}

}  // namespace

void give(StableIValue* stack, const std::vector<Tensor>& results) {
  for (size_t k = 0; k < results.size(); ++k) stack[k] = torch::stable::detail::from(results[k]);
}

RolloutArguments take_arguments(const char* op, Stack& from, bool encoder) {
  RolloutArguments given{};
  given.noise = from.tensor();
  if (encoder) given.image = from.tensor();
  given.labels = from.optional_tensor();
  const std::optional<Tensor> lengths = from.optional_tensor(), steps = from.optional_tensor();
  for (auto& weight : given.weights) weight = from.optional_tensor();
  Sizes& at = given.sizes;
  Options& options = given.options;
  at.encoder = encoder;
  at.n_read = encoder ? from.integer() : 0;
  at.n_write = from.integer();
  options.tanh_prior = from.flag();
  options.standard_first = from.flag();
  options.log_variance = from.flag();
  options.per_axis = from.flag();
  options.eps = from.number();
  options.bfloat16 = from.flag();

  check_dim(op, "noise", *given.noise, 3);
  STD_TORCH_CHECK(given.weights[kCanvas0] && given.weights[kDecHh], op, ": canvas0 or dec_hh is missing");
  const Tensor &canvas0 = *given.weights[kCanvas0], &dec_hh = *given.weights[kDecHh];
  check_dim(op, "canvas0", canvas0, 3);
  check_dim(op, "dec_hh", dec_hh, 2);
  given.dtype = given.noise->scalar_type();
  STD_TORCH_CHECK(
      !options.bfloat16 || given.dtype != ScalarType::Double, op, ": products in bfloat16 are not for float64");
  at.T = given.noise->size(0), at.B = given.noise->size(1), at.Z = given.noise->size(2);
  at.C = canvas0.size(0), at.H = canvas0.size(1), at.W = canvas0.size(2), at.U = dec_hh.size(1);
  if (given.labels) {
    check_dim(op, "labels", *given.labels, 3);
    STD_TORCH_CHECK(given.weights[kAlignV].has_value(), op, ": align_v is missing");
    check_dim(op, "align_v", *given.weights[kAlignV], 1);
    at.L = given.labels->size(1), at.D = given.labels->size(2), at.A = given.weights[kAlignV]->size(0);
    check_tensor(op, "labels", *given.labels, given.dtype, {at.B, at.L, at.D});
    STD_TORCH_CHECK(
        at.L > 0 && at.D > 0 && at.A > 0, op, ": labels and align_v must not be empty, got L = ", at.L, ", D = ", at.D,
        ", A = ", at.A);
  }
  STD_TORCH_CHECK(
      at.T > 0 && at.Z > 0 && at.U > 0 && at.pixels() > 0, op, ": only the batch may be empty, got T = ", at.T,
      ", Z = ", at.Z, ", U = ", at.U, ", C = ", at.C, ", H = ", at.H, ", W = ", at.W);
  check_side(op, at.n_read, at, options);
  check_side(op, at.n_write, at, options);
  if (encoder) check_tensor(op, "image", *given.image, given.dtype, {at.B, at.C, at.H, at.W});
  given.lengths = load_counts(op, "lengths", lengths, at.B, 1, at.L, at.L);
  given.steps = load_counts(op, "steps", steps, at.B, 0, at.T, at.T);
  check_weights(op, given);
  return given;
}

}  // namespace fastdraw
