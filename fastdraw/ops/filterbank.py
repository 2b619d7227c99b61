"""The Gaussian filterbank behind every glimpse: five numbers per sample become two banks of n filters.

    gx = (W+1)/2 (gx~ + 1) - 1                            mu_x[i] = gx + (i - (n-1)/2) delta_x
    delta_x = (max(H,W) - 1)/(n - 1) exp(log delta~)      fx[i,a] = e[i,a] / (sum_a e[i,a] + eps)
                                                          e[i,a] = exp(-(a - mu_x[i])^2 / (2 sigma^2))

and the same for y. Columns are a = 0..W-1; at window = 0 the outermost filters sit on the first and the last pixel.
"""

import torch
from torch import Tensor

from .. import reference
from ..checks import check_size, check_tensors, check_window_options
from . import autocast
from .op import Native, Op, vjp


def gaussian_filterbank(
    window: Tensor, n: int, size: tuple[int, int], *, stride: str = "max", eps: float = 1e-8
) -> tuple[Tensor, Tensor, Tensor]:
    """Make the filters of a window (Gregor et al. 2015, eq. 19-26, on 0-based pixels).

    Values and gradients are finite for any finite window: g~ counts up to +-1e6 and the three logs up to +-32, and
    beyond that their gradients are 0.

    Args:
        window (B, 5): gx~, gy~, log sigma^2, log delta~, log gamma, as they leave a linear layer; any float dtype.
        n: filters per axis, n >= 1; with n = 1 the spacing has no effect.
        size: (H, W) of the image in pixels.
        stride: "max" (one spacing for both axes, from the longer side) or "per_axis".
        eps: added to each filter's sum.
    Returns:
        fy (B, n, H), fx (B, n, W) and gamma (B,), dtype and device of window.
    Raises:
        TypeError: window is no float tensor.
        ValueError: window is not (B, 5), or an option is out of range.
    Example:
        >>> fy, fx, gamma = gaussian_filterbank(torch.zeros(2, 5), 8, (32, 64))
        >>> fx[0, 0].argmax().item(), fx[0, 7].argmax().item()
        (0, 63)
    """
    (window,) = autocast.to_lower(window)
    check_tensors("gaussian_filterbank", window=(window, "B 5"))
    check_window_options("gaussian_filterbank", n, stride, eps)
    height, width = check_size("gaussian_filterbank", size)
    fy, fx, gamma = _gaussian_filterbank(window, n, height, width, stride == "per_axis", eps)
    # Only float16 is too small for exp of the largest log; finite for any finite window is promised there too.
    return fy, fx, gamma.clamp(max=torch.finfo(torch.float16).max) if gamma.dtype == torch.float16 else gamma


def grid(per_axis: bool, eps: float) -> dict[str, str | float]:
    """The keywords of the reference for the scalars of the kernels."""
    return {"stride": "per_axis" if per_axis else "max", "eps": eps}


def _reference(window, n, height, width, per_axis, eps):
    return reference.gaussian_filterbank(window, n, (height, width), **grid(per_axis, eps))


def _reference_bwd(dfy, dfx, dgamma, window, *scalars):
    return vjp(lambda window: _reference(window, *scalars), (window,), (dfy, dfx, dgamma))[0]


def _fake(window, n, height, width, per_axis, eps):
    batch = window.shape[0]
    return window.new_empty(batch, n, height), window.new_empty(batch, n, width), window.new_empty(batch)


def _fake_bwd(dfy, dfx, dgamma, window, *scalars):
    return torch.empty_like(window, memory_format=torch.contiguous_format)


def _backward(bwd, grads, tensors, scalars, needs):
    return (bwd(*grads, *tensors, *scalars),)


_gaussian_filterbank = Op(
    "gaussian_filterbank",
    "filterbank",
    _reference,
    Native(
        frozenset({"cuda", "triton", "cpu"}),
        "(Tensor window, int n, int height, int width, bool per_axis, float eps) -> (Tensor, Tensor, Tensor)",
        "(Tensor dfy, Tensor dfx, Tensor dgamma, Tensor window, int n, int height, int width, bool per_axis, float eps)"
        " -> Tensor",
        _fake,
        _fake_bwd,
        1,
        _backward,
        _reference_bwd,
    ),
)
