"""The bound on the test images' negative log-likelihood, on the same batches with the same noise every time."""

from typing import NamedTuple

import torch
from torch import Tensor

from fastdraw.data import Batch, MultiDigits, load_cells
from fastdraw.models import SeqDraw
from fastdraw.training.settings import DataSettings

SEED = 0


class Bound(NamedTuple):
    """Means over images, in nats; the bound is their sum."""

    nll: float
    kl: float


def held_out_digits(data: DataSettings, batch_size: int) -> MultiDigits:
    """Images of the test split with the run's mixture of lengths; the same for every seed of a run."""
    return MultiDigits(load_cells(data.root, "test"), data.lengths, batch_size, SEED)


def nll_and_kl(model: SeqDraw, batch: Batch, generator: torch.Generator) -> Tensor:
    """Mean -log p(x | z) and mean KL over the images of a batch (2,), in nats, with one sample of z for each image."""
    count, length = batch.digits.shape
    noise = model.noise(count, length, generator)
    output = model(*(tensor.to(noise.device) for tensor in batch), noise)
    return torch.stack([output.nll.mean(), output.kl.sum(0).mean()])


@torch.no_grad()
def measure_bound(model: SeqDraw, digits: MultiDigits, batches: int) -> Bound:
    """Average over batches 0 to `batches` - 1."""
    generator = torch.Generator().manual_seed(SEED)
    terms = [nll_and_kl(model, digits.batch(index), generator) for index in range(batches)]
    return Bound(*torch.stack(terms).mean(0).tolist())
