"""The library as its users call it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.plain import loss
from benchmarks.work import Work


def training_step(work: Work, dtype: torch.dtype = torch.float32) -> Callable[[], Any]:
    """A call that gives the loss and the gradient of every weight, computed in `dtype` over float32 weights."""
    model, inputs = work.model(), work.inputs()

    def step() -> tuple[Tensor, tuple[Tensor, ...]]:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            output = model(*inputs)
        value = loss(output)
        return value, torch.autograd.grad(value, model.weights)

    return step


def drawing(work: Work) -> Callable[[], Any]:
    model, inputs = work.model(), work.inputs()
    return lambda: model.sample(inputs.digits, inputs.lengths, inputs.noise)
