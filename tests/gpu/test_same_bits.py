"""A thousand runs of a rollout give the same bits, and so does a rollout after many others."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ..ops.cases import Draw, Inputs, Run
from ..ops.checking import of_tensors
from .machine import DEVICE, DRY, leaves_of, on_gpu, pass_through

pytestmark = pytest.mark.gpu

SIZES = Draw(B=2, T=2) if DRY else Draw(B=33, C=1, H=32, W=64, T=6, L=2, D=20, A=64, U=100, Z=30, n_read=8, n_write=8)


def results(run: Run, draw: Draw, dtype: torch.dtype = torch.float32, **options: Any) -> list[Tensor]:
    arguments = getattr(draw, run.op.removeprefix("draw_"))(Inputs("bits", dtype, DEVICE), **options)
    return pass_through(of_tensors(run, arguments), leaves_of(arguments))


# Triton's interpreter has no bfloat16.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16 if DRY else torch.bfloat16], ids=str)
@on_gpu("draw_rollout", "draw_generate")
def test_a_thousand_runs_have_the_same_gradients(run: Run, dtype: torch.dtype) -> None:
    arguments = getattr(SIZES, run.op.removeprefix("draw_"))(Inputs("bits", dtype, DEVICE))
    function, leaves = of_tensors(run, arguments), leaves_of(arguments)
    first = pass_through(function, leaves)
    assert all(x.isfinite().all() for x in first)
    differs = torch.zeros((), dtype=torch.int64, device=DEVICE)
    for _ in range(1 if DRY else 1000 if run.fused else 20):
        for x, y in zip(pass_through(function, leaves), first, strict=True):
            differs += (x != y).sum()
    assert differs.item() == 0


@on_gpu("draw_rollout", "draw_generate")
def test_changing_shapes_take_no_more_memory(run: Run) -> None:
    """What is kept for a shape, such as a CUDA graph, is kept for few of them, and a shape that comes back is right."""

    def reserved() -> int:
        return 0 if DRY else torch.cuda.memory_reserved()

    few, many = (1, 2) if DRY else (50, 150)
    expected = results(run, Draw(B=2, T=3))
    after = {}
    for count in range(1, many + 1):
        results(run, Draw(B=1 + count % 37, T=1 + count // 37))
        if count in (few, many):
            after[count] = reserved()
    assert after[many] <= 1.25 * after[few] + 2**26, after
    for x, y in zip(results(run, Draw(B=2, T=3)), expected, strict=True):
        assert torch.equal(x, y)
