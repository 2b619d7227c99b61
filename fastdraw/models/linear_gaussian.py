"""The VAE that has a closed form for everything: encoder and decoder are linear (paper 004, section 3.2).

q(z | x) = N(a x + b, t^2 I)      p(x | z) = N(c z + v, s^2 I)      p(z) = N(0, I)      x, z, b, v in R^D, else scalars
p(x) = N(v, (c^2 + s^2) I)        p(z | x) = N(c (x - v) / (c^2 + s^2), s^2 / (c^2 + s^2) I)

ELBO(x) = log p(x) - KL(q(z | x) || p(z | x)), so whatever c, v and s are, the best encoder is p(z | x):
a = c / (c^2 + s^2), b = -a v, t^2 = s^2 / (c^2 + s^2). With it the bound is log p(x), whose mean over data of mean mu
and variance sigma^2 is largest at v = mu and c^2 + s^2 = sigma^2. Thus the six parameters have no one optimum but a
ridge of them, from s = sigma, c = 0, where z says nothing of x, to s -> 0, c = sigma, where both Gaussians become
deltas, z = (x - mu) / sigma and x = mu + sigma z. For a given s the optimum is one, up to the sign of z, which is that
of a, b and c; from s = sigma on it has c = 0.
"""

import math

import torch
from torch import Tensor, nn

from .. import ops
from ..checks import check_tensors


class LinearGaussian(nn.Module):
    """Learns a, b, t, c, v and s, of t and s the logarithms; for a fixed s, `model.log_s.requires_grad_(False)`.

    Args:
        b (D,), v (D,): any float dtype, which is that of all parameters.
        a, t, c, s: scalars alike for all dimensions; t and s are standard deviations.
    Raises:
        TypeError, ValueError: b and v do not fit one another, or t or s is not positive and finite.
    """

    def __init__(self, *, a: float, b: Tensor, t: float, c: float, v: Tensor, s: float) -> None:
        super().__init__()
        check_tensors("LinearGaussian", b=(b, "D"), v=(v, "D"))
        _check_positive(t=t, s=s)
        self.a, self.b = nn.Parameter(b.new_tensor(a)), nn.Parameter(b.detach().clone())
        self.c, self.v = nn.Parameter(v.new_tensor(c)), nn.Parameter(v.detach().clone())
        self.log_t, self.log_s = nn.Parameter(b.new_tensor(math.log(t))), nn.Parameter(v.new_tensor(math.log(s)))

    @classmethod
    def optimum(cls, mean: Tensor, variance: float, s: float) -> "LinearGaussian":
        """The parameters whose mean ELBO over the data is largest among those of this s, with c >= 0.

        Args:
            mean (D,): of the data.
            variance: of the data around it, the mean over dimensions.
            s: at most the root of the variance for the largest ELBO of all; beyond it c = 0 is best.
        Raises:
            TypeError, ValueError: mean is no float tensor (D,), or variance or s is not positive and finite.
        """
        check_tensors("LinearGaussian.optimum", mean=(mean, "D"))
        _check_positive(variance=variance, s=s)
        c = math.sqrt(max(variance - s**2, 0))
        total = c**2 + s**2
        a = c / total
        return cls(a=a, b=-a * mean, t=s / math.sqrt(total), c=c, v=mean, s=s)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of q(z | x), both (B, D), for x (B, D)."""
        self._check("x", x)
        mu = self.a * x + self.b
        return mu, self.log_t.expand_as(mu)

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of p(x | z), both (B, D), for z (B, D)."""
        self._check("z", z)
        mean = self.c * z + self.v
        return mean, self.log_s.expand_as(mean)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of p(z | x), both (B, D), for x (B, D): what `encode` should be."""
        self._check("x", x)
        log_total = self._log_total()
        mu = self.c * (-2 * log_total).exp() * (x - self.v)
        return mu, (self.log_s - log_total).expand_as(mu)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) (B,) in nats, for x (B, D) and z (B, D)."""
        zero = torch.zeros_like(z)
        return -ops.gaussian_nll(*self.decode(z), x) - ops.gaussian_nll(zero, zero, z)

    def log_likelihood(self, x: Tensor) -> Tensor:
        """log p(x) (B,) in nats, for x (B, D)."""
        self._check("x", x)
        return -ops.gaussian_nll(self.v.expand_as(x), self._log_total().expand_as(x), x)

    def elbo(self, x: Tensor) -> Tensor:
        """E_q log p(x | z) - KL(q(z | x) || p(z)) (B,) in nats, without samples, for x (B, D)."""
        mu, log_t = self.encode(x)
        # E_q |x - c z - v|^2 is that of z = mu, and D (c t)^2.
        spread = x.shape[1] * (self.c * (self.log_t - self.log_s).exp()).square() / 2
        return -ops.gaussian_nll(*self.decode(mu), x) - spread - ops.gaussian_kl(mu, log_t)

    def _log_total(self) -> Tensor:
        """log of the standard deviation of p(x)."""
        return (self.c.square() + (2 * self.log_s).exp()).log() / 2

    def _check(self, name: str, tensor: Tensor) -> None:
        # One of another width would be spread over all dimensions.
        if tensor.dim() != 2 or tensor.shape[1] != len(self.b):
            raise ValueError(
                f"LinearGaussian: {name} must have shape (B, D) with D = {len(self.b)}, got {tuple(tensor.shape)}"
            )


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"LinearGaussian: {name} must be positive and finite, got {value}")
