"""Arguments that are None, sparse or without data: an error that names them, or the right shape."""

from typing import Any

import pytest
from torch import Tensor

from fastdraw import ops

from .cases import SMALL

OPTIONAL = {"canvas", "lengths", "steps", "mu_p", "log_sigma_p", "b_ih", "b_hh", "labels"}


def required() -> list[tuple[str, str]]:
    return [
        (op, name)
        for op in SMALL
        for name, value in SMALL[op].inputs().items()
        if isinstance(value, Tensor) and value.is_floating_point() and (op == "draw_read" or name not in OPTIONAL)
    ]


@pytest.mark.parametrize(("op", "name"), required())
@pytest.mark.parametrize("kind", ["none", "sparse"])
def test_required_tensor_is_named(op: str, name: str, kind: str) -> None:
    arguments: dict[str, Any] = SMALL[op].inputs()
    wrong = None if kind == "none" else arguments[name].to_sparse()
    words = {"none": "must be a tensor, got NoneType", "sparse": "must be dense, got the layout sparse_coo"}[kind]
    with pytest.raises(TypeError, match=f"^{op}: {name} {words}"):
        getattr(ops, op)(**{**arguments, name: wrong})


@pytest.mark.usefixtures("own_choice")
@pytest.mark.parametrize("op", [op for op in SMALL if op not in ("lstm_step", "draw_rollout", "draw_generate")])
def test_meta_tensors_give_shapes(op: str) -> None:
    arguments = SMALL[op].inputs()
    shapes = {name: x.to("meta") if isinstance(x, Tensor) else x for name, x in arguments.items()}
    wanted, fakes = (getattr(ops, op)(**kwargs) for kwargs in (arguments, shapes))
    if isinstance(wanted, Tensor):
        wanted, fakes = (wanted,), (fakes,)
    assert [(y.shape, y.dtype) for y in fakes] == [(y.shape, y.dtype) for y in wanted]
    assert {y.device.type for y in fakes} == {"meta"}
