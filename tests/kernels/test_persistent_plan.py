"""What docs/design/persistent-rollout.md says of shared memory is what the launches plan, and each GPU has it."""

import re

import pytest

from fastdraw import dispatch
from fastdraw.kernels.compile import ROOT
from fastdraw.kernels.rollout_layout import Sizes
from fastdraw.ops.persistent import Limits, plan
from fastdraw.published import A, C, D, H, N, W, Z

pytestmark = pytest.mark.skipif(
    bool(dispatch.cuda_refusal) and not dispatch.emulated, reason="the extension was built without CUDA"
)
GPUS = {"A100": Limits(108, 163 << 10), "H200": Limits(132, 227 << 10), "B200": Limits(148, 227 << 10)}
NOTE = (ROOT / "docs" / "design" / "persistent-rollout.md").read_text()
BATCHES = [
    int(B) for B in re.findall(r"B = (\d+) \|", next(line for line in NOTE.splitlines() if "| pass | B = " in line))
]
ROWS = re.findall(r"^\| (\w+) \| (\d+) \| (bfloat16|float32) \| (forward|backward) \| (.*) \|$", NOTE, re.MULTILINE)


def test_every_gpu_has_rows_of_all_kinds() -> None:
    assert {row[:4] for row in ROWS} == {
        (gpu, U, dtype, name)
        for gpu in GPUS
        for U in ("256", "400", "800")
        for dtype in ("bfloat16", "float32")
        for name in ("forward", "backward")
    }


@pytest.mark.parametrize(("gpu", "U", "dtype", "name", "cells"), ROWS)
def test_the_note_says_what_is_planned(gpu: str, U: str, dtype: str, name: str, cells: str) -> None:
    """Groups x blocks of a group, and KiB of a block; where none fits, the KiB of the smallest."""
    for B, cell in zip(BATCHES, cells.split(" | "), strict=True):
        at = Sizes(T=30, B=B, C=C, H=H, W=W, L=2, D=D, A=A, U=int(U), Z=Z, n_read=N, n_write=N, encoder=True)
        found = plan(at, dtype == "bfloat16", name == "backward", GPUS[gpu])
        KiB = found.shared >> 10
        assert cell == (f"{found.groups} x {found.blocks}, {KiB}" if found.blocks else f"- ({KiB})")
        if found.blocks:
            assert found.groups * found.blocks <= GPUS[gpu].multiprocessors
            assert found.shared <= GPUS[gpu].shared
