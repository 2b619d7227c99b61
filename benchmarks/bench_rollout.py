"""A training step and a drawing of the whole model against plain PyTorch."""

import pytest
import torch

import fastdraw
from fastdraw.models import SeqDraw, SeqDrawConfig


def _group(benchmark, what):
    benchmark.group = what
    benchmark.extra_info.update(torch=torch.__version__, threads=torch.get_num_threads())


@pytest.mark.parametrize("choice", ["fused", "reference"])
@pytest.mark.parametrize(("batch", "length"), [(100, 2), (16, 3), (1, 3)])
def bench_training_step(benchmark, choice, batch, length):
    model = SeqDraw(SeqDrawConfig())
    image, digits = torch.rand(batch, 1, 32, 64), torch.randint(10, (batch, length))
    lengths, noise = torch.full((batch,), length), model.noise(batch, length)

    def step():
        output = model(image, digits, lengths, noise)
        (output.nll + output.kl.sum(0)).mean().backward()
        model.zero_grad()

    _group(benchmark, f"training step B={batch} T={noise.shape[0]}")
    _run(benchmark, choice, step)


@pytest.mark.parametrize("choice", ["fused", "reference"])
@pytest.mark.parametrize("batch", [1, 64])
def bench_generate(benchmark, choice, batch):
    model = SeqDraw(SeqDrawConfig())
    digits, lengths, noise = torch.randint(10, (batch, 3)), torch.full((batch,), 3), model.noise(batch, 3)
    _group(benchmark, f"generate B={batch} T={noise.shape[0]}")
    _run(benchmark, choice, lambda: model.sample(digits, lengths, noise))


def _run(benchmark, choice, function):
    if choice == "fused":
        benchmark(function)
    else:
        with fastdraw.backend("reference"):
            benchmark(function)
