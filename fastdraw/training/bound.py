"""The bound on the test images' negative log-likelihood, on the same batches with the same noise every time."""

from collections.abc import Iterable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from fastdraw.data import Batch, Source
from fastdraw.models import Model
from fastdraw.training.objective import Objective

SEED = 0


class Bound(NamedTuple):
    """Means over images, in nats; the bound is their sum."""

    nll: float
    kl: float


def noise_for(model: Model, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise (T, B, Z) for labels (B, L), on the model's device."""
    count, length = labels.shape
    return model.noise(count, length, generator)


def nll_and_kl(model: Model, batch: Batch, generator: torch.Generator) -> Tensor:
    """Mean -log p(x | z) and mean KL over the images of a batch (2,), in nats, with one sample of z for each image."""
    noise = noise_for(model, batch.labels, generator)
    output = model(*(tensor.to(noise.device) for tensor in batch), noise)
    return torch.stack([output.nll.mean(), output.kl.sum(0).mean()])


def repeat(batch: Batch, samples: int) -> Batch:
    """Every image `samples` times, one after the other, so that each has as many samples of z in `mean_terms`.

    Minus the sum of these terms is then the estimate of paper 000, eq. 19, with the sum over samples around both terms,
    as the KL of a step depends on the z of the steps before.
    """
    return Batch(*(tensor.repeat_interleave(samples, dim=0) for tensor in batch))


def mean_terms(objective: nn.Module, batch: Batch, noise: Tensor) -> Tensor:
    """The terms of an objective, which may be wrapped for many processes, with noise (T, B, Z) on its device."""
    return cast(Tensor, objective(*(tensor.to(noise.device) for tensor in batch), noise))


@torch.no_grad()
def measure_terms(objective: Objective, model: Model, source: Source, batches: int) -> list[float]:
    """Mean terms of a model over batches 0 to `batches` - 1."""
    generator = torch.Generator().manual_seed(SEED)
    terms = []
    for index in range(batches):
        batch = source.batch(index)
        noise = noise_for(model, batch.labels, generator)
        image, labels, lengths = (tensor.to(noise.device) for tensor in batch)
        terms.append(objective.terms(model, image, labels, lengths, noise))
    return cast("list[float]", torch.stack(terms).mean(0).tolist())


@torch.no_grad()
def measure_bound(model: Model, source: Source, batches: int) -> Bound:
    """Average over batches 0 to `batches` - 1."""
    generator = torch.Generator().manual_seed(SEED)
    terms = [nll_and_kl(model, source.batch(index), generator) for index in range(batches)]
    return Bound(*torch.stack(terms).mean(0).tolist())


@torch.no_grad()
def measure_by_step(model: Model, batches: Iterable[Batch]) -> tuple[float, list[float]]:
    """Mean NLL, and mean KL of each step, in nats, over the images of batches, which must all be of one length."""
    generator = torch.Generator().manual_seed(SEED)
    nlls, kls = [], []
    for batch in batches:
        noise = noise_for(model, batch.labels, generator)
        output = model(*(tensor.to(noise.device) for tensor in batch), noise)
        nlls.append(output.nll)
        kls.append(output.kl)
    return torch.cat(nlls).mean().item(), torch.cat(kls, dim=1).mean(1).tolist()
