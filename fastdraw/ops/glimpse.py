"""Gaussian glimpses: read a patch from an image, write one onto a canvas, and DRAW's read of an image and its error.

    patch[b,c,i,j]  = gamma[b] sum_{h,w} fy[b,i,h] image[b,c,h,w] fx[b,j,w]
    canvas[b,c,h,w] += 1/gamma[b] sum_{i,j} fy[b,i,h] patch[b,c,i,j] fx[b,j,w]

The filters are made from the window inside the kernels and never stored.
"""

import torch
from torch import Tensor

from .. import reference
from ..checks import check_size, check_tensors, check_window_options
from . import autocast
from .filterbank import grid
from .op import Native, Op, vjp


def glimpse_read(image: Tensor, window: Tensor, n: int, *, stride: str = "max", eps: float = 1e-8) -> Tensor:
    """Read an n x n patch from an image through a grid of Gaussian filters (Gregor et al. 2015, eq. 27).

    Args:
        image (B, C, H, W): any float dtype, any strides.
        window (B, 5): gx~, gy~, log sigma^2, log delta~, log gamma, as they leave a linear layer.
        n: side of the patch, n >= 1.
        stride: "max" (one spacing for both axes) or "per_axis".
        eps: added to each filter's sum.
    Returns:
        patch (B, C, n, n), dtype and device of image.
    Raises:
        TypeError: image or window is no float tensor, or they differ in dtype.
        ValueError: any mismatch of shape or device, or an option out of range.
    Example:
        >>> glimpse_read(torch.rand(2, 1, 32, 64), torch.zeros(2, 5), 8).shape
        torch.Size([2, 1, 8, 8])
    """
    image, window = autocast.to_lower(image, window)
    check_tensors("glimpse_read", image=(image, "B C H W"), window=(window, "B 5"))
    check_window_options("glimpse_read", n, stride, eps)
    check_size("glimpse_read", (image.shape[-2], image.shape[-1]))
    return _glimpse_read(image, window, n, stride == "per_axis", eps)


def glimpse_write(
    patch: Tensor,
    window: Tensor,
    size: tuple[int, int],
    *,
    canvas: Tensor | None = None,
    stride: str = "max",
    eps: float = 1e-8,
) -> Tensor:
    """Write an n x n patch onto an image through a grid of Gaussian filters (Gregor et al. 2015, eq. 28-29).

    Under autocast the canvas keeps its dtype, so that a sum over many steps is not rounded at each.

    Args:
        patch (B, C, n, n): any float dtype, any strides.
        window (B, 5): as in `glimpse_read`.
        size: (H, W) of the image in pixels.
        canvas (B, C, H, W): what to add the written image to; nothing by default. It is not modified.
        stride, eps: as in `glimpse_read`.
    Returns:
        canvas + written (B, C, H, W), dtype and device of patch.
    Raises:
        TypeError: an argument is no float tensor, or dtypes differ.
        ValueError: any mismatch of shape or device, or an option out of range.
    Example:
        >>> glimpse_write(torch.rand(2, 1, 8, 8), torch.zeros(2, 5), (32, 64)).shape
        torch.Size([2, 1, 32, 64])
    """
    patch, window = autocast.to_lower(patch, window)
    height, width = check_size("glimpse_write", size)
    if canvas is not None and _keeps_its_dtype(canvas, patch):
        written = glimpse_write(patch, window, size, stride=stride, eps=eps)
        check_tensors("glimpse_write", canvas=(canvas, " ".join(map(str, written.shape))))
        return canvas + written
    check_tensors(
        "glimpse_write", patch=(patch, "B C N N"), window=(window, "B 5"), canvas=(canvas, f"B C {height} {width}?")
    )
    check_window_options("glimpse_write", patch.shape[-1], stride, eps)
    return _glimpse_write(patch, window, canvas, height, width, stride == "per_axis", eps)


def draw_read(
    image: Tensor, canvas: Tensor, window: Tensor, n: int, *, stride: str = "max", eps: float = 1e-8
) -> Tensor:
    """Read an image and what the canvas still lacks of it, in one pass (paper 000, eq. 11-12).

        [read(image), read(image - sigmoid(canvas))], flattened

    Args:
        image (B, C, H, W): values in [0, 1].
        canvas (B, C, H, W): logits.
        window (B, 5), n, stride, eps: as in `glimpse_read`.
    Returns:
        glimpses (B, 2 C n n), dtype and device of image.
    Raises:
        TypeError: an argument is no float tensor, or dtypes differ.
        ValueError: any mismatch of shape or device, or an option out of range.
    Example:
        >>> draw_read(torch.rand(2, 1, 32, 64), torch.zeros(2, 1, 32, 64), torch.zeros(2, 5), 8).shape
        torch.Size([2, 128])
    """
    image, canvas, window = autocast.to_lower(image, canvas, window)
    check_tensors("draw_read", image=(image, "B C H W"), canvas=(canvas, "B C H W"), window=(window, "B 5"))
    check_window_options("draw_read", n, stride, eps)
    check_size("draw_read", (image.shape[-2], image.shape[-1]))
    return _draw_read(image, canvas, window, n, stride == "per_axis", eps)


