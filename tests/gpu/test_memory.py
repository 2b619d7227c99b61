"""Tensors with more than 2^31 elements, and what an out-of-memory error leaves behind."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ..ops.cases import Draw, Inputs, Run
from ..ops.checking import float_tensors, of_tensors
from .machine import DEVICE, DRY, leaves_of, memory_limit, on_gpu, pass_through, require_memory

pytestmark = pytest.mark.gpu

LIMIT = 2**12 if DRY else 2**31  # elements, of which one tensor at least has more
ROW = 2**12  # elements of a sample in that tensor
# The batch of a persistent rollout has to fit the multiprocessors' shared memory: it has many steps in its place.
STEPS = {"cuda": 2 if DRY else 1024, "triton": 2 if DRY else 8}
IMAGE = 1, 32, 128
LARGE = Draw(C=1, H=32, W=128)


def last_sample(op: str) -> dict[str, Any]:
    """Arguments of `op` for one sample, in float16."""
    make = Inputs("last", torch.float16, DEVICE)
    glimpse = {"window": make.window(1), "n": 8}
    images = {"image": make.uniform(1, *IMAGE), "canvas": make.normal(1, *IMAGE)}
    latent = {name: make.normal(1, ROW) for name in ("mu_q", "log_sigma_q", "mu_p", "log_sigma_p")}
    arguments = {
        "gaussian_filterbank": {**glimpse, "size": (16, ROW // 8)},
        "glimpse_read": {**glimpse, "image": images["image"]},
        "glimpse_write": {
            "window": glimpse["window"],
            "patch": make.normal(1, 1, 8, 8),
            "size": IMAGE[1:],
            "canvas": images["canvas"],
        },
        "draw_read": {**glimpse, **images},
        "additive_attention": {
            "query": make.normal(1, ROW // 4),
            "keys": make.normal(1, 4, ROW // 4),
            "values": make.normal(1, 4, 16),
            "v": make.normal(ROW // 4, scale=0.1),
        },
        "lstm_step": {
            "input": make.normal(1, ROW),
            "state": (make.normal(1, 16), make.normal(1, 16)),
            "w_ih": make.normal(64, ROW, scale=1 / 64),
            "w_hh": make.normal(64, 16, scale=1 / 4),
        },
        "lstm_gates": {"gates": make.normal(1, ROW), "c": make.normal(1, ROW // 4)},
        # Half the numbers of `ROW` terms would leave float16's range.
        "gaussian_kl": {name: x / 8 for name, x in latent.items()},
        "sample_kl": {name: x / 8 for name, x in latent.items()} | {"noise": make.normal(1, ROW)},
        "bernoulli_nll": {"logits": images["canvas"], "target": images["image"]},
        "gaussian_nll": {"mean": images["canvas"], "log_sigma": images["image"], "target": images["image"] / 2},
    }
    return arguments[op]


ROLLOUTS = ("draw_rollout", "draw_generate")
OPS = ("gaussian_filterbank", "glimpse_read", "glimpse_write", "draw_read", "additive_attention", "lstm_gates")
OPS += ("lstm_step", "gaussian_kl", "sample_kl", "bernoulli_nll", "gaussian_nll")
WEIGHTS = ("v", "w_ih", "w_hh")


def padded(x: Tensor, rows: int, dim: int) -> Tensor:
    """So many samples, of which the last is x and the others are zero."""
    shape = list(x.shape)
    shape[dim] = rows
    larger = x.new_zeros(shape)
    larger.narrow(dim, rows - 1, 1).copy_(x)
    return larger


def of_last(run: Run, arguments: dict[str, Any], rows: int, batch_dims: dict[str, int]) -> list[Tensor]:
    """Outputs of the last of `rows` samples and its gradients, those of weights with all others having none."""
    batches = [(x, dim) for name, dim in batch_dims.items() for x in tree_leaves(arguments[name])]
    places = {id(x): dim for x, dim in batches}
    padding = {id(x): padded(x, rows, dim) for x, dim in batches}
    given = tree_map(lambda x: padding.get(id(x), x.clone() if isinstance(x, Tensor) else x), arguments)
    leaves = float_tensors(given)
    for x in leaves.values():
        x.requires_grad_()
    outputs = list(float_tensors({"output": run(**given)}).values())
    dims = [1 if run.op in ROLLOUTS and y.dim() in (2, 5) else 0 for y in outputs]
    last = [y.narrow(dim, rows - 1, 1).detach() for y, dim in zip(outputs, dims, strict=True)]
    upstream = [padded(y.float().cos().to(y.dtype), rows, dim) for y, dim in zip(last, dims, strict=True)]
    gradients = torch.autograd.grad(outputs, list(leaves.values()), upstream, allow_unused=True, materialize_grads=True)
    batched = {id(x): places[key] for key, x in padding.items()}
    return last + [
        g.narrow(batched[id(x)], rows - 1, 1) if id(x) in batched else g
        for x, g in zip(leaves.values(), gradients, strict=True)
    ]


def assert_last_is_alone(run: Run, arguments: dict[str, Any], rows: int, batch_dims: dict[str, int]) -> None:
    expected = of_last(run, arguments, 1, batch_dims)
    actual = of_last(run, arguments, rows, batch_dims)
    assert any(x.any() for x in expected)
    for x, y in zip(actual, expected, strict=True):
        torch.testing.assert_close(x, y)
    del actual
    require_memory(0)  # gives back what the next test may need


@on_gpu(*OPS, fused=True)
def test_offsets_beyond_32_bits(run: Run) -> None:
    require_memory(40 << 30)
    arguments = last_sample(run.op)
    batched = {name: 0 for name, x in arguments.items() if isinstance(x, Tensor | tuple) and name not in WEIGHTS}
    batched.pop("size", None)
    assert_last_is_alone(run, arguments, LIMIT // ROW + 2, batched)


@on_gpu("draw_rollout", "draw_generate", fused=True)
def test_rollout_with_offsets_beyond_32_bits(run: Run) -> None:
    """The canvases of all steps together, which are kept or returned, have more than 2^31 elements."""
    require_memory(80 << 30)
    frames = {"frames": True} if run.op == "draw_generate" else {}
    draw = LARGE._replace(T=STEPS[run.backend])
    arguments = getattr(draw, run.op.removeprefix("draw_"))(Inputs("last", torch.float16, DEVICE), **frames)
    arguments = {
        name: x[:, :1] if name == "noise" else x[:1] if name in ("image", "labels") else x
        for name, x in arguments.items()
    }
    batched = {name: int(name == "noise") for name in ("image", "labels", "noise") if name in arguments}
    assert_last_is_alone(run, arguments, LIMIT // draw.T // ROW + 2, batched)


@on_gpu("draw_rollout", "draw_generate")
def test_out_of_memory_leaves_a_usable_process(run: Run) -> None:
    def prepare(draw: Draw) -> tuple[Any, list[Tensor]]:
        arguments = getattr(draw, run.op.removeprefix("draw_"))(Inputs("memory", torch.float32, DEVICE))
        return of_tensors(run, arguments), leaves_of(arguments)

    batch = 4 if DRY else 512
    small, large = prepare(Draw(B=3, T=4)), prepare(Draw(B=batch, H=64, W=64, T=8))
    expected = pass_through(*small)
    canvas = batch * 64 * 64 * 4
    failures = 0
    # It fails at the first canvas, later in the forward pass, or in the backward pass.
    for room in (0, canvas // 2, 2 * canvas, 4 * canvas, 8 * canvas):
        with memory_limit(room):
            try:
                pass_through(*large)
            except torch.OutOfMemoryError:
                failures += 1
        for x, y in zip(pass_through(*small), expected, strict=True):
            assert torch.equal(x, y)
    assert DRY or failures >= 2
    assert all(x.isfinite().all() for x in pass_through(*large))
    for x, y in zip(pass_through(*small), expected, strict=True):
        assert torch.equal(x, y)
