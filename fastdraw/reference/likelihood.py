"""Negative log-likelihoods of an image under a Bernoulli or a Gaussian output, in nats."""

import math

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def bernoulli_nll(logits: Tensor, target: Tensor) -> Tensor:
    """sum log(1 + exp(logits)) - target * logits: (B, ...) -> (B,)."""
    return _sum_all_but_batch(binary_cross_entropy_with_logits(logits, target, reduction="none"))


def gaussian_nll(mean: Tensor, log_sigma: Tensor, target: Tensor) -> Tensor:
    """sum (target - mean)^2 / (2 sigma^2) + log sigma + log(2 pi) / 2: (B, ...) -> (B,)."""
    u = (target - mean) * (-log_sigma).exp()
    return _sum_all_but_batch(u**2 / 2 + log_sigma + math.log(2 * math.pi) / 2)


def _sum_all_but_batch(x: Tensor) -> Tensor:
    return x.unsqueeze(-1).flatten(1).sum(1)
