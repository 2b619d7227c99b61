// The schema of every native op. All are functional and take tensors of any strides; the kernels are registered per
// device in cpu/ and cuda/, and what they may assume about their arguments has been checked in fastdraw/ops.
#include <string>

#include "library.h"
#include "weights.h"

namespace {

// What the rollouts share: the tensors, and the options of their relatives.
std::string rollout_tensors(const std::string& image) {
  std::string text = "Tensor noise, " + image + "Tensor? labels, Tensor? lengths, Tensor? steps";
  for (const char* name : fastdraw::kWeightNames) text += std::string(", Tensor? ") + name;
  return text;
}
const std::string kOptions =
    "int n_write, bool tanh_prior, bool standard_first, bool log_variance, bool per_axis, float eps, bool bfloat16";

std::string gradients(const std::string& others) {
  std::string text = others;
  for (const char* name : fastdraw::kWeightNames) text += std::string(", Tensor d") + name;
  return "(" + text + ")";
}

}  // namespace

FASTDRAW_LIBRARY(m) {
  m.def(
      "gaussian_filterbank(Tensor window, int n, int height, int width, bool per_axis, float eps)"
      " -> (Tensor, Tensor, Tensor)");
  m.def(
      "gaussian_filterbank_bwd(Tensor dfy, Tensor dfx, Tensor dgamma, Tensor window, int n, int height, int width, "
      "bool per_axis, float eps) -> Tensor");
  m.def("glimpse_read(Tensor image, Tensor window, int n, bool per_axis, float eps) -> Tensor");
  m.def(
      "glimpse_read_bwd(Tensor dpatch, Tensor image, Tensor window, int n, bool per_axis, float eps, "
      "bool need_dimage) -> (Tensor dimage, Tensor dwindow)");
  m.def(
      "glimpse_write(Tensor patch, Tensor window, Tensor? canvas, int height, int width, bool per_axis, float eps)"
      " -> Tensor");
  m.def(
      "glimpse_write_bwd(Tensor dcanvas, Tensor patch, Tensor window, bool per_axis, float eps)"
      " -> (Tensor dpatch, Tensor dwindow)");
  m.def("draw_read(Tensor image, Tensor canvas, Tensor window, int n, bool per_axis, float eps) -> Tensor");
  m.def(
      "draw_read_bwd(Tensor dglimpse, Tensor image, Tensor canvas, Tensor window, int n, bool per_axis, float eps, "
      "bool need_dimage) -> (Tensor dimage, Tensor dcanvas, Tensor dwindow)");
  m.def(
      "additive_attention(Tensor query, Tensor keys, Tensor values, Tensor v, Tensor? lengths)"
      " -> (Tensor context, Tensor weights)");
  m.def(
      "additive_attention_bwd(Tensor dcontext, Tensor dweights, Tensor query, Tensor keys, Tensor values, Tensor v, "
      "Tensor? lengths) -> (Tensor dquery, Tensor dkeys, Tensor dvalues, Tensor dv)");
  m.def("lstm_gates(Tensor gates, Tensor c) -> (Tensor h, Tensor c_next)");
  m.def("lstm_gates_bwd(Tensor dh, Tensor dc_next, Tensor gates, Tensor c) -> (Tensor dgates, Tensor dc)");
  m.def("gaussian_kl(Tensor mu_q, Tensor log_sigma_q, Tensor? mu_p, Tensor? log_sigma_p) -> Tensor");
  m.def(
      "gaussian_kl_bwd(Tensor dkl, Tensor mu_q, Tensor log_sigma_q, Tensor? mu_p, Tensor? log_sigma_p)"
      " -> (Tensor dmu_q, Tensor dlog_sigma_q, Tensor dmu_p, Tensor dlog_sigma_p)");
  m.def(
      "sample_kl(Tensor mu_q, Tensor log_sigma_q, Tensor noise, Tensor? mu_p, Tensor? log_sigma_p)"
      " -> (Tensor z, Tensor kl)");
  m.def(
      "sample_kl_bwd(Tensor dz, Tensor dkl, Tensor mu_q, Tensor log_sigma_q, Tensor noise, Tensor? mu_p, "
      "Tensor? log_sigma_p, bool need_dnoise)"
      " -> (Tensor dmu_q, Tensor dlog_sigma_q, Tensor dnoise, Tensor dmu_p, Tensor dlog_sigma_p)");
  m.def("bernoulli_nll(Tensor logits, Tensor target) -> Tensor");
  m.def(
      "bernoulli_nll_bwd(Tensor dnll, Tensor logits, Tensor target, bool need_dtarget)"
      " -> (Tensor dlogits, Tensor dtarget)");
  m.def("gaussian_nll(Tensor mean, Tensor log_sigma, Tensor target) -> Tensor");
  m.def(
      "gaussian_nll_bwd(Tensor dnll, Tensor mean, Tensor log_sigma, Tensor target)"
      " -> (Tensor dmean, Tensor dlog_sigma)");

  const std::string rollout = rollout_tensors("Tensor image, ") + ", int n_read, " + kOptions;
  const std::string generate = rollout_tensors("") + ", " + kOptions + ", bool frames";
  m.def(("draw_rollout(" + rollout +
         ", int saved_rows, int saved_width) -> (Tensor nll, Tensor kl, Tensor canvas, Tensor saved)")
            .c_str());
  m.def(("draw_rollout_bwd(Tensor dnll, Tensor dkl, Tensor dcanvas, Tensor saved, " + rollout +
         ", bool need_dimage, bool need_dlabels, bool need_dnoise) -> " +
         gradients("Tensor dimage, Tensor dlabels, Tensor dnoise"))
            .c_str());
  m.def(("draw_generate(" + generate + ", int saved_rows, int saved_width) -> (Tensor canvas, Tensor saved)").c_str());
  m.def(("draw_generate_bwd(Tensor dcanvas, Tensor saved, " + generate + ", bool need_dlabels, bool need_dnoise) -> " +
         gradients("Tensor dlabels, Tensor dnoise"))
            .c_str());

  // The launches of the persistent rollout: tensors, sizes and options in the order of csrc/cuda/bindings/rollout.cpp.
  m.def(
      "persistent_plan(int[] sizes, bool bfloat16, bool backward, int multiprocessors, int shared)"
      " -> (int groups, int blocks, int scratch, int shared_memory)");
  m.def(
      "persistent_forward(Tensor[] inputs, Tensor(a!)[] record, Tensor(b!)[] results, int[] sizes, float eps, "
      "bool bfloat16, bool keep, int[] plan) -> ()");
  m.def(
      "persistent_backward(Tensor[] inputs, Tensor[] record, Tensor[] gradients, Tensor(a!)[] exchanged, "
      "Tensor(b!)[] results, int[] sizes, float eps, bool bfloat16, int[] plan) -> ()");
}
