// The schema of every native op. All are functional and take tensors of any strides; the kernels are registered per
// device in cpu/ and cuda/, and what they may assume about their arguments has been checked in fastdraw/ops.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(fastdraw, m) {
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
  m.def("lstm_gates(Tensor gates, Tensor c) -> (Tensor h, Tensor c_next)");
  m.def("lstm_gates_bwd(Tensor dh, Tensor dc_next, Tensor gates, Tensor c) -> (Tensor dgates, Tensor dc)");
}
