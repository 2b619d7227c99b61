"""Equations of paper 001 as they are printed, against those that are implemented."""

import math

import torch
from torch.distributions import Independent, Normal

from fastdraw import ops


def test_equation_8_is_the_kl_but_for_its_constant() -> None:
    """One sigma for all n numbers of z: 1/2 (|mu|^2 + n sigma^2 - 2 n log sigma), and n / 2 is left to C."""
    n = 5
    mu = torch.randn(4, n, dtype=torch.float64)
    sigma = torch.rand(4, 1, dtype=torch.float64) + 0.1
    printed = (mu.square().sum(1) + n * sigma[:, 0].square() - 2 * n * sigma[:, 0].log()) / 2
    kl = ops.gaussian_kl(mu, sigma.log().expand(-1, n).contiguous())
    torch.testing.assert_close(printed - n / 2, kl)


def test_equation_8_has_a_gaussian_where_equation_12_has_a_cross_entropy() -> None:
    """-1/2 |x - D(z)|^2 is log p(x | z) of unit variance but for its constant, and another loss than BCE."""
    x, mean = torch.rand(3, 7, dtype=torch.float64), torch.rand(3, 7, dtype=torch.float64)
    printed = (x - mean).square().sum(1) / 2
    nll = ops.gaussian_nll(mean, torch.zeros_like(mean), x)
    torch.testing.assert_close(printed + 7 / 2 * math.log(2 * math.pi), nll)
    bce = ops.bernoulli_nll(mean.logit(), x)
    assert not torch.allclose(bce - printed, (bce - printed)[:1].expand(3))


def test_equation_11_is_the_logarithm_of_the_density() -> None:
    """z = mu + sigma epsilon; a diagonal sigma has its product as the determinant."""
    n = 4
    mu, noise = torch.randn(6, n, dtype=torch.float64), torch.randn(6, n, dtype=torch.float64)
    sigma = torch.rand(6, n, dtype=torch.float64) + 0.1
    printed = -noise.square().sum(1) / 2 - sigma.log().sum(1) - n / 2 * math.log(2 * math.pi)
    z, _ = ops.sample_kl(mu, sigma.log(), noise)
    torch.testing.assert_close(printed, Independent(Normal(mu, sigma), 1).log_prob(z))
