"""Gaussian glimpses: read a patch from an image, write one onto a canvas (Gregor et al. 2015, eq. 27-29)."""

import torch
from torch import Tensor

from .filterbank import gaussian_filterbank


def glimpse_read(image: Tensor, window: Tensor, n: int, *, stride: str = "max", eps: float = 1e-8) -> Tensor:
    """gamma * fy @ image @ fx^T: (B, C, H, W) -> (B, C, n, n)."""
    fy, fx, gamma = gaussian_filterbank(window, n, (image.shape[-2], image.shape[-1]), stride=stride, eps=eps)
    patch = fy[:, None] @ image @ fx[:, None].mT  # (B, C, n, n)
    return gamma[:, None, None, None] * patch


def glimpse_write(
    patch: Tensor,
    window: Tensor,
    size: tuple[int, int],
    *,
    canvas: Tensor | None = None,
    stride: str = "max",
    eps: float = 1e-8,
) -> Tensor:
    """[canvas +] (1 / gamma) * fy^T @ patch @ fx: (B, C, n, n) -> (B, C, H, W)."""
    fy, fx, gamma = gaussian_filterbank(window, patch.shape[-1], size, stride=stride, eps=eps)
    written = fy[:, None].mT @ patch @ fx[:, None] / gamma[:, None, None, None]  # (B, C, H, W)
    return written if canvas is None else canvas + written


def draw_read(
    image: Tensor, canvas: Tensor, window: Tensor, n: int, *, stride: str = "max", eps: float = 1e-8
) -> Tensor:
    """[read(image), read(image - sigmoid(canvas))], flattened: (B, 2 C n n)."""
    both = torch.cat([image, image - torch.sigmoid(canvas)], dim=1)  # (B, 2C, H, W)
    return glimpse_read(both, window, n, stride=stride, eps=eps).flatten(1)
