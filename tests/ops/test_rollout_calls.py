"""The ways in which the rollouts may be called: by any number of threads, for any gradients, past their checks."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from fastdraw import ops, reference

from .cases import Draw, Inputs, Run, every_run, parameter, runs
from .checking import assert_matches_reference, float_tensors, of_tensors, threads
from .checking import run as run_with_gradients

BOTH = every_run("draw_rollout", "draw_generate")
KERNELS = every_run("draw_rollout", "draw_generate", reference=False)
DRAW = Draw(B=3, C=2, H=5, W=7, T=3, L=3, D=4, A=5, U=6, Z=3)


def arguments(run: Run, draw: Draw = DRAW, dtype: torch.dtype = torch.float64, **options: Any) -> dict[str, Any]:
    return getattr(draw, run.op.removeprefix("draw_"))(Inputs("calls", dtype, run.device), **options)


def leaves_of(given: dict[str, Any]) -> dict[str, Tensor]:
    return {name: x.requires_grad_() for name, x in float_tensors(given).items()}


def outputs_of(run: Run, given: dict[str, Any]) -> list[Tensor]:
    return list(float_tensors({"output": run(**given)}).values())


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, x in expected.items():
        assert torch.equal(actual[name], x), name


def assert_equal_but_for_products(run: Run, actual: Tensor, expected: Tensor) -> None:
    """Products that are torch's may be summed up in another order."""
    tolerance = 0.0 if run.backend == "cpu" else 1e-5
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance * max(1.0, expected.abs().max().item()))


# A batch of 40 goes through every stage together on 1 or 3 threads, and is dealt out to 2; one of 50 is dealt out to 3.
@pytest.mark.parametrize("batch", [40, 50])
@pytest.mark.parametrize(
    ("run", "dtype"),
    [
        parameter(run, dtype, name=f"{op}-{dtype}".replace("torch.", ""))
        for op in ("draw_rollout", "draw_generate")
        for dtype in (torch.float32, torch.bfloat16)
        for run in runs(op, dtype)
        if run.backend == "cpu"
    ],
)
def test_threads_do_not_change_a_bit(run: Run, dtype: torch.dtype, batch: int) -> None:
    draw = Draw(B=batch, H=9, W=11, T=3, L=2, D=3, A=40, U=40, Z=20)
    steps = tuple(b % 4 for b in range(batch))
    found = []
    for count in (1, 2, 3):
        with threads(count):
            found.append(run_with_gradients(run, arguments(run, draw, dtype, steps=steps)))
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for name, x in found[0].items():
            assert torch.equal(other[name], x), name


@KERNELS
def test_more_rows_than_a_block_of_a_product(run: Run) -> None:
    """On the CPU the gradient of a weight is summed up over 256 samples and steps at a time."""
    draw = Draw(B=130, H=3, W=4, T=2, L=1, D=2, A=3, U=4, Z=2, n_read=2, n_write=2)
    make = getattr(draw, run.op.removeprefix("draw_"))
    assert_matches_reference(
        run, getattr(reference, run.op), lambda dtype: make(Inputs("rows", dtype, run.device)), torch.float32, steps=4
    )


@KERNELS
def test_rows_of_a_product_do_not_change_a_bit(run: Run) -> None:
    """A batch of any size is cut into tiles of other sizes, and no sample may know."""
    given = arguments(run, Draw(B=13, T=2, U=24, Z=17, n_read=5, n_write=5), torch.float32)
    batch_dim = {name: int(name == "noise") for name in ("image", "labels", "noise") if name in given}

    def first(count: int) -> list[Tensor]:
        taken = {name: given[name].narrow(dim, 0, count).requires_grad_() for name, dim in batch_dim.items()}
        loss = sum(y.sum() for y in outputs_of(run, given | taken))
        return list(torch.autograd.grad(loss, list(taken.values())))

    expected = first(13)
    for count in range(1, 13):
        for x, y, dim in zip(first(count), expected, batch_dim.values(), strict=True):
            assert_equal_but_for_products(run, x, y.narrow(dim, 0, count))


@KERNELS
def test_gradients_of_some_inputs_are_those_of_all(run: Run) -> None:
    given = arguments(run)
    function, leaves = of_tensors(run, given), float_tensors(given)
    expected = run_with_gradients(run, given)
    for name in leaves:
        only = [x.detach().requires_grad_(other == name) for other, x in leaves.items()]
        outputs = float_tensors({"output": function(*only)}).values()
        generator = torch.Generator().manual_seed(1)
        upstream = [torch.randn(y.shape, dtype=torch.float64, generator=generator) for y in outputs]
        if all(not y.requires_grad for y in outputs):
            assert not expected[f"gradient of {name}"].any(), name
            continue
        (wanted,) = (x for x in only if x.requires_grad)
        (actual,) = torch.autograd.grad(list(outputs), [wanted], upstream, allow_unused=True, materialize_grads=True)
        assert torch.equal(actual, expected[f"gradient of {name}"]), name


