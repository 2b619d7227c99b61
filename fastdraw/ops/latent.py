"""The latent variable of a variational autoencoder: its KL divergence, and a reparameterised sample of it.

z = mu_q + sigma_q noise
KL(q || p) = 1/2 sum [((mu_q - mu_p)^2 + sigma_q^2) / sigma_p^2 - log(sigma_q^2 / sigma_p^2) - 1]      in nats
"""

from torch import Tensor

from .. import reference
from ..checks import check_tensors
from . import autocast
from .op import Op


def gaussian_kl(
    mu_q: Tensor, log_sigma_q: Tensor, mu_p: Tensor | None = None, log_sigma_p: Tensor | None = None
) -> Tensor:
    """KL divergence of diagonal Gaussians (paper 000, appendix, with its printing errors mended).

    Args:
        mu_q (B, Z), log_sigma_q (B, Z): mean and log standard deviation of q.
        mu_p (B, Z), log_sigma_p (B, Z): those of p; the standard normal when both are left out.
    Returns:
        KL(q || p) (B,) in nats.
    Raises:
        TypeError: an argument is no float tensor, or dtypes differ.
        ValueError: any mismatch of shape or device, or only one half of p.
    Example:
        >>> gaussian_kl(torch.zeros(2, 100), torch.zeros(2, 100))
        tensor([0., 0.])
    """
    mu_q, log_sigma_q, mu_p, log_sigma_p = autocast.to_float32(mu_q, log_sigma_q, mu_p, log_sigma_p)
    _check("gaussian_kl", mu_q, log_sigma_q, mu_p, log_sigma_p)
    return _gaussian_kl(mu_q, log_sigma_q, mu_p, log_sigma_p)


def sample_kl(
    mu_q: Tensor, log_sigma_q: Tensor, noise: Tensor, mu_p: Tensor | None = None, log_sigma_p: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sample z from q by reparameterisation, with KL(q || p) (paper 000, eq. 20 and appendix).

    Args:
        mu_q (B, Z), log_sigma_q (B, Z), mu_p (B, Z), log_sigma_p (B, Z): as in `gaussian_kl`.
        noise (B, Z): standard normal.
    Returns:
        z (B, Z) and the KL (B,) in nats.
    Raises:
        TypeError: an argument is no float tensor, or dtypes differ.
        ValueError: any mismatch of shape or device, or only one half of p.
    Example:
        >>> z, kl = sample_kl(torch.ones(2, 3), torch.zeros(2, 3), torch.zeros(2, 3))
        >>> z[0], kl
        (tensor([1., 1., 1.]), tensor([1.5000, 1.5000]))
    """
    mu_q, log_sigma_q, noise, mu_p, log_sigma_p = autocast.to_float32(mu_q, log_sigma_q, noise, mu_p, log_sigma_p)
    _check("sample_kl", mu_q, log_sigma_q, mu_p, log_sigma_p, noise=noise)
    return _sample_kl(mu_q, log_sigma_q, noise, mu_p, log_sigma_p)


def _check(
    op: str,
    mu_q: Tensor,
    log_sigma_q: Tensor,
    mu_p: Tensor | None,
    log_sigma_p: Tensor | None,
    **noise: Tensor,
) -> None:
    if (mu_p is None) != (log_sigma_p is None):
        raise ValueError(f"{op}: give both mu_p and log_sigma_p, or neither for a standard normal prior")
    check_tensors(
        op,
        mu_q=(mu_q, "B Z"),
        log_sigma_q=(log_sigma_q, "B Z"),
        **{name: (tensor, "B Z") for name, tensor in noise.items()},
        mu_p=(mu_p, "B Z?"),
        log_sigma_p=(log_sigma_p, "B Z?"),
    )


_gaussian_kl = Op("gaussian_kl", "latent", reference.gaussian_kl)
_sample_kl = Op("sample_kl", "latent", reference.sample_kl)
