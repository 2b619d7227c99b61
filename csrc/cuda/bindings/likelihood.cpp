#include "cuda/likelihood.h"

#include <tuple>

#include "cuda/bindings/tensor.h"

namespace fastdraw {
namespace {

// Samples of any shape as rows of P elements.
struct Rows {
  int64_t B, P = 1;

  Rows(const char* op, const char* name, const Tensor& tensor) {
    STD_TORCH_CHECK(tensor.dim() >= 1, op, ": ", name, " must have shape (B, ...)");
    B = tensor.size(0);
    for (int64_t axis = 1; axis < tensor.dim(); ++axis) P *= tensor.size(axis);
  }
};

// Calls body(sums of rows) with the C++ type of the dtype of `like`, and returns the sums.
template <typename Body>
Tensor with_sums(const char* op, const Tensor& like, const Rows& rows, const Body& body) {
  const DeviceGuard guard(like);
  const Tensor sums = torch::stable::new_empty(like, {rows.B});
  dispatch_dtype(op, like.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const auto partials = new_partials(like, RowSums<T>::count_partials(rows.B, rows.P));
    body(RowSums<T>{out<T>(sums), out<Compute<T>>(partials), rows.B, rows.P});
  });
  check_launch(op);
  return sums;
}

Tensor bernoulli_nll(const Tensor& logits, const Tensor& target) {
  const char* op = "bernoulli_nll";
  const Rows rows(op, "logits", logits);
  check_tensor(op, "target", target, logits, logits.sizes());
  return with_sums(op, logits, rows, [&]<typename T>(const RowSums<T>& nll) {
    const Tensor x = torch::stable::contiguous(logits), t = torch::stable::contiguous(target);
    launch_bernoulli_fwd(nll, in<T>(x), in<T>(t), current_stream(logits));
  });
}

Tensor gaussian_nll(const Tensor& mean, const Tensor& log_sigma, const Tensor& target) {
  const char* op = "gaussian_nll";
  const Rows rows(op, "mean", mean);
  check_tensor(op, "log_sigma", log_sigma, mean, mean.sizes());
  check_tensor(op, "target", target, mean, mean.sizes());
  return with_sums(op, mean, rows, [&]<typename T>(const RowSums<T>& nll) {
    const Tensor m = torch::stable::contiguous(mean), s = torch::stable::contiguous(log_sigma);
    const Tensor t = torch::stable::contiguous(target);
    launch_gaussian_fwd(nll, in<T>(m), in<T>(s), in<T>(t), current_stream(mean));
  });
}

std::tuple<Tensor, Tensor> bernoulli_nll_bwd(
    const Tensor& dnll, const Tensor& logits, const Tensor& target, bool need_dtarget) {
  const char* op = "bernoulli_nll_bwd";
  const Rows rows(op, "logits", logits);
  check_tensor(op, "dnll", dnll, logits, {rows.B});
  check_tensor(op, "target", target, logits, logits.sizes());

  const DeviceGuard guard(logits);
  const Tensor upstream = torch::stable::contiguous(dnll);
  const Tensor x = torch::stable::contiguous(logits), t = torch::stable::contiguous(target);
  const Tensor dlogits = new_gradient(logits), dtarget = new_gradient(target, need_dtarget);
  dispatch_dtype(op, logits.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    launch_bernoulli_bwd(
        out<T>(dlogits), out_if<T>(need_dtarget, dtarget), in<T>(upstream), in<T>(x), in<T>(t), rows.B, rows.P,
        current_stream(logits));
  });
  check_launch(op);
  return {dlogits, dtarget};
}

std::tuple<Tensor, Tensor> gaussian_nll_bwd(
    const Tensor& dnll, const Tensor& mean, const Tensor& log_sigma, const Tensor& target) {
  const char* op = "gaussian_nll_bwd";
  const Rows rows(op, "mean", mean);
  check_tensor(op, "dnll", dnll, mean, {rows.B});
  check_tensor(op, "log_sigma", log_sigma, mean, mean.sizes());
  check_tensor(op, "target", target, mean, mean.sizes());

  const DeviceGuard guard(mean);
  const Tensor upstream = torch::stable::contiguous(dnll), m = torch::stable::contiguous(mean);
  const Tensor s = torch::stable::contiguous(log_sigma), t = torch::stable::contiguous(target);
  const Tensor dmean = new_gradient(mean), dlog_sigma = new_gradient(mean);
  dispatch_dtype(op, mean.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    launch_gaussian_bwd(
        out<T>(dmean), out<T>(dlog_sigma), in<T>(upstream), in<T>(m), in<T>(s), in<T>(t), rows.B, rows.P,
        current_stream(mean));
  });
  check_launch(op);
  return {dmean, dlog_sigma};
}

}  // namespace

FASTDRAW_CUDA_LIBRARY(m) {
  m.impl("bernoulli_nll", TORCH_BOX(&bernoulli_nll));
  m.impl("bernoulli_nll_bwd", TORCH_BOX(&bernoulli_nll_bwd));
  m.impl("gaussian_nll", TORCH_BOX(&gaussian_nll));
  m.impl("gaussian_nll_bwd", TORCH_BOX(&gaussian_nll_bwd));
}

}  // namespace fastdraw