def _keeps_its_dtype(canvas, patch):
    if not (isinstance(canvas, Tensor) and isinstance(patch, Tensor) and autocast.is_enabled(canvas.device.type)):
        return False
    return canvas.dtype == torch.float32 and patch.dtype in (torch.bfloat16, torch.float16)


def _reference_read(image, window, n, per_axis, eps):
    return reference.glimpse_read(image, window, n, **grid(per_axis, eps))


def _reference_read_bwd(dpatch, image, window, n, per_axis, eps, need_dimage):
    dimage, dwindow = vjp(lambda *tensors: _reference_read(*tensors, n, per_axis, eps), (image, window), (dpatch,))
    return dimage if need_dimage else image.new_empty(0), dwindow


def _fake_read(image, window, n, per_axis, eps):
    return image.new_empty(*image.shape[:2], n, n)


def _fake_read_bwd(dpatch, image, window, n, per_axis, eps, need_dimage):
    return image.new_empty(image.shape if need_dimage else 0), window.new_empty(window.shape)


def _backward_read(bwd, grads, tensors, scalars, needs):
    dimage, dwindow = bwd(*grads, *tensors, *scalars, needs[0])
    return dimage if needs[0] else None, dwindow


_glimpse_read = Op(
    "glimpse_read",
    "glimpse",
    _reference_read,
    Native(
        frozenset({"cuda", "triton", "cpu"}),
        "(Tensor image, Tensor window, int n, bool per_axis, float eps) -> Tensor",
        "(Tensor dpatch, Tensor image, Tensor window, int n, bool per_axis, float eps, bool need_dimage)"
        " -> (Tensor dimage, Tensor dwindow)",
        _fake_read,
        _fake_read_bwd,
        2,
        _backward_read,
        _reference_read_bwd,
    ),
)


def _reference_write(patch, window, canvas, height, width, per_axis, eps):
    return reference.glimpse_write(patch, window, (height, width), canvas=canvas, **grid(per_axis, eps))


def _reference_write_bwd(dcanvas, patch, window, per_axis, eps):
    scalars = (None, *dcanvas.shape[-2:], per_axis, eps)
    return vjp(lambda *tensors: _reference_write(*tensors, *scalars), (patch, window), (dcanvas,))


def _fake_write(patch, window, canvas, height, width, per_axis, eps):
    return patch.new_empty(*patch.shape[:2], height, width)


def _fake_write_bwd(dcanvas, patch, window, per_axis, eps):
    return patch.new_empty(patch.shape), window.new_empty(window.shape)


def _backward_write(bwd, grads, tensors, scalars, needs):
    _height, _width, per_axis, eps = scalars
    dpatch, dwindow = bwd(*grads, *tensors, per_axis, eps) if needs[0] or needs[1] else (None, None)
    return dpatch, dwindow, grads[0] if needs[2] else None


_glimpse_write = Op(
    "glimpse_write",
    "glimpse",
    _reference_write,
    Native(
        frozenset({"cuda", "triton", "cpu"}),
        "(Tensor patch, Tensor window, Tensor? canvas, int height, int width, bool per_axis, float eps) -> Tensor",
        "(Tensor dcanvas, Tensor patch, Tensor window, bool per_axis, float eps) -> (Tensor dpatch, Tensor dwindow)",
        _fake_write,
        _fake_write_bwd,
        2,
        _backward_write,
        _reference_write_bwd,
    ),
)


def _reference_draw_read(image, canvas, window, n, per_axis, eps):
    return reference.draw_read(image, canvas, window, n, **grid(per_axis, eps))


def _reference_draw_read_bwd(dglimpse, image, canvas, window, n, per_axis, eps, need_dimage):
    tensors = image, canvas, window
    dimage, *others = vjp(lambda *tensors: _reference_draw_read(*tensors, n, per_axis, eps), tensors, (dglimpse,))
    return dimage if need_dimage else image.new_empty(0), *others


def _fake_draw_read(image, canvas, window, n, per_axis, eps):
    return image.new_empty(image.shape[0], 2 * image.shape[1] * n * n)


def _fake_draw_read_bwd(dglimpse, image, canvas, window, n, per_axis, eps, need_dimage):
    dimage = image.new_empty(image.shape if need_dimage else 0)
    return dimage, canvas.new_empty(canvas.shape), window.new_empty(window.shape)


def _backward_draw_read(bwd, grads, tensors, scalars, needs):
    dimage, dcanvas, dwindow = bwd(*grads, *tensors, *scalars, needs[0])
    return dimage if needs[0] else None, dcanvas, dwindow


_draw_read = Op(
    "draw_read",
    "glimpse",
    _reference_draw_read,
    Native(
        frozenset({"cuda", "triton", "cpu"}),
        "(Tensor image, Tensor canvas, Tensor window, int n, bool per_axis, float eps) -> Tensor",
        "(Tensor dglimpse, Tensor image, Tensor canvas, Tensor window, int n, bool per_axis, float eps,"
        " bool need_dimage) -> (Tensor dimage, Tensor dcanvas, Tensor dwindow)",
        _fake_draw_read,
        _fake_draw_read_bwd,
        3,
        _backward_draw_read,
        _reference_draw_read_bwd,
    ),
)
