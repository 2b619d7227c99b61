"""The work that is timed: sizes, and a model with inputs of these sizes."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fastdraw.models import Draw, DrawConfig


class Inputs(NamedTuple):
    """Arguments of a `Draw`."""

    image: Tensor
    digits: Tensor
    lengths: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Work:
    """Sizes of a training step or a drawing; what is not given is R's, the reference work."""

    batch: int = 100
    digits: int = 2  # L; with mixed lengths, the longest
    steps: int = 20  # T
    hidden: int = 400
    height: int = 32
    width: int = 64
    mixed: bool = False  # samples of 1 to L digits, equally many of each

    def model(self) -> Draw:
        torch.manual_seed(0)
        return Draw(DrawConfig(hidden=self.hidden, height=self.height, width=self.width))

    def inputs(self) -> Inputs:
        generator = torch.Generator().manual_seed(0)
        image = torch.rand(self.batch, 1, self.height, self.width, generator=generator)
        digits = torch.randint(10, (self.batch, self.digits), generator=generator)
        lengths = torch.full((self.batch,), self.digits)
        if self.mixed:
            lengths = 1 + torch.arange(self.batch) % self.digits
        noise = torch.randn(self.steps, self.batch, DrawConfig().latent, generator=generator)
        return Inputs(image, digits, lengths, noise)
