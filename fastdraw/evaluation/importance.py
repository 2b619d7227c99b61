"""The importance-weighted bound (Burda et al. 2016): tighter the more samples of z there are, log p(x) in the limit.

log p(x) >= E log 1/K sum_k w_k,    w = p(x | z) prod_t p(z_t | z_<t) / q(z_t | z_<t, x),    z from q

Of grey pixels p(x | z) is a cross-entropy and no likelihood: such bounds compare with each other only.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from fastdraw.data import Batch
from fastdraw.errors import FastdrawError
from fastdraw.models import Model

SEED = 0
ROWS = 1000  # images times samples that go through the model at once


class ImportanceBound(NamedTuple):
    """An upper bound on the mean -log p(x) in nats, and its standard error over images."""

    bound: float
    error: float


def importance_weighted_bound(model: Model, batches: Iterable[Batch], samples: int) -> ImportanceBound:
    """Average over the images of batches, with the same noise every time.

    Args:
        model: on any device.
        batches: test images, each once, for the standard error takes them for independent; at least two in all.
        samples: of z for each image, K; 1 estimates the ordinary bound.
    Raises:
        FastdrawError: no sample, or fewer than two images.
    """
    bounds = bounds_by_image(model, batches, samples)
    if len(bounds) < 2:
        raise FastdrawError(f"the error of a bound needs at least 2 images, got {len(bounds)}: ask for more")
    return ImportanceBound(bounds.mean().item(), bounds.std().item() / math.sqrt(len(bounds)))


@torch.no_grad()
def bounds_by_image(model: Model, batches: Iterable[Batch], samples: int) -> Tensor:
    """An upper bound on -log p(x) of each image (N,) in nats, float64 on the CPU, with the same noise every time.

    Args:
        model, batches, samples: as of `importance_weighted_bound`; any number of images.
    Raises:
        FastdrawError: no sample.
    """
    if samples < 1:
        raise FastdrawError(f"an importance-weighted bound needs at least 1 sample of z, got {samples}")
    generator = torch.Generator().manual_seed(SEED)
    found = [_bounds(model, batch, samples, generator) for batch in batches]
    return torch.cat([torch.empty(0, dtype=torch.float64), *found])


def _bounds(model: Model, batch: Batch, samples: int, generator: torch.Generator) -> Tensor:
    """-log 1/K sum_k w_k of every image of a batch (B,), float64 on the CPU."""
    count, length = batch.labels.shape
    device = model.device
    log_weights = []
    for start in range(0, samples, most := max(1, ROWS // count)):
        times = min(most, samples - start)
        repeated = [tensor.to(device).repeat(times, *[1] * (tensor.dim() - 1)) for tensor in batch]
        output = model(*repeated, model.noise(times * count, length, generator), sampled_kl=True)
        log_weights.append(-(output.nll + output.kl.sum(0)).double().cpu().view(times, count))
    return math.log(samples) - torch.cat(log_weights).logsumexp(0)
