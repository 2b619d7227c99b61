"""A training step and a drawing of the whole model against its floor and its peers."""

import os
from importlib.util import find_spec

import pytest
import torch

from benchmarks.competitors import COMPETITORS
from benchmarks.work import Work

# torch.compile takes minutes for each size, so it competes only on request.
LEFT_OUT = {"bfloat16", "equal"}
LEFT_OUT |= set() if os.environ.get("FASTDRAW_BENCH_COMPILE") == "1" else {"compile"}
LEFT_OUT |= set() if find_spec("jax") else {"jax"}


@pytest.mark.parametrize("name", [each for each in COMPETITORS["training"] if each not in LEFT_OUT])
@pytest.mark.parametrize(("batch", "digits"), [(100, 2), (16, 3), (1, 3)])
def bench_training_step(benchmark, name, batch, digits):
    _run(benchmark, "training", name, Work(batch=batch, digits=digits, steps=10 * digits))


@pytest.mark.parametrize("name", [each for each in COMPETITORS["drawing"] if each not in LEFT_OUT])
@pytest.mark.parametrize("batch", [1, 64])
def bench_drawing(benchmark, name, batch):
    _run(benchmark, "drawing", name, Work(batch=batch, digits=3, steps=30))


def _run(benchmark, kind, name, work):
    benchmark.group = f"{kind} B={work.batch} T={work.steps}"
    benchmark.extra_info.update(torch=torch.__version__, threads=torch.get_num_threads())
    call = COMPETITORS[kind][name](work)
    call()  # which compiles, where there is a compiler
    benchmark(call)
