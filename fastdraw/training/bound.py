"""The bound on the test images' negative log-likelihood, on the same batches with the same noise every time."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastdraw.data import Batch, Source
from fastdraw.models import Draw

SEED = 0


class Bound(NamedTuple):
    """Means over images, in nats; the bound is their sum."""

    nll: float
    kl: float


def nll_and_kl(model: Draw, batch: Batch, generator: torch.Generator) -> Tensor:
    """Mean -log p(x | z) and mean KL over the images of a batch (2,), in nats, with one sample of z for each image."""
    count, length = batch.labels.shape
    return mean_terms(model, batch, model.noise(count, length, generator))


def repeat(batch: Batch, samples: int) -> Batch:
    """Every image `samples` times, one after the other, so that each has as many samples of z in `mean_terms`.

    Minus the sum of these terms is then the estimate of paper 000, eq. 19, with the sum over samples around both terms,
    as the KL of a step depends on the z of the steps before.
    """
    return Batch(*(tensor.repeat_interleave(samples, dim=0) for tensor in batch))


def mean_terms(model: nn.Module, batch: Batch, noise: Tensor) -> Tensor:
    """The same with noise (T, B, Z) on the model's device; the model may be one that is wrapped for many processes."""
    output = model(*(tensor.to(noise.device) for tensor in batch), noise)
    return torch.stack([output.nll.mean(), output.kl.sum(0).mean()])


@torch.no_grad()
def measure_bound(model: Draw, source: Source, batches: int) -> Bound:
    """Average over batches 0 to `batches` - 1."""
    generator = torch.Generator().manual_seed(SEED)
    terms = [nll_and_kl(model, source.batch(index), generator) for index in range(batches)]
    return Bound(*torch.stack(terms).mean(0).tolist())


@torch.no_grad()
def measure_by_step(model: Draw, batches: Iterable[Batch]) -> tuple[float, list[float]]:
    """Mean NLL, and mean KL of each step, in nats, over the images of batches, which must all be of one length."""
    generator = torch.Generator().manual_seed(SEED)
    nlls, kls = [], []
    for batch in batches:
        count, length = batch.labels.shape
        noise = model.noise(count, length, generator)
        output = model(*(tensor.to(noise.device) for tensor in batch), noise)
        nlls.append(output.nll)
        kls.append(output.kl)
    return torch.cat(nlls).mean().item(), torch.cat(kls, dim=1).mean(1).tolist()
