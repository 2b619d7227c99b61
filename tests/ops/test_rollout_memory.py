"""What the rollouts of a GPU put into memory: states and windows, and never a filter."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastdraw.kernels import rollout_layout

from .cases import Draw, Inputs, Run, parameter, runs
from .test_derivatives import torch_op_calls

# Numbers of filters and lengths of filters are primes that no other size has.
DRAW = Draw(B=3, C=2, H=17, W=19, T=10, L=2, D=4, A=5, U=6, Z=3, n_read=11, n_write=13)
FILTERS = [n * length for n in (DRAW.n_read, DRAW.n_write) for length in (DRAW.H, DRAW.W)]
TRITON = [
    parameter(run, name=op) for op in ("draw_rollout", "draw_generate") for run in runs(op) if run.backend == "triton"
]


class Allocated(TorchDispatchMode):
    """The elements of all memory that came up."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: set[int] = set()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = op(*args, **(kwargs or {}))
        for x in result if isinstance(result, (list, tuple)) else [result]:
            if isinstance(x, Tensor):
                self.elements.add(x.untyped_storage().nbytes() // x.itemsize)
        return result


@pytest.mark.parametrize("run", TRITON)
def test_no_filter_is_in_memory(run: Run) -> None:
    arguments = getattr(DRAW, run.op.removeprefix("draw_"))(Inputs("filters", torch.float32, run.device))
    calls = torch_op_calls(run, arguments)
    assert [op._opname for op, _ in calls] == [run.op, f"{run.op}_bwd"]
    from fastdraw.kernels import rollout

    with Allocated() as allocated:
        for op, flat in calls:
            getattr(rollout, op._opname)(*flat)
    pixels = DRAW.B * DRAW.pixels
    assert pixels in allocated.elements, "the canvas was not seen, so that a filter would not be either"
    assert not [size for size in allocated.elements if size and any(size % filters == 0 for filters in FILTERS)]


@pytest.mark.parametrize("run", TRITON)
def test_the_record_holds_states_and_windows_alone(run: Run) -> None:
    encoder = run.op == "draw_rollout"
    arguments = getattr(DRAW, run.op.removeprefix("draw_"))(Inputs("filters", torch.float32, run.device))
    _, (_, flat) = torch_op_calls(run, arguments)
    saved = flat[3 if encoder else 1]
    call = rollout_layout.read_call(encoder, flat[4 if encoder else 2 :])
    record = rollout_layout.lay_out(saved, rollout_layout.spec_of(call))
    glimpse = 2 * DRAW.C * DRAW.n_read**2
    widths = {
        "h_dec": DRAW.U + 1, "zy": DRAW.Z + DRAW.D, "c_dec": DRAW.U, "canvas": DRAW.pixels, "write_window": 5,
        **({"h_enc": DRAW.U + 1, "x": glimpse, "c_enc": DRAW.U, "read_window": 5} if encoder else {}),
    }  # fmt: skip
    parts = {name: part for name, part in record._asdict().items() if part is not None}
    assert parts.keys() == widths.keys()
    for name, width in widths.items():
        assert parts[name].shape == (DRAW.T * DRAW.B, rollout_layout.padded(width)), name
    assert sum(part.numel() for part in parts.values()) == saved.numel()
