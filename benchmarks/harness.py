"""What the benchmarks share: the backends side by side, forward alone and forward with backward."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import fastdraw
from fastdraw import dispatch
from fastdraw.ops.op import Op

B, H, W = 100, 32, 64  # the contract's reference work


def side_by_side(op: Op) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Parametrise a benchmark over the backends that can run the op on the CPU, and over its passes."""
    able = [
        name for name in ("cpu", "reference") if dispatch.refusal(name, op.name, op.backends, "cpu", "float32") is None
    ]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        function = pytest.mark.parametrize("backend", able)(function)
        return pytest.mark.parametrize("passes", ["forward", "forward+backward"])(function)

    return decorate


def measure(benchmark: Any, backend: str, passes: str, function: Callable[..., Any], *inputs: Tensor) -> None:
    """Time a call of function(*inputs), with its backward to every input if `passes` says so."""
    backward = passes == "forward+backward"
    inputs = tuple(x.requires_grad_(backward) for x in inputs)

    def call() -> None:
        outputs = function(*inputs)
        if backward:
            outputs = [outputs] if isinstance(outputs, Tensor) else [y for y in outputs if isinstance(y, Tensor)]
            torch.autograd.grad(outputs, inputs, [torch.ones_like(y) for y in outputs])

    # One group per function, shape and pass: its table shows each backend's ratio to the fastest.
    benchmark.group = f"{benchmark.name.split('[')[0]} {passes} {[tuple(x.shape) for x in inputs]}"
    benchmark.extra_info.update(torch=torch.__version__, threads=torch.get_num_threads())
    with fastdraw.backend(backend):
        benchmark(call)
