"""An LSTM cell that takes the place of torch's."""

import torch
from torch import Tensor, nn

from .. import ops


class LSTMCell(nn.LSTMCell):
    """torch.nn.LSTMCell with a fused pointwise half: the same arguments, weights and state dict.

    Example:
        >>> cell = LSTMCell(3, 4)
        >>> h, c = cell(torch.rand(2, 3))
        >>> h.shape
        torch.Size([2, 4])
    """

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """input (B, I) or (I,), hx = (h, c), each (B, U) or (U,), zeros by default -> h', c'."""
        batched = input.dim() != 1
        rows = input if batched else input[None]
        if hx is None:
            state = (torch.zeros(rows.shape[0], self.hidden_size, dtype=input.dtype, device=input.device),) * 2
        else:
            state = hx if batched else (hx[0][None], hx[1][None])
        h, c = ops.lstm_step(rows, state, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        return (h, c) if batched else (h[0], c[0])
