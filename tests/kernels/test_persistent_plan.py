"""The shares of a persistent rollout's blocks, counted; and docs/design/persistent-rollout.md says what is planned."""

import ctypes
import re
from pathlib import Path

import pytest
import torch

from fastdraw import dispatch
from fastdraw.kernels.compile import ROOT, run
from fastdraw.kernels.rollout_layout import Sizes, weight_shapes
from fastdraw.ops import persistent
from fastdraw.ops.persistent import Limits, plan
from fastdraw.published import A, C, D, H, L, N, W, Z
from fastdraw.reference.rollout import DrawWeights

from ..emulation import FLAGS, nvcc, toolkit

with_plans = pytest.mark.skipif(
    bool(dispatch.cuda_refusal) and not dispatch.emulated, reason="the extension was built without CUDA"
)
SMALL = Sizes(T=2, B=3, C=2, H=6, W=7, L=3, D=5, A=9, U=13, Z=7, n_read=3, n_write=2, encoder=True)
MODELS = {
    "published": Sizes(T=2, B=3, C=C, H=H, W=W, L=L, D=D, A=A, U=400, Z=Z, n_read=N, n_write=N, encoder=True),
    "small": SMALL,
    "whole_images": SMALL._replace(n_read=0, n_write=0),
    "unlabelled": SMALL._replace(L=0, D=0, A=0),
    "drawing": SMALL._replace(encoder=False, n_read=0),
}
on_every_plan = pytest.mark.parametrize(
    ("model", "blocks", "backward"),
    [(model, blocks, backward) for model in MODELS for blocks in (1, 2, 7, 33, 132) for backward in (False, True)],
)
# Made into keys before the launch, read by the samples' blocks, or copied: no operands of a step's products.
NOT_SHARED = ("align_key", "align_v", "h0_enc", "h0_dec", "canvas0")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if nvcc() is None:
        pytest.skip("no CUDA toolkit, whose headers are included")
    source, made = Path(__file__).with_name("rollout_plan.cpp"), tmp_path_factory.mktemp("plan") / "rollout_plan.so"
    run("c++", *FLAGS, "-shared", f"-I{ROOT / 'csrc'}", f"-isystem{toolkit()}", str(source), "-o", str(made))
    return ctypes.CDLL(str(made))


def numbers(model: str) -> ctypes.Array[ctypes.c_int64]:
    sizes = persistent.numbers_of(MODELS[model])
    return (ctypes.c_int64 * len(sizes))(*sizes)


@on_every_plan
def test_every_weight_is_held_once(library: ctypes.CDLL, model: str, blocks: int, backward: bool) -> None:
    for name, shape in weight_shapes(MODELS[model]).items():
        held = torch.zeros(shape, dtype=torch.int32)
        weight = DrawWeights._fields.index(name)
        library.count_held(numbers(model), blocks, backward, weight, ctypes.c_void_p(held.data_ptr()))
        # Backward, nothing is multiplied by a bias.
        once = name not in NOT_SHARED and not (backward and name.endswith("_bias"))
        assert (held == int(once)).all(), f"{name}: {held.min()} to {held.max()} times"


@on_every_plan
def test_pieces_of_a_slice_have_places_of_their_own(
    library: ctypes.CDLL, model: str, blocks: int, backward: bool
) -> None:
    assert library.count_conflicts(numbers(model), blocks, backward) == 0


@pytest.mark.parametrize(("total", "parts"), [(0, 3), (1, 1), (5, 7), (400, 33), (100, 132), (1 << 20, 7)])
def test_shares_follow_one_another_and_differ_by_one_at_most(library: ctypes.CDLL, total: int, parts: int) -> None:
    end, sizes = 0, set()
    for k in range(parts):
        found = (ctypes.c_int * 2)()
        library.find_share(ctypes.c_int64(total), ctypes.c_int64(parts), ctypes.c_int64(k), found)
        assert found[0] == end
        end = found[1]
        sizes.add(found[1] - found[0])
    assert end == total
    assert max(sizes) - min(sizes) <= 1


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


@with_plans
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
