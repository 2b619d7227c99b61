"""Additive attention: which items of a sequence matter now.

e_i = v . tanh(query + keys_i)      weights = softmax of e over i < lengths      context = sum_i weights_i values_i
"""

from torch import Tensor

from .. import reference
from ..checks import check_counts, check_tensors
from . import autocast
from .op import Native, Op, vjp


def additive_attention(
    query: Tensor, keys: Tensor, values: Tensor, v: Tensor, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attend to a sequence with additive scores (Bahdanau et al. 2014; paper 000, eq. 15-17).

    Args:
        query (B, A): already projected, W_a h + b.
        keys (B, L, A): already projected, U_a d_i; they do not change over a rollout, so they are made once.
        values (B, L, D): what the context is made of.
        v (A,): weight of each unit in the score.
        lengths (B,): int64 or int32, items that count, 1 <= lengths <= L; all by default.
    Returns:
        context (B, D) and weights (B, L), which are 0 beyond lengths.
    Raises:
        TypeError: an argument has the wrong dtype, or float dtypes differ.
        ValueError: any mismatch of shape or device, or a length out of range.
    Example:
        >>> query, keys, values, v = torch.rand(2, 8), torch.rand(2, 3, 8), torch.rand(2, 3, 20), torch.rand(8)
        >>> context, weights = additive_attention(query, keys, values, v)
        >>> context.shape, weights.shape
        (torch.Size([2, 20]), torch.Size([2, 3]))
    """
    query, keys, values, v = autocast.to_lower(query, keys, values, v)
    sizes = check_tensors(
        "additive_attention", query=(query, "B A"), keys=(keys, "B L A"), values=(values, "B L D"), v=(v, "A")
    )
    if sizes["L"] < 1:
        raise ValueError("additive_attention: keys must hold at least one item, got L = 0")
    check_counts("additive_attention", "lengths", lengths, sizes["B"], 1, sizes["L"], query.device)
    return _additive_attention(query, keys, values, v, lengths)


def _batch_first(query, keys, values, v, lengths):
    # The torch op takes v (G, A), each for as many samples as any other: one here, and more of them under vmap.
    return query, keys, values, v[None], lengths


def _reference_bwd(dcontext, dweights, query, keys, values, v, lengths):
    def attend(query, keys, values, v):
        v = v.repeat_interleave(len(query) // len(v), 0)
        return reference.additive_attention(query, keys, values, v, lengths)

    return vjp(attend, (query, keys, values, v), (dcontext, dweights))


def _fake(query, keys, values, v, lengths):
    return values.new_empty(values.shape[0], values.shape[2]), keys.new_empty(keys.shape[:2])


def _fake_bwd(dcontext, dweights, query, keys, values, v, lengths):
    return tuple(x.new_empty(x.shape) for x in (query, keys, values, v))


def _backward(bwd, grads, tensors, scalars, needs):
    return *bwd(*grads, *tensors), None


_additive_attention = Op(
    "additive_attention",
    "attention",
    reference.additive_attention,
    Native(
        frozenset({"cuda", "triton", "cpu"}),
        "(Tensor query, Tensor keys, Tensor values, Tensor v, Tensor? lengths) -> (Tensor context, Tensor weights)",
        "(Tensor dcontext, Tensor dweights, Tensor query, Tensor keys, Tensor values, Tensor v, Tensor? lengths)"
        " -> (Tensor dquery, Tensor dkeys, Tensor dvalues, Tensor dv)",
        _fake,
        _fake_bwd,
        5,
        _backward,
        _reference_bwd,
        _batch_first,
    ),
)
