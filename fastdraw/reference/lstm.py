"""One step of a long short-term memory, gates in torch's order i, f, g, o.

Hochreiter and Schmidhuber 1997; Gers et al. 2000.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear


def lstm_gates(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The pointwise half: gates (B, 4U) before their nonlinearities and c (B, U) -> h', c' (B, U)."""
    i, f, g, o = gates.chunk(4, dim=-1)
    c_next = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c_next), c_next


def lstm_step(
    input: Tensor,
    state: tuple[Tensor, Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """torch.nn.LSTMCell: input (B, I), state (h, c) (B, U) -> h', c'."""
    h, c = state
    return lstm_gates(linear(input, w_ih, b_ih) + linear(h, w_hh, b_hh), c)
