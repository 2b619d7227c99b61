"""What the rollouts refuse: empty sizes, and direct calls of their torch ops that would reach beyond a tensor."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fastdraw import dispatch, ops
from fastdraw.kernels.rollout_layout import saved_width

from .cases import Draw, Inputs, parameter, runs

EMPTY = {
    "C": {"C": 0},
    "H": {"H": 0},
    "W": {"W": 0},
    "U": {"U": 0},
    "Z": {"Z": 0},
    "D": {"D": 0},
    "A": {"A": 0},
}
CPU = [parameter(run, name=op) for op in ("draw_rollout", "draw_generate") for run in runs(op) if run.backend == "cpu"]


def inputs() -> Inputs:
    return Inputs("refusals", torch.float32, "cpu")


@pytest.mark.parametrize("letter", EMPTY)
@pytest.mark.parametrize("op", ["rollout", "generate"])
def test_only_the_batch_may_be_empty(op: str, letter: str) -> None:
    arguments = getattr(Draw(**EMPTY[letter]), op)(inputs())
    with pytest.raises(ValueError, match=rf"^draw_{op}: only the batch may be empty, got .*{letter} = "):
        getattr(ops, f"draw_{op}")(**arguments)


def flat_generate(draw: Draw, saved_rows: int = 0, saved_width: int = 0, **changed: Any) -> list[Any]:
    """Arguments of torch.ops.fastdraw.draw_generate."""
    given = {**draw.generate(inputs()), **changed}
    tensors = [given["noise"], given["labels"], None, given.get("steps"), *given["weights"]]
    return [*tensors, given["n_write"] or 0, False, False, False, False, 1e-8, False, False, saved_rows, saved_width]


needs_kernels = pytest.mark.skipif(dispatch.extension_refusal is not None, reason="the extension is not built")


@needs_kernels
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"noise": torch.zeros(0, 2, 2)}, "only the batch may be empty, got T = 0"),
        ({"labels": torch.zeros(2, 0, 2)}, "labels and align_v must not be empty, got L = 0"),
        ({"noise": torch.zeros(2, 3, 2)}, "labels must have shape"),
        ({"steps": torch.tensor([3, 0])}, "steps must lie in 0..2, got 3"),
        ({"n_write": 2**32}, "the side of a glimpse must lie in 1..1000000"),
        ({"n_write": -1}, "the side of a glimpse must lie in 1..1000000"),
        ({"n_write": 2}, "patch must have shape"),
    ],
)
def test_a_direct_call_is_checked(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(RuntimeError, match=words):
        torch.ops.fastdraw.draw_generate(*flat_generate(Draw(), **changed))


@needs_kernels
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda saved: saved[:0], "nothing was saved"),
        (lambda saved: saved[:1], "saved must have 4 rows, got 1"),
        (lambda saved: saved[0, :1].expand(saved.shape), "saved must be contiguous"),
        (lambda saved: saved[0], "saved must have 2 dimensions"),
        (lambda saved: saved[:, 1:], "saved must have shape"),
        (lambda saved: saved.double(), "saved must be Float"),
    ],
    ids=["none", "rows", "expanded", "flat", "width", "dtype"],
)
def test_what_was_saved_is_checked(spoil: Any, words: str) -> None:
    flat = flat_generate(
        Draw(), -1, ops.rollout_native._saved_width(ops.rollout_native._call(False, flat_generate(Draw())))
    )
    canvas, saved = torch.ops.fastdraw.draw_generate(*flat)
    with pytest.raises(RuntimeError, match=words):
        torch.ops.fastdraw.draw_generate_bwd(torch.ones_like(canvas), spoil(saved), *flat[:-2], True, True)


@pytest.mark.parametrize("run", [run for run in runs("draw_generate") if run.backend == "triton"], ids=str)
def test_what_triton_saved_is_checked(run: Any) -> None:
    op, width = torch.ops.fastdraw_triton.draw_generate, saved_width(False, flat_generate(Draw()))
    for rows, columns in ((2, width), (-1, width - 1)):
        with pytest.raises(ValueError, match="saved_rows and saved_width must be 0, or"):
            op(*flat_generate(Draw(), rows, columns))
    flat = flat_generate(Draw(), -1, width)
    canvas, saved = op(*flat)
    for spoiled in (saved[:1], saved[:, 1:], saved[0], saved.double()):
        with pytest.raises(ValueError, match="saved must have shape"):
            torch.ops.fastdraw_triton.draw_generate_bwd(torch.ones_like(canvas), spoiled, *flat[:-2], True, True)
    with pytest.raises(ValueError, match="it had saved_rows = 0"):
        torch.ops.fastdraw_triton.draw_generate_bwd(torch.ones_like(canvas), saved[:0], *flat[:-2], True, True)


@needs_kernels
def test_a_direct_map_is_refused() -> None:
    flat = flat_generate(Draw())

    def draw(noise: Tensor) -> Tensor:
        return ops.rollout._draw_generate.fused["cpu"](noise, *flat[1:])[0]

    with pytest.raises(NotImplementedError, match="draw_generate cannot be mapped"):
        torch.vmap(draw)(flat[0][None])


@pytest.mark.parametrize("run", CPU)
def test_one_graph_serves_batches_of_any_size(run: Any) -> None:
    graphs = 0

    def backend(module: torch.fx.GraphModule, _inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return module

    op = run.op.removeprefix("draw_")
    compiled = torch.compile(lambda **arguments: run(**arguments), backend=backend, dynamic=True, fullgraph=True)
    for batch in (17, 18, 19):  # unlike any other size, or torch takes the two for one
        given = getattr(Draw(B=batch), op)(inputs())
        given["weights"] = given["weights"]._replace(prior=given["weights"].prior.requires_grad_())
        expected = run(**given)
        actual = compiled(**given)
        torch.testing.assert_close(actual, expected)
    assert graphs == 1
