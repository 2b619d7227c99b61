#include "cuda/rollout.h"

#include <tuple>
#include <vector>

#include "cuda/bindings/tensor.h"

namespace fastdraw {
namespace {

using Tensors = std::vector<Tensor>;

// Sizes and options as fastdraw/ops/persistent.py lists them.
struct Call {
  Sizes at;
  Options options;
};

Call read_call(const std::vector<int64_t>& numbers, double eps) {
  STD_TORCH_CHECK(numbers.size() == 17, "persistent rollout: expected 17 sizes and options, got ", numbers.size());
  const int64_t* next = numbers.data();
  Sizes at{};
  for (int64_t* size :
       {&at.B, &at.C, &at.H, &at.W, &at.T, &at.L, &at.D, &at.A, &at.U, &at.Z, &at.n_read, &at.n_write}) {
    *size = *next++;
    STD_TORCH_CHECK(*size >= 0 && *size <= 1'000'000'000, "persistent rollout: a size is out of range: ", *size);
  }
  at.encoder = *next++ != 0;
  Options options{};
  for (bool* option : {&options.tanh_prior, &options.standard_first, &options.log_variance, &options.per_axis}) {
    *option = *next++ != 0;
  }
  options.eps = eps;
  return {at, options};
}

// Takes tensors from a list one after the other, each of a dtype and a number of elements; an empty one stands for
// none.
class Reader {
  const Tensors& list_;
  const Tensor& like_;
  size_t next_ = 0;

 public:
  Reader(const Tensors& list, const Tensor& like) : list_(list), like_(like) {}

  template <typename T>
  T* take(ScalarType dtype, int64_t elements, bool optional = false) {
    STD_TORCH_CHECK(next_ < list_.size(), "persistent rollout: too few tensors");
    const Tensor& tensor = list_[next_++];
    if (optional && tensor.numel() == 0) return nullptr;
    STD_TORCH_CHECK(
        on_device(tensor) && tensor.get_device_index() == like_.get_device_index() && tensor.is_contiguous() &&
            tensor.scalar_type() == dtype && tensor.numel() >= elements,
        "persistent rollout: tensor ", next_ - 1, " must be contiguous, on the GPU of the others, of dtype ",
        torch::headeronly::toString(dtype), ", and have ", elements, " elements; it has ", tensor.numel(), " of dtype ",
        torch::headeronly::toString(tensor.scalar_type()));
    return elements == 0 ? nullptr : static_cast<T*>(tensor.mutable_data_ptr());
  }
  float* floats(int64_t elements, bool optional = false) { return take<float>(ScalarType::Float, elements, optional); }
};

int64_t weight_elements(Weight weight, const Sizes& at) {
  switch (weight) {
    case kAlignQuery: return at.A * at.U;
    case kAlignBias:
    case kAlignV: return at.A;
    case kAlignKey: return at.A * at.D;
    case kReadWindow: return at.read_window() * at.U;
    case kReadWindowBias: return at.read_window();
    case kEncIh: return at.encoder ? 4 * at.U * (at.glimpse() + at.U) : 0;
    case kEncHh: return at.encoder ? 4 * at.U * at.U : 0;
    case kEncBias: return at.encoder ? 4 * at.U : 0;
    case kPosterior: return at.encoder ? 2 * at.Z * at.U : 0;
    case kPosteriorBias: return at.encoder ? 2 * at.Z : 0;
    case kPrior: return 2 * at.Z * at.U;
    case kPriorBias: return 2 * at.Z;
    case kDecIh: return 4 * at.U * (at.Z + at.D);
    case kDecHh: return 4 * at.U * at.U;
    case kDecBias: return 4 * at.U;
    case kPatch: return at.patch() * at.U;
    case kPatchBias: return at.patch();
    case kWriteWindow: return at.write_window() * at.U;
    case kWriteWindowBias: return at.write_window();
    case kH0Enc: return at.encoder ? at.U : 0;
    case kH0Dec: return at.U;
    case kCanvas0: return at.pixels();
    case kWeights: break;
  }
  return 0;
}

RolloutInputs read_inputs(const Call& call, const Tensors& list, const Tensor& like) {
  const Sizes& at = call.at;
  Reader from(list, like);
  RolloutInputs in{at, call.options, {}, {}, {}, {}, {}, {}, {}};
  for (int name = 0; name < kWeights; ++name) {
    in.weights[name] = from.floats(weight_elements(static_cast<Weight>(name), at));
  }
  in.noise = from.floats(at.T * at.B * at.Z);
  in.image = from.floats(at.encoder ? at.B * at.pixels() : 0);
  in.labels = from.floats(at.B * at.L * at.D);
  in.keys = from.floats(at.B * at.L * at.A);
  in.lengths = {from.take<int64_t>(ScalarType::Long, at.B, true), true};
  in.steps = {from.take<int64_t>(ScalarType::Long, at.B, true), true};
  return in;
}

template <typename P>
constexpr ScalarType product_dtype = sizeof(P) == 2 ? ScalarType::BFloat16 : ScalarType::Float;

template <typename P>
RolloutRecord<P> read_record(const Sizes& at, const Tensors& list, const Tensor& like, int64_t rows, bool keep) {
  Reader from(list, like);
  const auto products = [&](int64_t width) { return from.take<P>(product_dtype<P>, rows * padded(width)); };
  const auto kept = [&](int64_t width) { return from.floats(keep ? at.T * at.B * width : 0); };
  const int64_t encoder = at.encoder ? 1 : 0;
  RolloutRecord<P> record{};
  record.x = products(at.glimpse());
  record.zy = products(at.Z + at.D);
  record.h_enc = products(encoder * at.U);
  record.h_dec = products(at.U);
  record.heads = from.floats(rows * Heads(at).columns);
  record.gates_enc = kept(encoder * 4 * at.U);
  record.gates_dec = kept(4 * at.U);
  record.c_enc = kept(encoder * at.U);
  record.c_dec = kept(at.U);
  record.posterior = kept(encoder * 2 * at.Z);
  record.prior = kept(2 * at.Z);
  record.canvas = kept(at.pixels());
  return record;
}

template <typename P>
Plan read_plan(const std::vector<int64_t>& numbers, const Call& call, bool backward) {
  STD_TORCH_CHECK(numbers.size() == 4, "persistent rollout: expected the 4 numbers of a plan");
  const int64_t groups = numbers[0], blocks = numbers[1], scratch = numbers[2], shared = numbers[3];
  STD_TORCH_CHECK(
      groups > 0 && groups <= call.at.B && blocks > 0 && groups * blocks <= 1'000'000 && scratch >= 0,
      "persistent rollout: no plan that can be launched");
  return complete_plan<P>(
      call.at, call.options, backward, static_cast<int>(groups), static_cast<int>(blocks), scratch, shared);
}

// Calls body(P{}) with what products multiply in.
template <typename Body>
void with_product_type(bool bfloat16, const Body& body) {
  bfloat16 ? body(__nv_bfloat16{}) : body(float{});
}

// groups, blocks of a group (0: none fits), scratch, bytes of shared memory.
std::tuple<int64_t, int64_t, int64_t, int64_t> plan(
    std::vector<int64_t> numbers, bool bfloat16, bool backward, int64_t multiprocessors, int64_t shared) {
  const Call call = read_call(numbers, 0);
  RolloutInputs in{};
  in.at = call.at;
  in.options = call.options;
  Plan found{};
  with_product_type(bfloat16, [&](auto zero) {
    using P = decltype(zero);
    found = (backward ? plan_backward<P> : plan_forward<P>)(in, static_cast<int>(multiprocessors), shared);
  });
  return {found.groups, found.blocks, found.scratch, found.shared};
}

void forward(
    Tensors inputs, Tensors record, Tensors results, std::vector<int64_t> numbers, double eps, bool bfloat16, bool keep,
    std::vector<int64_t> plan) {
  const Call call = read_call(numbers, eps);
  const Sizes& at = call.at;
  STD_TORCH_CHECK(!inputs.empty() && at.B > 0 && at.T > 0, "persistent rollout: an empty batch is no launch");
  const Tensor& like = inputs[kH0Dec];
  const DeviceGuard guard(like);
  with_product_type(bfloat16, [&](auto zero) {
    using P = decltype(zero);
    RolloutForward<P> launched{};
    launched.in = read_inputs(call, inputs, like);
    launched.record = read_record<P>(at, record, like, (keep ? at.T + 1 : 2) * at.B, keep);
    launched.keep = keep;
    launched.plan = read_plan<P>(plan, call, false);
    Reader to(results, like);
    launched.nll = to.floats(at.encoder ? at.B : 0);
    launched.kl = to.floats(at.encoder ? at.T * at.B : 0);
    launched.canvas = to.floats(at.B * at.pixels());
    launched.frames = to.floats(at.T * at.B * at.pixels(), true);
    launched.kl_parts = to.floats(at.encoder ? at.T * at.B * launched.plan.blocks : 0);
    launched.counters =
        reinterpret_cast<unsigned*>(to.take<int32_t>(ScalarType::Int, int64_t{launched.plan.groups} * kCounterStride));
    launch_forward(launched, current_stream(like));
  });
  check_launch("persistent rollout");
}

void backward(
    Tensors inputs, Tensors record, Tensors gradients, Tensors exchanged, Tensors results, std::vector<int64_t> numbers,
    double eps, bool bfloat16, std::vector<int64_t> plan) {
  const Call call = read_call(numbers, eps);
  const Sizes& at = call.at;
  STD_TORCH_CHECK(!inputs.empty() && at.B > 0 && at.T > 0, "persistent rollout: an empty batch is no launch");
  const Tensor& like = inputs[kH0Dec];
  const DeviceGuard guard(like);
  with_product_type(bfloat16, [&](auto zero) {
    using P = decltype(zero);
    const int64_t states = (at.T + 1) * at.B, taken = at.T * at.B, encoder = at.encoder ? 1 : 0;
    RolloutBackward<P> launched{};
    launched.in = read_inputs(call, inputs, like);
    launched.record = read_record<P>(at, record, like, states, true);
    launched.plan = read_plan<P>(plan, call, true);
    Reader in(gradients, like);
    launched.dnll = in.floats(encoder * at.B);
    launched.dkl = in.floats(encoder * taken);
    launched.dcanvas = in.floats(at.B * at.pixels(), true);
    launched.dframes = in.floats(taken * at.pixels(), true);
    Reader between(exchanged, like);
    const auto products = [&](int64_t rows, int64_t width) {
      return between.take<P>(product_dtype<P>, rows * padded(width));
    };
    launched.dheads = products(states, Heads(at).columns);
    launched.dgates_enc = products(encoder * taken, 4 * at.U);
    launched.dgates_dec = products(taken, 4 * at.U);
    launched.dposterior = products(encoder * taken, 2 * at.Z);
    launched.dprior = products(taken, 2 * at.Z);
    launched.dx = between.floats(at.B * at.glimpse());
    launched.dy = between.floats(at.B * at.D);
    launched.counters = reinterpret_cast<unsigned*>(
        between.take<int32_t>(ScalarType::Int, int64_t{launched.plan.groups} * kCounterStride));
    Reader to(results, like);
    launched.dcanvas0 = to.floats(at.B * at.pixels());
    launched.dimage = to.floats(encoder * at.B * at.pixels(), true);
    launched.dnoise = to.floats(taken * at.Z, true);
    launched.dkeys = to.floats(at.B * at.L * at.A);
    launched.dvalues = to.floats(at.B * at.L * at.D);
    launched.dalign_v = to.floats(at.B * at.A);
    launch_backward(launched, current_stream(like));
  });
  check_launch("persistent rollout");
}

}  // namespace

FASTDRAW_CUDA_LIBRARY(m) {
  m.impl("persistent_forward", TORCH_BOX(&forward));
  m.impl("persistent_backward", TORCH_BOX(&backward));
}
FASTDRAW_ANYWHERE_LIBRARY(m) { m.impl("persistent_plan", TORCH_BOX(&plan)); }

}  // namespace fastdraw
