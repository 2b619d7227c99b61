"""One step of a long short-term memory.

i, f, g, o = gates      c' = sigmoid(f) c + sigmoid(i) tanh(g)      h' = sigmoid(o) tanh(c')
"""

import torch
from torch import Tensor
from torch.nn.functional import linear

from .. import reference
from ..checks import check_tensors
from . import autocast
from .op import Native, Op, backward_may_come, vjp


def lstm_gates(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The pointwise half of an LSTM step (Gers et al. 2000), without peepholes.

    Args:
        gates (B, 4U): i, f, g, o before their nonlinearities, in torch's order; any float dtype.
        c (B, U): cell state.
    Returns:
        h' (B, U) and c' (B, U).
    Raises:
        TypeError: an argument is no float tensor, or dtypes differ.
        ValueError: any mismatch of shape or device.
    Example:
        >>> h, c = lstm_gates(torch.rand(2, 16), torch.zeros(2, 4))
        >>> h.shape
        torch.Size([2, 4])
    """
    gates, c = autocast.to_lower(gates, c)
    check_tensors("lstm_gates", gates=(gates, "B 4U"), c=(c, "B U"))
    return _lstm_gates(gates, c)


def lstm_step(
    input: Tensor,
    state: tuple[Tensor, Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of torch.nn.LSTMCell, weights and all.

    Args:
        input (B, I): any float dtype.
        state: h (B, U) and c (B, U).
        w_ih (4U, I), w_hh (4U, U), b_ih (4U,), b_hh (4U,): as in torch.nn.LSTMCell.
    Returns:
        h' (B, U) and c' (B, U).
    Raises:
        TypeError: an argument is no float tensor, or dtypes differ.
        ValueError: any mismatch of shape or device.
    Example:
        >>> cell = torch.nn.LSTMCell(3, 4)
        >>> h, c = lstm_step(torch.rand(2, 3), (torch.zeros(2, 4), torch.zeros(2, 4)), cell.weight_ih, cell.weight_hh)
        >>> h.shape
        torch.Size([2, 4])
    """
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        raise TypeError(f"lstm_step: state must be a pair (h, c), got {type(state).__name__}")
    h, c = state
    input, h, c, w_ih, w_hh, b_ih, b_hh = autocast.to_lower(input, h, c, w_ih, w_hh, b_ih, b_hh)
    check_tensors(
        "lstm_step",
        input=(input, "B I"),
        h=(h, "B U"),
        c=(c, "B U"),
        w_ih=(w_ih, "4U I"),
        w_hh=(w_hh, "4U U"),
        b_ih=(b_ih, "4U?"),
        b_hh=(b_hh, "4U?"),
    )
    # torch.func sees through the composition only: the kernel cannot be mapped over weights.
    if _lstm_step.backend(input) == "triton" and not torch._C._are_functorch_transforms_active():
        tensors = input, h, c, w_ih, w_hh, b_ih, b_hh
        h_next, c_next, _ = _lstm_step.fused["triton"](*tensors, backward_may_come(tensors))
        return h_next, c_next
    return _lstm_gates(linear(input, w_ih, b_ih) + linear(h, w_hh, b_hh), c)


def _reference_bwd(dh, dc_next, gates, c):
    return vjp(reference.lstm_gates, (gates, c), (dh, dc_next))


def _fake(gates, c):
    return c.new_empty(c.shape), c.new_empty(c.shape)


def _fake_bwd(dh, dc_next, gates, c):
    return gates.new_empty(gates.shape), c.new_empty(c.shape)


def _backward(bwd, grads, tensors, scalars, needs):
    return bwd(*grads, *tensors)


_lstm_gates = Op(
    "lstm_gates",
    "lstm",
    reference.lstm_gates,
    Native(
        frozenset({"cuda", "triton", "cpu"}),
        "(Tensor gates, Tensor c) -> (Tensor h, Tensor c_next)",
        "(Tensor dh, Tensor dc_next, Tensor gates, Tensor c) -> (Tensor dgates, Tensor dc)",
        _fake,
        _fake_bwd,
        2,
        _backward,
        _reference_bwd,
    ),
)


def _reference_step(input, h, c, w_ih, w_hh, b_ih, b_hh):
    return reference.lstm_step(input, (h, c), w_ih, w_hh, b_ih, b_hh)


def _reference_step_bwd(dh_next, dc_next, gates, input, h, c, w_ih, w_hh, b_ih, b_hh, *needs):
    # Both biases have the same gradient: that of a number that is added to the gates.
    shift = w_hh.new_zeros(w_hh.shape[0])

    def step(input, h, c, w_ih, w_hh, shift):
        gates = linear(input, w_ih, b_ih) + linear(h, w_hh, b_hh) + shift
        return reference.lstm_gates(gates, c)

    found = vjp(step, (input, h, c, w_ih, w_hh, shift), (dh_next, dc_next))
    wanted = needs[0], needs[1], True, *needs[2:]
    return tuple(dx if want else c.new_empty(0) for dx, want in zip(found, wanted, strict=True))


def _fake_step(input, h, c, w_ih, w_hh, b_ih, b_hh, keep_gates):
    compute = torch.float64 if c.dtype == torch.float64 else torch.float32
    gates = c.new_empty(c.shape[0] if keep_gates else 0, w_hh.shape[0], dtype=compute)
    return c.new_empty(c.shape), c.new_empty(c.shape), gates


def _fake_step_bwd(dh_next, dc_next, gates, input, h, c, w_ih, w_hh, b_ih, b_hh, *needs):
    need_dinput, need_dh, need_dw_ih, need_dw_hh, need_dbias = needs
    shapes = input.shape, h.shape, c.shape, w_ih.shape, w_hh.shape, w_hh.shape[:1]
    wanted = need_dinput, need_dh, True, need_dw_ih, need_dw_hh, need_dbias
    return tuple(c.new_empty(shape if want else 0) for shape, want in zip(shapes, wanted, strict=True))


def _backward_step(bwd, grads, tensors, scalars, needs):
    *tensors, gates = tensors
    c = tensors[2]
    need_dinput, need_dh, _, need_dw_ih, need_dw_hh, need_db_ih, need_db_hh = needs
    wanted = need_dinput, need_dh, True, need_dw_ih, need_dw_hh, need_db_ih or need_db_hh
    grads = (c.new_zeros(c.shape) if dy is None else dy for dy in grads)
    found = bwd(*grads, gates, *tensors, *map(bool, (*wanted[:2], *wanted[3:])))
    *found, dbias = (dx if want else None for dx, want in zip(found, wanted, strict=True))
    return *found, dbias if need_db_ih else None, dbias if need_db_hh else None


_TENSORS = "Tensor input, Tensor h, Tensor c, Tensor w_ih, Tensor w_hh, Tensor? b_ih, Tensor? b_hh"
_NEEDS = "bool need_dinput, bool need_dh, bool need_dw_ih, bool need_dw_hh, bool need_dbias"

_lstm_step = Op(
    "lstm_step",
    "lstm",
    _reference_step,
    Native(
        frozenset({"triton"}),
        f"({_TENSORS}, bool keep_gates) -> (Tensor h_next, Tensor c_next, Tensor gates)",
        f"(Tensor dh_next, Tensor dc_next, Tensor gates, {_TENSORS}, {_NEEDS})"
        " -> (Tensor dinput, Tensor dh, Tensor dc, Tensor dw_ih, Tensor dw_hh, Tensor dbias)",
        _fake_step,
        _fake_step_bwd,
        7,
        _backward_step,
        _reference_step_bwd,
        kept=1,
        batched=False,
    ),
    made_of=_lstm_gates,
)
