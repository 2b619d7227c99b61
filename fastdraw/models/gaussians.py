"""Gaussians with full covariances: KL divergence (paper 002, eq. 5; paper 004, theorem 1.3) and log-density.

KL(q || p) = 1/2 [log(det S_p / det S_q) - K + tr(S_q S_p^-1) + (mu_q - mu_p)^T S_p^-1 (mu_q - mu_p)]     in nats

With S = L L^T no matrix is inverted: log det S = 2 sum log diag L, tr(S_q S_p^-1) = |L_p^-1 L_q|^2, and the last term
is |L_p^-1 (mu_q - mu_p)|^2. Where both S are diagonal, `fastdraw.ops.gaussian_kl` is the same and needs no factors.
"""

import math

import torch
from torch import Tensor
from torch.linalg import solve_triangular

from ..checks import check_tensors


def gaussian_kl_full(mu_q: Tensor, cov_q: Tensor, mu_p: Tensor, cov_p: Tensor) -> Tensor:
    """KL divergence of Gaussians with full covariances.

    Args:
        mu_q (B, K), mu_p (B, K): means, float32 or float64.
        cov_q (B, K, K), cov_p (B, K, K): covariances, symmetric and positive definite.
    Returns:
        KL(q || p) (B,) in nats.
    Raises:
        TypeError: an argument is no float32 or float64 tensor, or dtypes differ.
        ValueError: any mismatch of shape or device, or a covariance that is none.
    Example:
        >>> one = torch.eye(2)[None]
        >>> gaussian_kl_full(torch.ones(1, 2), one, torch.zeros(1, 2), one)
        tensor([1.])
    """
    name = "gaussian_kl_full"
    check_tensors(name, mu_q=(mu_q, "B K"), cov_q=(cov_q, "B K K"), mu_p=(mu_p, "B K"), cov_p=(cov_p, "B K K"))
    factor_q, factor_p = _factor(name, "cov_q", cov_q), _factor(name, "cov_p", cov_p)
    ratio = solve_triangular(factor_p, factor_q, upper=False)
    gap = _whiten(factor_p, mu_q - mu_p)
    log_ratio = _half_log_det(factor_p) - _half_log_det(factor_q)
    return log_ratio + (ratio.square().sum((1, 2)) + gap.square().sum(1) - mu_q.shape[1]) / 2


def gaussian_log_density(x: Tensor, mu: Tensor, cov: Tensor) -> Tensor:
    """log N(x; mu, cov), with its constant.

    Args:
        x (B, K), mu (B, K): float32 or float64.
        cov (B, K, K): symmetric and positive definite.
    Returns:
        log-density (B,) in nats.
    Raises:
        TypeError, ValueError: as `gaussian_kl_full`.
    Example:
        >>> gaussian_log_density(torch.zeros(1, 2), torch.zeros(1, 2), torch.eye(2)[None])
        tensor([-1.8379])
    """
    name = "gaussian_log_density"
    check_tensors(name, x=(x, "B K"), mu=(mu, "B K"), cov=(cov, "B K K"))
    factor = _factor(name, "cov", cov)
    square = _whiten(factor, x - mu).square().sum(1)
    return -_half_log_det(factor) - (square + x.shape[1] * math.log(2 * math.pi)) / 2


def _factor(function: str, name: str, cov: Tensor) -> Tensor:
    """The lower factor of covariances (B, K, K), which Cholesky reads the lower halves of."""
    if cov.dtype not in (torch.float32, torch.float64):
        came = str(cov.dtype).removeprefix("torch.")
        raise TypeError(f"{function}: {name} must be float32 or float64, got {came}; call float()")
    scale = cov.diagonal(dim1=1, dim2=2).abs().sqrt()
    # Of a product of matrices, rounding may leave the halves apart in their last digits.
    apart = (cov - cov.mT).abs() > math.sqrt(torch.finfo(cov.dtype).eps) * scale[:, :, None] * scale[:, None]
    _refuse(function, name, "symmetric", apart.flatten(1).any(1))
    factor, failed_at = torch.linalg.cholesky_ex(cov)
    _refuse(function, name, "positive definite", failed_at > 0)
    return factor


def _refuse(function: str, name: str, expected: str, wrong: Tensor) -> None:
    if bool(wrong.any()):
        number = int(wrong.nonzero()[0])
        raise ValueError(f"{function}: {name} must be {expected}, got one that is not at {name}[{number}]")


def _whiten(factor: Tensor, gap: Tensor) -> Tensor:
    """L^-1 gap (B, K)."""
    return solve_triangular(factor, gap[:, :, None], upper=False)[:, :, 0]


def _half_log_det(factor: Tensor) -> Tensor:
    return factor.diagonal(dim1=1, dim2=2).log().sum(1)
