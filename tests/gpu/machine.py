"""What the GPU's tests run on: a GPU, or, so that a slip shows before there is one, the CPU (`make gpu DRY=1`).

On the CPU a graph is a second call, a stream is none, and memory has no limit.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from ..ops.cases import CASES, OPS, SMALL, Case, Inputs, Run, parameter, runs
from ..ops.checking import float_tensors, of_tensors

DRY = os.environ.get("FASTDRAW_GPU_DRY") == "1"
DEVICE = "cpu" if DRY else "cuda"


def runs_here(op: str) -> list[Run]:
    """Every way to run `op` on the GPU."""
    return [run for run in runs(op) if run.device == DEVICE and run.backend != "cpu"]


def on_gpu(*ops: str, fused: bool = False) -> pytest.MarkDecorator:
    """Parametrise a test over the runs of the ops, all by default; `fused`: only of kernels."""
    found = [run for op in ops or OPS for run in runs_here(op) if run.fused or not fused]
    return pytest.mark.parametrize("run", [parameter(run, name=run.op) for run in found])


def every_case_on_gpu() -> pytest.MarkDecorator:
    cases = SMALL.values() if DRY else CASES
    found = [parameter(run, case) for case in cases for run in runs_here(case.op)]
    return pytest.mark.parametrize(("run", "case"), found)


def pass_through(function: Callable[..., Any], leaves: Sequence[Tensor]) -> list[Tensor]:
    """Outputs and gradients, with nothing that makes the host wait."""
    outputs = list(float_tensors({"output": function(*leaves)}).values())
    upstream = [y.detach().cos() for y in outputs]
    gradients = torch.autograd.grad(outputs, leaves, upstream, allow_unused=True, materialize_grads=True)
    return [*(y.detach() for y in outputs), *gradients]


def prepared(run: Run, case: Case) -> tuple[Callable[..., Any], list[Tensor]]:
    """The op as a function of the case's float tensors, and these."""
    arguments = case.inputs(device=DEVICE)
    return of_tensors(run, arguments), leaves_of(arguments)


def other_leaves(case: Case, seed: str) -> list[Tensor]:
    """Other numbers in the shapes of the case."""
    return leaves_of(case.make(Inputs(seed, torch.float32, DEVICE)))


def leaves_of(arguments: dict[str, Any]) -> list[Tensor]:
    return [x.requires_grad_() for x in float_tensors(arguments).values()]


def captured(call: Callable[[], list[Tensor]]) -> tuple[list[Tensor], Callable[[], None]]:
    """What `call` leaves in a CUDA graph of the user's own, and how to replay it into the same memory."""
    if DRY:
        outputs = call()
        return outputs, lambda: [y.copy_(new) for y, new in zip(outputs, call(), strict=True)] and None
    # torch wants libraries and allocators warm before a capture, on a stream of their own.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = call()
    return outputs, graph.replay


def new_stream() -> AbstractContextManager[Any]:
    """A stream of its own, to be entered any number of times."""
    return nullcontext() if DRY else torch.cuda.stream(torch.cuda.Stream())


def synchronize() -> None:
    if not DRY:
        torch.cuda.synchronize()


@contextmanager
def memory_limit(room: int) -> Iterator[None]:
    """Let this process take `room` bytes more than it holds."""
    if DRY:
        yield
        return
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + room) / total))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def require_memory(size: int) -> None:
    """Skip the test where the GPU has less left."""
    if not DRY:
        torch.cuda.empty_cache()
        if torch.cuda.mem_get_info()[0] < size:
            pytest.skip(f"needs {size >> 30} GiB of GPU memory")
