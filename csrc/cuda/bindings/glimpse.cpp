#include "cuda/glimpse.h"

#include <limits>
#include <optional>
#include <tuple>

#include "cuda/bindings/tensor.h"

namespace fastdraw {
namespace {

GlimpseShape glimpse_shape(const char* op, int64_t C, int64_t H, int64_t W, int64_t n, bool per_axis, double eps) {
  constexpr int64_t kMost = std::numeric_limits<int>::max();
  STD_TORCH_CHECK(
      n >= 1 && H >= 1 && W >= 1 && C <= kMost && H <= kMost / n && W <= kMost / n, op, ": ", n, " filters of ", H,
      " and of ", W, " pixels are none or too many");
  return {static_cast<int>(C), static_cast<int>(H), static_cast<int>(W), static_cast<int>(n), per_axis, eps};
}

// Runs body(T{}, plan) with the C++ type of a dtype.
template <typename Body>
void dispatch_plan(const char* op, const Tensor& like, const GlimpseShape& shape, int parts, bool backward, Body body) {
  dispatch_dtype(op, like.scalar_type(), [&](auto zero) {
    const size_t most = shared_limit(like);
    const GlimpsePlan plan = plan_glimpse<Compute<decltype(zero)>>(shape, parts, backward, most);
    STD_TORCH_CHECK(
        plan.bytes <= most, op, ": a glimpse of ", shape.N, " x ", shape.N, " needs ", plan.bytes,
        " bytes of shared memory, and a block of this GPU has ", most, " at most; use a smaller n or another backend");
    body(zero, plan);
  });
  check_launch(op);
}

Tensor read(
    const char* op, const Tensor& image, const std::optional<Tensor>& canvas, const Tensor& window, int64_t n,
    bool per_axis, double eps) {
  STD_TORCH_CHECK(image.dim() == 4, op, ": image must have shape (B, C, H, W)");
  const int64_t B = image.size(0), C = image.size(1), H = image.size(2), W = image.size(3);
  const GlimpseShape shape = glimpse_shape(op, C, H, W, n, per_axis, eps);
  check_tensor(op, "window", window, image, {B, 5});
  if (canvas) check_tensor(op, "canvas", *canvas, image, {B, C, H, W});

  const DeviceGuard guard(image);
  const Tensor image_rows = torch::stable::contiguous(image), window_rows = torch::stable::contiguous(window);
  const std::optional<Tensor> canvas_rows = contiguous(canvas);
  const Tensor patch =
      canvas ? torch::stable::new_empty(image, {B, 2 * C * n * n}) : torch::stable::new_empty(image, {B, C, n, n});
  dispatch_plan(op, image, shape, canvas ? 2 : 1, false, [&](auto zero, const GlimpsePlan& plan) {
    using T = decltype(zero);
    launch_glimpse_read_fwd(
        out<T>(patch), in<T>(image_rows), in<T>(canvas_rows), in<T>(window_rows), B, plan, current_stream(image));
  });
  return patch;
}

Tensor glimpse_read(const Tensor& image, const Tensor& window, int64_t n, bool per_axis, double eps) {
  return read("glimpse_read", image, std::nullopt, window, n, per_axis, eps);
}

Tensor draw_read(
    const Tensor& image, const Tensor& canvas, const Tensor& window, int64_t n, bool per_axis, double eps) {
  return read("draw_read", image, canvas, window, n, per_axis, eps);
}

Tensor glimpse_write(
    const Tensor& patch, const Tensor& window, const std::optional<Tensor>& canvas, int64_t height, int64_t width,
    bool per_axis, double eps) {
  const char* op = "glimpse_write";
  STD_TORCH_CHECK(patch.dim() == 4, op, ": patch must have shape (B, C, N, N)");
  const int64_t B = patch.size(0), C = patch.size(1), n = patch.size(3);
  const GlimpseShape shape = glimpse_shape(op, C, height, width, n, per_axis, eps);
  check_tensor(op, "patch", patch, patch, {B, C, n, n});
  check_tensor(op, "window", window, patch, {B, 5});
  if (canvas) check_tensor(op, "canvas", *canvas, patch, {B, C, height, width});

  const DeviceGuard guard(patch);
  const Tensor patch_rows = torch::stable::contiguous(patch), window_rows = torch::stable::contiguous(window);
  const std::optional<Tensor> canvas_rows = contiguous(canvas);
  const Tensor written = torch::stable::new_empty(patch, {B, C, height, width});
  dispatch_plan(op, patch, shape, 1, false, [&](auto zero, const GlimpsePlan& plan) {
    using T = decltype(zero);
    launch_glimpse_write_fwd(
        out<T>(written), in<T>(patch_rows), in<T>(canvas_rows), in<T>(window_rows), B, plan, current_stream(patch));
  });
  return written;
}

std::tuple<Tensor, Tensor, Tensor> read_bwd(
    const char* op, const Tensor& dpatch, const Tensor& image, const std::optional<Tensor>& canvas,
    const Tensor& window, int64_t n, bool per_axis, double eps, bool need_dimage) {
  STD_TORCH_CHECK(image.dim() == 4, op, ": image must have shape (B, C, H, W)");
  const int64_t B = image.size(0), C = image.size(1), H = image.size(2), W = image.size(3);
  const GlimpseShape shape = glimpse_shape(op, C, H, W, n, per_axis, eps);
  check_tensor(op, "window", window, image, {B, 5});
  if (!canvas) {
    check_tensor(op, "dpatch", dpatch, image, {B, C, n, n});
  } else {
    check_tensor(op, "dglimpse", dpatch, image, {B, 2 * C * n * n});
    check_tensor(op, "canvas", *canvas, image, {B, C, H, W});
  }

  const DeviceGuard guard(image);
  const Tensor dpatch_rows = torch::stable::contiguous(dpatch), image_rows = torch::stable::contiguous(image);
  const std::optional<Tensor> canvas_rows = contiguous(canvas);
  const Tensor window_rows = torch::stable::contiguous(window);
  const Tensor dimage = new_gradient(image, need_dimage), dcanvas = new_gradient(image, canvas.has_value());
  const Tensor dwindow = torch::stable::new_empty(window, {B, 5});
  dispatch_plan(op, image, shape, canvas ? 2 : 1, true, [&](auto zero, const GlimpsePlan& plan) {
    using T = decltype(zero);
    launch_glimpse_read_bwd(
        out_if<T>(need_dimage, dimage), out_if<T>(canvas.has_value(), dcanvas), out<T>(dwindow), in<T>(dpatch_rows),
        in<T>(image_rows), in<T>(canvas_rows), in<T>(window_rows), B, plan, current_stream(image));
  });
  return {dimage, dcanvas, dwindow};
}

std::tuple<Tensor, Tensor> glimpse_read_bwd(
    const Tensor& dpatch, const Tensor& image, const Tensor& window, int64_t n, bool per_axis, double eps,
    bool need_dimage) {
  const auto [dimage, dcanvas, dwindow] =
      read_bwd("glimpse_read_bwd", dpatch, image, std::nullopt, window, n, per_axis, eps, need_dimage);
  return {dimage, dwindow};
}

std::tuple<Tensor, Tensor, Tensor> draw_read_bwd(
    const Tensor& dglimpse, const Tensor& image, const Tensor& canvas, const Tensor& window, int64_t n, bool per_axis,
    double eps, bool need_dimage) {
  return read_bwd("draw_read_bwd", dglimpse, image, canvas, window, n, per_axis, eps, need_dimage);
}

std::tuple<Tensor, Tensor> glimpse_write_bwd(
    const Tensor& dcanvas, const Tensor& patch, const Tensor& window, bool per_axis, double eps) {
  const char* op = "glimpse_write_bwd";
  STD_TORCH_CHECK(patch.dim() == 4, op, ": patch must have shape (B, C, N, N)");
  STD_TORCH_CHECK(dcanvas.dim() == 4, op, ": dcanvas must have shape (B, C, H, W)");
  const int64_t B = patch.size(0), C = patch.size(1), n = patch.size(3), H = dcanvas.size(2), W = dcanvas.size(3);
  const GlimpseShape shape = glimpse_shape(op, C, H, W, n, per_axis, eps);
  check_tensor(op, "patch", patch, patch, {B, C, n, n});
  check_tensor(op, "dcanvas", dcanvas, patch, {B, C, H, W});
  check_tensor(op, "window", window, patch, {B, 5});

  const DeviceGuard guard(patch);
  const Tensor dcanvas_rows = torch::stable::contiguous(dcanvas), patch_rows = torch::stable::contiguous(patch);
  const Tensor window_rows = torch::stable::contiguous(window);
  const Tensor dpatch = torch::stable::new_empty(patch, {B, C, n, n});
  const Tensor dwindow = torch::stable::new_empty(window, {B, 5});
  dispatch_plan(op, patch, shape, 1, true, [&](auto zero, const GlimpsePlan& plan) {
    using T = decltype(zero);
    launch_glimpse_write_bwd(
        out<T>(dpatch), out<T>(dwindow), in<T>(dcanvas_rows), in<T>(patch_rows), in<T>(window_rows), B, plan,
        current_stream(patch));
  });
  return {dpatch, dwindow};
}

}  // namespace

FASTDRAW_CUDA_LIBRARY(m) {
  m.impl("glimpse_read", TORCH_BOX(&glimpse_read));
  m.impl("glimpse_read_bwd", TORCH_BOX(&glimpse_read_bwd));
  m.impl("glimpse_write", TORCH_BOX(&glimpse_write));
  m.impl("glimpse_write_bwd", TORCH_BOX(&glimpse_write_bwd));
  m.impl("draw_read", TORCH_BOX(&draw_read));
  m.impl("draw_read_bwd", TORCH_BOX(&draw_read_bwd));
}

}  // namespace fastdraw
