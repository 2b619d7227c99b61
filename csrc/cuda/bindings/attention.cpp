#include "cuda/attention.h"

#include <tuple>

#include "cuda/bindings/tensor.h"

namespace fastdraw {
namespace {

// What both passes read, contiguous.
struct Attention {
  AttentionSizes sizes;
  Tensor query, keys, values, v;
  std::optional<Tensor> lengths;

  template <typename T>
  AttentionInputs<T> inputs(const std::optional<Tensor>& scratch) const {
    Counts counts;
    if (lengths) counts = {lengths->const_data_ptr(), lengths->scalar_type() == ScalarType::Long};
    return {in<T>(query), in<T>(keys), in<T>(values), in<T>(v), counts, out<std::byte>(scratch)};
  }

  // Calls body(inputs) with the C++ type of the dtype.
  template <typename Body>
  void run(const char* op, bool backward, const Body& body) const {
    const DeviceGuard guard(query);
    dispatch_dtype(op, query.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      std::optional<Tensor> scratch;
      const int64_t bytes = sizes.scratch<T>(backward);
      if (bytes > 0) scratch = torch::stable::new_empty(query, {bytes}, ScalarType::Byte);
      body(inputs<T>(scratch));
    });
    check_launch(op);
  }
};

Attention check_attention(
    const char* op, const Tensor& query, const Tensor& keys, const Tensor& values, const Tensor& v,
    const std::optional<Tensor>& lengths) {
  STD_TORCH_CHECK(keys.dim() == 3, op, ": keys must have shape (B, L, A)");
  STD_TORCH_CHECK(values.dim() == 3, op, ": values must have shape (B, L, D)");
  STD_TORCH_CHECK(v.dim() == 2, op, ": v must have shape (G, A)");
  const AttentionSizes sizes{keys.size(0), keys.size(1), keys.size(2), values.size(2), v.size(0)};
  const auto [B, L, A, D, G] = sizes;
  STD_TORCH_CHECK(L >= 1, op, ": keys must hold at least one item, got L = 0");
  STD_TORCH_CHECK(B == 0 || (G > 0 && B % G == 0), op, ": v must serve equal parts of the batch, got ", G, " of ", B);
  check_tensor(op, "query", query, keys, {B, A});
  check_tensor(op, "values", values, keys, {B, L, D});
  check_tensor(op, "v", v, keys, {G, A});
  if (lengths) {
    const ScalarType dtype = lengths->scalar_type();
    STD_TORCH_CHECK(dtype == ScalarType::Long || dtype == ScalarType::Int, op, ": lengths must be int64 or int32");
    STD_TORCH_CHECK(on_device(*lengths), op, ": lengths must be on the GPU of the other arguments");
    STD_TORCH_CHECK(lengths->dim() == 1 && lengths->size(0) == B, op, ": lengths must have shape (B,)");
  }
  return {
      sizes,
      torch::stable::contiguous(query),
      torch::stable::contiguous(keys),
      torch::stable::contiguous(values),
      torch::stable::contiguous(v),
      contiguous(lengths)};
}

std::tuple<Tensor, Tensor> additive_attention(
    const Tensor& query, const Tensor& keys, const Tensor& values, const Tensor& v,
    const std::optional<Tensor>& lengths) {
  const char* op = "additive_attention";
  const Attention attention = check_attention(op, query, keys, values, v, lengths);
  const AttentionSizes& sizes = attention.sizes;
  const Tensor context = torch::stable::new_empty(query, {sizes.B, sizes.D});
  const Tensor weights = torch::stable::new_empty(query, {sizes.B, sizes.L});
  attention.run(op, false, [&]<typename T>(const AttentionInputs<T>& inputs) {
    launch_attention_fwd(out<T>(context), out<T>(weights), inputs, sizes, current_stream(query));
  });
  return {context, weights};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> additive_attention_bwd(
    const Tensor& dcontext, const Tensor& dweights, const Tensor& query, const Tensor& keys, const Tensor& values,
    const Tensor& v, const std::optional<Tensor>& lengths) {
  const char* op = "additive_attention_bwd";
  const Attention attention = check_attention(op, query, keys, values, v, lengths);
  const AttentionSizes& sizes = attention.sizes;
  check_tensor(op, "dcontext", dcontext, query, {sizes.B, sizes.D});
  check_tensor(op, "dweights", dweights, query, {sizes.B, sizes.L});
  const Tensor upstream = torch::stable::contiguous(dcontext), upstream_weights = torch::stable::contiguous(dweights);
  const Tensor dquery = new_gradient(query), dkeys = new_gradient(keys), dvalues = new_gradient(values);
  const Tensor dv = new_gradient(v);
  const auto dv_of_samples = new_partials(query, sizes.B * sizes.A);
  attention.run(op, true, [&]<typename T>(const AttentionInputs<T>& inputs) {
    const AttentionGradients<T> gradients{
        out<T>(dquery), out<T>(dkeys), out<T>(dvalues), out<T>(dv), out<Compute<T>>(dv_of_samples)};
    launch_attention_bwd(gradients, in<T>(upstream), in<T>(upstream_weights), inputs, sizes, current_stream(query));
  });
  return {dquery, dkeys, dvalues, dv};
}

}  // namespace

FASTDRAW_CUDA_LIBRARY(m) {
  m.impl("additive_attention", TORCH_BOX(&additive_attention));
  m.impl("additive_attention_bwd", TORCH_BOX(&additive_attention_bwd));
}

}  // namespace fastdraw
