"""Estimates of the bound by samples of z, for any encoder and any decoder (papers 002 and 004).

ELBO(x) = E_q [log p(x, z) - log q(z | x)] = E_q log p(x | z) - KL(q || N(0, I)),      q(z | x) = N(mu, diag sigma^2)

The mean over S samples z_s = mu + sigma noise_s stands for E_q. For the parameters of p its gradient needs no more. For
those of q, which z is drawn from, the gradient must pass through z_s as well (reparameterisation); or, where log p has
none for z, it is that of the score function, which varies more:

grad E_q f(z) = E_q [f(z) grad log q(z | x)] + E_q [grad f(z)]
"""

from collections.abc import Callable

from torch import Tensor

from .. import ops
from ..checks import check_tensors

LogDensity = Callable[[Tensor, Tensor], Tensor]


def reparameterised_bound(log_joint: LogDensity, x: Tensor, mu: Tensor, log_sigma: Tensor, noise: Tensor) -> Tensor:
    """1/S sum_s log p(x, z_s) - log q(z_s | x), for any p(z) (paper 004, eq. 1 and 11).

    Args:
        log_joint: of x (S B, ...) and z (S B, Z), log p(x, z) (S B,) in nats.
        x (B, ...): of any kind.
        mu (B, Z), log_sigma (B, Z): of q(z | x).
        noise (S, B, Z): standard normal, S >= 1.
    Returns:
        bound (B,) in nats, whose gradients for all parameters are unbiased.
    Raises:
        TypeError, ValueError: any mismatch of dtype, shape or device, also of what `log_joint` returns.
    """
    x, mu, log_sigma, noise, samples = _repeat("reparameterised_bound", x, mu, log_sigma, noise)
    z = mu + log_sigma.exp() * noise
    log_p = _check("reparameterised_bound", log_joint(x, z), z)
    return (log_p + ops.gaussian_nll(mu, log_sigma, z)).view(samples, -1).mean(0)


def reparameterised_bound_with_kl(
    log_likelihood: LogDensity, x: Tensor, mu: Tensor, log_sigma: Tensor, noise: Tensor
) -> Tensor:
    """1/S sum_s log p(x | z_s) - KL, for p(z) = N(0, I) (paper 002, eq. 6; paper 004, section 6.6, signs mended).

    Args, Returns, Raises: as `reparameterised_bound`, with log p(x | z) in place of log p(x, z).
    """
    x, mu, log_sigma, noise, samples = _repeat("reparameterised_bound_with_kl", x, mu, log_sigma, noise)
    z, kl = ops.sample_kl(mu, log_sigma, noise)
    return (_check("reparameterised_bound_with_kl", log_likelihood(x, z), z) - kl).view(samples, -1).mean(0)


def score_function_bound(log_joint: LogDensity, x: Tensor, mu: Tensor, log_sigma: Tensor, noise: Tensor) -> Tensor:
    """The value of `reparameterised_bound`, with gradients that do not pass through z: log p need have none for it.

    Args, Returns, Raises: as `reparameterised_bound`.
    """
    x, mu, log_sigma, noise, samples = _repeat("score_function_bound", x, mu, log_sigma, noise)
    z = (mu + log_sigma.exp() * noise).detach()
    log_q = -ops.gaussian_nll(mu, log_sigma, z)
    inner = _check("score_function_bound", log_joint(x, z), z) - log_q.detach()
    # Adds 0 to the value, and to the gradient f(z) grad log q; that of -log q itself has the mean 0 and is left out.
    score = inner.detach() * (log_q - log_q.detach())
    return (inner + score).view(samples, -1).mean(0)


def _repeat(
    name: str, x: Tensor, mu: Tensor, log_sigma: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """All as (S B, ...), sample after sample, and S."""
    sizes = check_tensors(name, mu=(mu, "B Z"), log_sigma=(log_sigma, "B Z"), noise=(noise, "S B Z"))
    samples, batch = sizes["S"], sizes["B"]
    if samples < 1:
        raise ValueError(f"{name}: noise must hold at least 1 sample, got shape {tuple(noise.shape)}")
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: x must be a tensor, got {type(x).__name__}")
    if x.dim() < 1 or len(x) != batch:
        raise ValueError(f"{name}: x must have shape (B, ...) with B = {batch} (from mu), got {tuple(x.shape)}")
    x, mu, log_sigma = (tensor.expand(samples, *tensor.shape).flatten(0, 1) for tensor in (x, mu, log_sigma))
    return x, mu, log_sigma, noise.flatten(0, 1), samples


def _check(name: str, log_density: Tensor, z: Tensor) -> Tensor:
    if log_density.shape != z.shape[:1]:
        raise ValueError(
            f"{name}: a log-density must be one number for each z, shape ({len(z)},), got {tuple(log_density.shape)}; "
            "sum over the dimensions of x"
        )
    return log_density
