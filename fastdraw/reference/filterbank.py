"""Gaussian filterbank: five numbers per sample become two banks of n filters (Gregor et al. 2015, eq. 19-26)."""

from typing import NamedTuple

import torch
from torch import Tensor

# Ranges that keep every value and gradient finite for any finite window.
MAX_CENTRE = 1e6  # of g~, in half images
MAX_LOG = 32.0  # of log sigma^2, log delta~ and log gamma
MAX_DEVIATION = 40.0  # of (a - mu) / sigma: exp(-40^2 / 2) is 0 even in float64


class Geometry(NamedTuple):
    """Centre, spacing, width and gain of a window in pixels; every field (...,)."""

    gx: Tensor
    gy: Tensor
    delta_x: Tensor
    delta_y: Tensor
    sigma: Tensor
    gamma: Tensor


def window_geometry(window: Tensor, n: int, size: tuple[int, int], *, stride: str = "max") -> Geometry:
    """Turn raw windows (..., 5) into pixels."""
    height, width = size
    gx_raw, gy_raw, log_sigma2, log_delta, log_gamma = window.unbind(-1)
    largest = torch.finfo(window.dtype).max
    max_centre = min(MAX_CENTRE, largest)
    gx = (width + 1) / 2 * (gx_raw.clamp(-max_centre, max_centre) + 1) - 1
    gy = (height + 1) / 2 * (gy_raw.clamp(-max_centre, max_centre) + 1) - 1
    extent_x, extent_y = (width, height) if stride == "per_axis" else (max(size), max(size))
    delta = log_delta.clamp(-MAX_LOG, MAX_LOG).exp()
    steps = max(n - 1, 1)  # with n = 1 the spacing is multiplied by 0
    delta_x, delta_y = (extent_x - 1) / steps * delta, (extent_y - 1) / steps * delta
    sigma = (log_sigma2.clamp(-MAX_LOG, MAX_LOG) / 2).exp()
    gamma = log_gamma.clamp(-MAX_LOG, MAX_LOG).exp().clamp(max=largest)
    return Geometry(gx, gy, delta_x, delta_y, sigma, gamma)


def gaussian_filterbank(
    window: Tensor, n: int, size: tuple[int, int], *, stride: str = "max", eps: float = 1e-8
) -> tuple[Tensor, Tensor, Tensor]:
    """Filters fy (B, n, H) and fx (B, n, W), and the gain gamma (B,)."""
    at = window_geometry(window, n, size, stride=stride)
    fy = _filters(at.gy, at.delta_y, at.sigma, n, size[0], eps)
    fx = _filters(at.gx, at.delta_x, at.sigma, n, size[1], eps)
    return fy, fx, at.gamma


def _filters(centre: Tensor, delta: Tensor, sigma: Tensor, n: int, length: int, eps: float) -> Tensor:
    i = torch.arange(n, dtype=centre.dtype, device=centre.device)
    a = torch.arange(length, dtype=centre.dtype, device=centre.device)
    mu = centre[:, None] + (i - (n - 1) / 2) * delta[:, None]  # (B, n)
    u = (a - mu[:, :, None]) / sigma[:, None, None]  # (B, n, length)
    e = torch.exp(-(u.clamp(-MAX_DEVIATION, MAX_DEVIATION) ** 2) / 2)
    return e / (e.sum(-1, keepdim=True) + eps)
