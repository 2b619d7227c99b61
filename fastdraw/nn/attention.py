"""Additive attention with its weights."""

import math

import torch
from torch import Tensor, nn

from .. import ops


class AdditiveAttention(nn.Module):
    """Attends to a sequence from a query (Bahdanau et al. 2014).

    Args:
        query_size: of the vector that asks.
        value_size: of each item.
        width: of the scoring layer.
    Example:
        >>> attention = AdditiveAttention(256, 20, 128)
        >>> values = torch.rand(2, 3, 20)
        >>> context, weights = attention(torch.zeros(2, 256), attention.keys(values), values)
        >>> context.shape, weights.shape
        (torch.Size([2, 20]), torch.Size([2, 3]))
    """

    def __init__(self, query_size: int, value_size: int, width: int):
        super().__init__()
        self.query = nn.Linear(query_size, width)
        self.keys = nn.Linear(value_size, width, bias=False)
        self.v = nn.Parameter(torch.empty(width).uniform_(-1 / math.sqrt(width), 1 / math.sqrt(width)))

    def forward(
        self, query: Tensor, keys: Tensor, values: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """query (B, query_size), keys (B, L, width), values (B, L, value_size) -> context (B, value_size), weights.

        The keys are `self.keys(values)`, made once per sequence; lengths (B,) says how many items of each count.
        """
        return ops.additive_attention(self.query(query), keys, values, self.v, lengths)
