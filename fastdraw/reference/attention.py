"""Additive attention over a sequence (Bahdanau et al. 2014; paper 000, eq. 15-17)."""

import torch
from torch import Tensor


def additive_attention(
    query: Tensor, keys: Tensor, values: Tensor, v: Tensor, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """context (B, D) and weights (B, L) of softmax_i(v . tanh(query + keys_i)) over the first `lengths` items.

    v is (A,), or (B, A) with one for each sample.
    """
    scores = (torch.tanh(query[:, None] + keys) @ v[..., None]).squeeze(-1)  # (B, L)
    if lengths is not None:
        position = torch.arange(keys.shape[1], device=keys.device)
        scores = scores.masked_fill(position >= lengths[:, None], -torch.inf)
    weights = torch.softmax(scores, dim=-1)
    context = (weights[:, None] @ values).squeeze(1)  # (B, D)
    return context, weights
