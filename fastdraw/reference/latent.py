"""The latent variable: Gaussian KL divergence and reparameterised sampling.

Paper 000, eq. 20 and appendix, with its printing errors mended.
"""

from torch import Tensor


def gaussian_kl(
    mu_q: Tensor, log_sigma_q: Tensor, mu_p: Tensor | None = None, log_sigma_p: Tensor | None = None
) -> Tensor:
    """KL(q || p) in nats, (B,), summed over all but the batch; p is N(0, I) unless given."""
    if mu_p is None or log_sigma_p is None:
        per_unit = mu_q**2 + (2 * log_sigma_q).exp() - 2 * log_sigma_q - 1
    else:
        # Written with differences of logs, so that a small sigma_p meets no 0 / 0.
        gap = (mu_q - mu_p) * (-log_sigma_p).exp()
        log_ratio = 2 * (log_sigma_q - log_sigma_p)
        per_unit = gap**2 + log_ratio.exp() - log_ratio - 1
    return per_unit.flatten(1).sum(1) / 2


def sample_kl(
    mu_q: Tensor, log_sigma_q: Tensor, noise: Tensor, mu_p: Tensor | None = None, log_sigma_p: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """z = mu_q + sigma_q * noise, and the KL (B,)."""
    z = mu_q + log_sigma_q.exp() * noise
    return z, gaussian_kl(mu_q, log_sigma_q, mu_p, log_sigma_p)


def sample_log_ratio(
    mu_q: Tensor, log_sigma_q: Tensor, noise: Tensor, mu_p: Tensor, log_sigma_p: Tensor
) -> tuple[Tensor, Tensor]:
    """z = mu_q + sigma_q * noise, and log q(z) - log p(z) (B,), whose mean over the noise is the KL."""
    z = mu_q + log_sigma_q.exp() * noise
    per_unit = ((z - mu_p) * (-log_sigma_p).exp()) ** 2 - noise**2 + 2 * (log_sigma_p - log_sigma_q)
    return z, per_unit.flatten(1).sum(1) / 2
