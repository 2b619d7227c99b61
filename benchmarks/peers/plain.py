"""The model in plain PyTorch, the library's reference called past all its checks: eager, and under torch.compile."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.work import Work
from fastdraw import reference
from fastdraw.reference import DrawOutput, DrawWeights


def loss(output: DrawOutput) -> Tensor:
    """Mean negative bound over the batch, in nats."""
    return (output.nll + output.kl.sum(0)).mean()


def training_step(work: Work, compiled: bool = False) -> Callable[[], Any]:
    """A call that gives the loss and the gradient of every weight."""
    model, inputs = work.model(), work.inputs()
    config, labels = model.config, model.label_vectors(inputs.digits, inputs.lengths)[0]
    weights = model.weights

    def forward(weights: DrawWeights) -> Tensor:
        sides = {"n_read": config.n_read, "n_write": config.n_write}
        output = reference.draw_rollout(weights, inputs.image, labels, inputs.lengths, inputs.noise, **sides)
        return loss(output)

    if compiled:
        forward = torch.compile(forward, fullgraph=True)

    def step() -> tuple[Tensor, tuple[Tensor, ...]]:
        value = forward(weights)
        return value, torch.autograd.grad(value, weights)

    return step


def drawing(work: Work, compiled: bool = False) -> Callable[[], Tensor]:
    model, inputs = work.model(), work.inputs()
    weights, labels, n_write = (
        model.weights,
        model.label_vectors(inputs.digits, inputs.lengths)[0],
        model.config.n_write,
    )

    def draw(weights: DrawWeights) -> Tensor:
        return reference.draw_generate(weights, labels, inputs.lengths, inputs.noise, n_write=n_write)

    if compiled:
        draw = torch.compile(draw, fullgraph=True)
    return torch.no_grad()(lambda: draw(weights))
