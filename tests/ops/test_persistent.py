"""The persistent rollout on other plans than the one that a machine takes: its source, run on the host.

Every block of a launch is a thread there, with the same shares, exchanges and barriers as on a GPU.
"""

import itertools

import pytest
import torch

import fastdraw
from fastdraw import dispatch, ops, reference
from fastdraw.ops import persistent
from fastdraw.ops.persistent import Limits

from .cases import Draw, Inputs, Run
from .checking import Arguments, assert_matches_reference, max_error, run, to_float64

pytestmark = pytest.mark.skipif(not dispatch.emulated, reason="a GPU has one plan for a call")
SHARED = 227 << 10
SMALL = Draw(B=5, C=1, H=6, W=7, T=4, L=3, D=5, A=9, U=40, Z=7, n_read=3, n_write=4)


def assert_right(draw: Draw, op: str, *steps: int) -> None:
    def make(dtype: torch.dtype) -> Arguments:
        inputs = Inputs(f"{draw}", dtype, "cpu")
        arguments = getattr(draw, op.removeprefix("draw_"))(inputs)
        return arguments | ({"steps": inputs.counts(*steps)} if steps else {})

    assert_matches_reference(Run(op, "cuda", "cpu"), getattr(reference, op), make, torch.float32, steps=4)


@pytest.mark.parametrize("op", ["draw_rollout", "draw_generate"])
@pytest.mark.parametrize("multiprocessors", [1, 2, 3, 7, 33, 61])  # 61: more than there are units
def test_any_number_of_blocks_makes_the_same(op: str, multiprocessors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistent, "EMULATED", Limits(multiprocessors, SHARED))
    assert_right(SMALL, op)


@pytest.mark.parametrize(("B", "multiprocessors"), [(9, 4), (17, 7), (26, 9)])
def test_groups_may_be_uneven(B: int, multiprocessors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(multiprocessors, SHARED)
    monkeypatch.setattr(persistent, "EMULATED", limits)
    draw = SMALL._replace(B=B, U=13)
    call = persistent.sizes_of(_call(draw))
    assert persistent.plan(call, False, True, limits).groups > 1
    assert_right(draw, "draw_rollout", *itertools.islice(itertools.cycle([4, 1, 0, 3]), B))


@pytest.mark.parametrize("U", [256, 400])
def test_published_sizes(U: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """That every slice meets its inputs: no matter of the last digits, which the small cases are held to."""
    monkeypatch.setattr(persistent, "EMULATED", Limits(70, SHARED))
    draw = SMALL._replace(B=3, T=2, U=U, A=64, Z=20)
    given = draw.rollout(Inputs("published", torch.float32, "cpu")) | {"steps": torch.tensor([2, 1, 2])}
    exact = run(reference.draw_rollout, to_float64(given), rounded=torch.float32)
    for name, x in run(Run("draw_rollout", "cuda", "cpu"), given).items():
        assert max_error(x, exact[name]) <= 1e-4 * exact[name].abs().max().item(), name


@pytest.mark.parametrize(("op", "each_step"), [("draw_rollout", 5), ("draw_generate", 3)])
def test_barriers_of_a_launch(op: str, each_step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/design/persistent-rollout.md counts them; forward, one before the first step and one after the last."""
    counters: list[torch.Tensor] = []
    make = persistent._counters

    def keep(call: persistent.Call, found: persistent.Plan) -> torch.Tensor:
        counters.append(make(call, found))
        return counters[-1]

    monkeypatch.setattr(persistent, "_counters", keep)
    run(Run(op, "cuda", "cpu"), getattr(SMALL, op.removeprefix("draw_"))(Inputs(op, torch.float32, "cpu")))
    blocks, steps = persistent.EMULATED.multiprocessors, SMALL.T * each_step
    assert [arrived[0].item() for arrived in counters] == [blocks * (steps + 2), blocks * steps]


@pytest.mark.parametrize("op", ["draw_rollout", "draw_generate"])
@pytest.mark.parametrize("far", [1, 1000, 2**40])
def test_counts_out_of_range_stay_within_the_tensors(op: str, far: int) -> None:
    """Nobody reads them under torch.compile, nor while a CUDA graph is captured."""
    given = getattr(SMALL, op.removeprefix("draw_"))(Inputs(op, torch.float32, "cpu"))
    compiled = torch.compile(lambda **arguments: Run(op, "cuda", "cpu")(**arguments), backend="eager")

    def with_counts(lengths: list[int], steps: list[int]) -> Arguments:
        return given | {"lengths": torch.tensor(lengths), "steps": torch.tensor(steps)}

    wrong = run(compiled, with_counts([3 + far, 1, 2, 3, 3 + far], [SMALL.T + far, 1, -far, -1, 2]))
    right = run(compiled, with_counts([3, 1, 2, 3, 3], [SMALL.T, 1, 0, 0, 2]))
    assert all(torch.equal(wrong[name], right[name]) for name in right)


def test_less_memory_takes_smaller_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = SMALL._replace(U=100)
    at = persistent.sizes_of(_call(draw))
    least, ample = (
        max(persistent.plan(at, False, backward, Limits(9, shared)).shared for backward in (False, True))
        for shared in (1, SHARED)
    )
    assert least < ample
    monkeypatch.setattr(persistent, "EMULATED", Limits(9, least))
    assert_right(draw, "draw_rollout")


def test_what_does_not_fit_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistent, "EMULATED", Limits(2, 16 << 10))
    message = (
        r"the backend 'cuda' was asked for and cannot run: U = 40 and a batch of 5 do not fit: a block needs \d+ KiB "
        r"of shared memory at least, and each of the GPU's 2 multiprocessors has 16 KiB$"
    )
    with fastdraw.backend("cuda"), pytest.raises(dispatch.BackendError, match=message):
        ops.draw_rollout(**SMALL.rollout(Inputs("large", torch.float32, "cpu")))


def _call(draw: Draw) -> persistent.Call:
    given = draw.rollout(Inputs("sizes", torch.float32, "cpu"))
    tensors = (given[name] for name in ("noise", "image", "labels", "lengths"))
    options = (draw.n_read, draw.n_write, False, False, False, False, 1e-8, False)
    return persistent.read_call(True, (*tensors, None, *given["weights"], *options, 0, 0))
