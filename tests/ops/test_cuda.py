"""Every op captured into a CUDA graph, and on two streams at once."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from .cases import CASES, Case, Inputs, Run, parameter, runs
from .checking import float_tensors, of_tensors

ON_CUDA = [parameter(run, case) for case in CASES for run in runs(case.op) if run.device == "cuda"]

pytestmark = pytest.mark.gpu


def pass_through(function: Callable[..., Any], leaves: Sequence[Tensor]) -> list[Tensor]:
    """Outputs and gradients, with nothing that makes the host wait."""
    outputs = list(float_tensors({"output": function(*leaves)}).values())
    upstream = [y.detach().cos() for y in outputs]
    gradients = torch.autograd.grad(outputs, leaves, upstream, allow_unused=True, materialize_grads=True)
    return [*(y.detach() for y in outputs), *gradients]


def inputs(case: Case, seed: str, device: str) -> list[Tensor]:
    arguments = case.make(Inputs(seed, torch.float32, device))
    return [x.requires_grad_() for x in float_tensors(arguments).values()]


@pytest.mark.parametrize(("run", "case"), ON_CUDA)
def test_a_captured_graph_replays_on_new_inputs(run: Run, case: Case) -> None:
    arguments = case.inputs(device=run.device)
    function = of_tensors(run, arguments)
    leaves = [x.requires_grad_() for x in float_tensors(arguments).values()]
    others = inputs(case, "others", run.device)
    expected = pass_through(function, others)

    # torch wants libraries and allocators warm before a capture, on a stream of their own.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        pass_through(function, leaves)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        actual = pass_through(function, leaves)
    with torch.no_grad():
        for x, other in zip(leaves, others, strict=True):
            x.copy_(other)
    graph.replay()
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(("run", "case"), ON_CUDA)
def test_two_streams_at_once(run: Run, case: Case) -> None:
    function = of_tensors(run, case.inputs(device=run.device))
    batches = [inputs(case, seed, run.device) for seed in ("first", "second")]
    expected = [pass_through(function, leaves) for leaves in batches]
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    torch.cuda.synchronize()
    rounds = []
    for _ in range(10):
        for stream, leaves in zip(streams, batches, strict=True):
            with torch.cuda.stream(stream):
                rounds.append(pass_through(function, leaves))
    torch.cuda.synchronize()
    for number, actual in enumerate(rounds):
        torch.testing.assert_close(actual, expected[number % 2])