@KERNELS
def test_one_graph_can_be_walked_twice(run: Run) -> None:
    given = arguments(run, steps=(3, 0, 2))
    leaves = list(leaves_of(given).values())
    loss = sum(y.sin().sum() for y in outputs_of(run, given))
    unused = {"allow_unused": True, "materialize_grads": True}
    first = torch.autograd.grad(loss, leaves, retain_graph=True, **unused)
    second = torch.autograd.grad(loss, leaves, **unused)
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


@KERNELS
def test_layout_of_upstream_gradients_does_not_matter(run: Run) -> None:
    given = arguments(run)
    leaves = list(leaves_of(given).values())
    outputs = outputs_of(run, given)

    def found(upstream: list[Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            outputs, leaves, upstream, retain_graph=True, allow_unused=True, materialize_grads=True
        )

    ones = [torch.ones_like(y) for y in outputs]
    expanded = [y.new_ones(()).expand(y.shape) for y in outputs]
    transposed = [x.movedim(0, -1).contiguous().movedim(-1, 0) for x in ones]
    expected = found(ones)
    for upstream in (expanded, transposed):
        assert all(torch.equal(x, y) for x, y in zip(found(upstream), expected, strict=True))


@every_run("draw_rollout", reference=False)
def test_each_output_alone_has_its_gradient(run: Run) -> None:
    given = arguments(run, steps=(3, 0, 2))
    leaves = list(leaves_of(given).values())
    outputs = outputs_of(run, given)
    unused = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    together = torch.autograd.grad(sum(y.sum() for y in outputs), leaves, **unused)
    alone = [torch.autograd.grad(y.sum(), leaves, **unused) for y in outputs]
    for x, *parts in zip(together, *alone, strict=True):
        torch.testing.assert_close(sum(parts), x)


@BOTH
def test_weights_without_a_use_have_no_gradient(run: Run) -> None:
    """Neither a first nor a second derivative: the attention's without labels, the encoder's in generating."""
    given = arguments(run) | {"labels": None, "lengths": None}
    weights = given["weights"]
    given["weights"] = weights._replace(dec_ih=weights.dec_ih[:, :3].clone())
    leaves = leaves_of(given)
    unused = {"allow_unused": True, "materialize_grads": True}
    loss = sum(y.sin().sum() for y in outputs_of(run, given))
    first = torch.autograd.grad(loss, leaves.values(), create_graph=True, **unused)
    second = torch.autograd.grad(sum(x.square().sum() for x in first), leaves.values(), **unused)
    for name, x, y in zip(leaves, first, second, strict=True):
        idle = "align" in name or (run.op == "draw_generate" and any(s in name for s in ("enc", "post", "read")))
        assert idle != bool(x.any()), name
        assert idle != bool(y.any()), name


@BOTH
def test_counts_may_be_int32(run: Run) -> None:
    counts = {"lengths": (1, 3, 2), "steps": (3, 1, 0)}
    given = arguments(run, **counts)
    shorter = {name: given[name].int() for name in counts}
    apart = {name: torch.stack([x, x + 100], dim=1)[:, 0] for name, x in shorter.items()}
    expected = run_with_gradients(run, given)
    assert_equal(run_with_gradients(run, given | shorter), expected)
    assert_equal(run_with_gradients(run, given | apart), expected)


@KERNELS
def test_several_python_threads_may_call_at_once(run: Run) -> None:
    given = [arguments(run, DRAW._replace(B=batch)) for batch in range(1, 7)]
    expected = [run_with_gradients(run, each) for each in given]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            for actual, wanted in zip(
                pool.map(lambda each: run_with_gradients(run, each), given), expected, strict=True
            ):
                assert_equal(actual, wanted)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@KERNELS
def test_what_is_not_finite_stays_in_its_sample(run: Run, value: float) -> None:
    given = arguments(run, DRAW._replace(B=3))
    expected = run(**given)
    for name in ("noise", "labels", "image"):
        if name not in given:
            continue
        x = given[name].clone()
        (x[:, 1] if name == "noise" else x[1])[...] = value
        actual = run(**{**given, name: x})
        for y, z in zip(_per_sample(actual), _per_sample(expected), strict=True):
            assert torch.equal(y[[0, 2]], z[[0, 2]])
            assert y[1].isnan().any() or value == value, name


def _per_sample(output: Any) -> list[Tensor]:
    return [output.nll, output.kl.T, output.canvas] if isinstance(output, ops.DrawOutput) else [output]
