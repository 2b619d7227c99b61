"""One step of a long short-term memory.

i, f, g, o = gates      c' = sigmoid(f) c + sigmoid(i) tanh(g)      h' = sigmoid(o) tanh(c')
"""

from torch import Tensor
from torch.nn.functional import linear

from .. import reference
from ..checks import check_tensors
from . import autocast
from .op import Native, Op, vjp


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
