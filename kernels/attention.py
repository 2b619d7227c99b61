"""Additive attention, in Triton.

    e_i = v . tanh(query + keys_i)      w = softmax of e over i < length      context = sum_i w_i values_i

    a_i = dweights_i + dcontext . values_i              s_i = w_i (a_i - sum_j w_j a_j), the gradient of e_i
    dkeys_i = s_i v (1 - tanh^2)      dquery = sum_i dkeys_i      dvalues_i = w_i dcontext      dv = sum_b,i s_i tanh

v (G, A): B / G samples in a row share one, all of them (G = 1) unless vmap varies v.

One program computes BLOCK_B samples, whole: all items at once (BLOCK_L >= L), units and columns in blocks. Forward:
reads B (A + L (A + D)) elements, writes B (D + L). Backward: reads the same (keys twice, for the weights are computed
again) and writes a gradient of each; dv in two stages, of which the second (`sums.py`) adds up B rows of A elements.
Items beyond a length are neither read nor counted.
Every element is computed by one program, every sum in an order that the sizes of a sample alone decide: deterministic.
"""

import torch
import triton
import triton.language as tl

from .configs import config
from .numerics import divide, exp_minus_abs, tanh_and_slope, with_unit_stride
from .sums import sum_partials

Optional = torch.Tensor | None

# The functions below take the first addresses of each sample's rows (BLOCK_B,) and work on whole samples. A sample of
# length 0 reads nothing, and has no weights.


@triton.jit
def load_block(ptrs, rows, columns, stride_row, mask):
    """Elements (BLOCK_B, rows, columns) of rows that start `stride_row` apart; 0 where masked."""
    # float16 and bfloat16 are computed in float32.
    dtype: tl.constexpr = tl.float64 if ptrs.dtype.element_ty == tl.float64 else tl.float32
    offs = rows[None, :, None] * stride_row + columns[None, None, :]
    return tl.load(ptrs[:, None, None] + offs, mask=mask, other=0.0).to(dtype)


@triton.jit
def tanh_block(query_ptrs, keys_ptrs, v_ptrs, length, first, A, stride_keys_l, offs_l, BLOCK_A: tl.constexpr):
    """tanh(query + key) and its slope (BLOCK_B, BLOCK_L, BLOCK_A), v (BLOCK_B, 1, BLOCK_A) of units from `first`."""
    offs_a = first + tl.arange(0, BLOCK_A)
    units = offs_a[None, None, :] < A
    alive = length[:, None, None] > 0
    one = tl.zeros((1,), tl.int32)
    query = load_block(query_ptrs, one, offs_a, 0, alive & units)
    v = load_block(v_ptrs, one, offs_a, 0, alive & units)
    counts = offs_l[None, :, None] < length[:, None, None]
    t, slope = tanh_and_slope(query + load_block(keys_ptrs, offs_l, offs_a, stride_keys_l, counts & units))
    return t, slope, v


@triton.jit
def attention_weights(
    query_ptrs, keys_ptrs, v_ptrs, length, A, stride_keys_l, BLOCK_L: tl.constexpr, BLOCK_A: tl.constexpr
):
    """The weights (BLOCK_B, BLOCK_L): 0 beyond each sample's length (BLOCK_B,)."""
    # In int64, as an item may be far from the one before it.
    offs_l = tl.arange(0, BLOCK_L).to(tl.int64)
    counts = offs_l[None, :] < length[:, None]
    dtype: tl.constexpr = tl.float64 if keys_ptrs.dtype.element_ty == tl.float64 else tl.float32
    scores = tl.zeros(counts.shape, dtype)
    for first in range(0, A, BLOCK_A):
        t, _, v = tanh_block(query_ptrs, keys_ptrs, v_ptrs, length, first, A, stride_keys_l, offs_l, BLOCK_A)
        scores += tl.sum(v * t, axis=2)
    # Of NaN the maximum may take notice or not: it is in the sum in any case.
    most = tl.max(tl.where(counts, scores, float("-inf")), axis=1, keep_dims=True)
    p = tl.where(counts, exp_minus_abs(scores - most), 0.0)
    total = tl.sum(p, axis=1, keep_dims=True)
    return tl.where(counts, divide(p, tl.where(length[:, None] > 0, total, 1.0)), 0.0)


@triton.jit
def attention_context(values_ptrs, weights, length, offs_d, D, stride_values_l):
    """Columns `offs_d` of the context (BLOCK_B, BLOCK_D)."""
    offs_l = tl.arange(0, weights.shape[1]).to(tl.int64)
    mask = (offs_l[None, :, None] < length[:, None, None]) & (offs_d[None, None, :] < D)
    return tl.sum(weights[:, :, None] * load_block(values_ptrs, offs_l, offs_d, stride_values_l, mask), axis=1)


@triton.jit
def attention_dscores(values_ptrs, dcontext_ptrs, weights, dweights, length, D, stride_values_l, BLOCK_D: tl.constexpr):
    """The gradient of the scores (BLOCK_B, BLOCK_L): of the context, and `dweights` (BLOCK_B, BLOCK_L), 0 or more."""
    offs_l = tl.arange(0, weights.shape[1]).to(tl.int64)
    counts = offs_l[None, :] < length[:, None]
    one = tl.zeros((1,), tl.int32)
    a = dweights
    for first in range(0, D, BLOCK_D):
        offs_d = first + tl.arange(0, BLOCK_D)
        columns = offs_d[None, None, :] < D
        dcontext = load_block(dcontext_ptrs, one, offs_d, 0, (length[:, None, None] > 0) & columns)
        values = load_block(values_ptrs, offs_l, offs_d, stride_values_l, counts[:, :, None] & columns)
        a += tl.sum(dcontext * values, axis=2)
    mean = tl.sum(tl.where(counts, weights * a, 0.0), axis=1, keep_dims=True)
    return tl.where(counts, weights * (a - mean), 0.0)


@triton.jit
def attention_units_bwd(query_ptrs, keys_ptrs, v_ptrs, dscores, length, first, A, stride_keys_l, BLOCK_A: tl.constexpr):
    """dkeys (BLOCK_B, BLOCK_L, BLOCK_A), dquery and dv (BLOCK_B, BLOCK_A) of the units from `first`."""
    offs_l = tl.arange(0, dscores.shape[1]).to(tl.int64)
    t, slope, v = tanh_block(query_ptrs, keys_ptrs, v_ptrs, length, first, A, stride_keys_l, offs_l, BLOCK_A)
    counts = offs_l[None, :, None] < length[:, None, None]
    dkeys = tl.where(counts, dscores[:, :, None] * v * slope, 0.0)
    return dkeys, tl.sum(dkeys, axis=1), tl.sum(tl.where(counts, dscores[:, :, None] * t, 0.0), axis=1)


@triton.jit
def load_lengths(lengths_ptr, stride_lengths_b, offs_b, B, L, HAS_LENGTHS: tl.constexpr):
    """How many items count of each sample (BLOCK_B,): 0 for those beyond the batch."""
    length = tl.where(offs_b < B, L, 0)
    if HAS_LENGTHS:
        # No more than there are: under torch.compile nobody has looked at them.
        length = tl.minimum(tl.load(lengths_ptr + offs_b * stride_lengths_b, mask=offs_b < B, other=0), length)
    return length


@triton.jit
def attention_fwd_kernel(
    # outputs (B, D), (B, L), contiguous
    context_ptr, weights_ptr,
    # inputs (B, A), (B, L, A), (B, L, D), (G, A), (B,)
    query_ptr, keys_ptr, values_ptr, v_ptr, lengths_ptr,
    # sizes, samples per v, and strides in elements
    B, L, A, D, samples_per_v, stride_query_b, stride_keys_b, stride_keys_l,
    stride_values_b, stride_values_l, stride_v_g, stride_lengths_b,
    HAS_LENGTHS: tl.constexpr,
    # tile
    BLOCK_B: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    offs_b = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    offs_l = tl.arange(0, BLOCK_L)
    length = load_lengths(lengths_ptr, stride_lengths_b, offs_b, B, L, HAS_LENGTHS)

    weights = attention_weights(
        query_ptr + offs_b * stride_query_b, keys_ptr + offs_b * stride_keys_b,
        v_ptr + offs_b // samples_per_v * stride_v_g, length, A, stride_keys_l, BLOCK_L, BLOCK_A,
    )  # fmt: skip
    batch = offs_b[:, None] < B
    dtype: tl.constexpr = context_ptr.dtype.element_ty
    items = batch & (offs_l[None, :] < L)
    tl.store(weights_ptr + offs_b[:, None] * L + offs_l[None, :], weights.to(dtype), mask=items)

    values_ptrs = values_ptr + offs_b * stride_values_b
    for first in range(0, D, BLOCK_D):
        offs_d = first + tl.arange(0, BLOCK_D)
        context = attention_context(values_ptrs, weights, length, offs_d, D, stride_values_l)
        columns = batch & (offs_d[None, :] < D)
        tl.store(context_ptr + offs_b[:, None] * D + offs_d[None, :], context.to(dtype), mask=columns)


@triton.jit
def attention_bwd_kernel(
    # outputs (B, A), (B, L, A), (B, L, D), (B, A), contiguous
    dquery_ptr, dkeys_ptr, dvalues_ptr, dv_ptr,
    # inputs (B, D), (B, L), (B, A), (B, L, A), (B, L, D), (G, A), (B,)
    dcontext_ptr, dweights_ptr, query_ptr, keys_ptr, values_ptr, v_ptr, lengths_ptr,
    # sizes, samples per v, and strides in elements
    B, L, A, D, samples_per_v, stride_dcontext_b, stride_dweights_b, stride_query_b, stride_keys_b, stride_keys_l,
    stride_values_b, stride_values_l, stride_v_g, stride_lengths_b,
    HAS_LENGTHS: tl.constexpr,
    # tile
    BLOCK_B: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    offs_b = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    offs_l = tl.arange(0, BLOCK_L).to(tl.int64)
    length = load_lengths(lengths_ptr, stride_lengths_b, offs_b, B, L, HAS_LENGTHS)
    counts = offs_l[None, :] < length[:, None]

    query_ptrs = query_ptr + offs_b * stride_query_b
    keys_ptrs = keys_ptr + offs_b * stride_keys_b
    v_ptrs = v_ptr + offs_b // samples_per_v * stride_v_g
    dcontext_ptrs = dcontext_ptr + offs_b * stride_dcontext_b
    weights = attention_weights(query_ptrs, keys_ptrs, v_ptrs, length, A, stride_keys_l, BLOCK_L, BLOCK_A)
    dweights_ptrs = dweights_ptr + offs_b[:, None] * stride_dweights_b + offs_l[None, :]
    dweights = tl.load(dweights_ptrs, mask=counts, other=0.0).to(weights.dtype)
    dscores = attention_dscores(
        values_ptr + offs_b * stride_values_b, dcontext_ptrs, weights, dweights, length, D, stride_values_l, BLOCK_D
    )

    dtype: tl.constexpr = dquery_ptr.dtype.element_ty
    rows = offs_b[:, None, None] * L + offs_l[None, :, None]
    batch, items = offs_b[:, None] < B, (offs_b[:, None, None] < B) & (offs_l[None, :, None] < L)
    for first in range(0, D, BLOCK_D):
        offs_d = first + tl.arange(0, BLOCK_D)[None, None, :]
        dcontext = tl.load(dcontext_ptrs[:, None, None] + offs_d, mask=batch[:, :, None] & (offs_d < D), other=0.0)
        dvalues = tl.where(counts[:, :, None], weights[:, :, None] * dcontext.to(weights.dtype), 0.0)
        tl.store(dvalues_ptr + rows * D + offs_d, dvalues.to(dtype), mask=items & (offs_d < D))
    for first in range(0, A, BLOCK_A):
        dkeys, dquery, dv = attention_units_bwd(
            query_ptrs, keys_ptrs, v_ptrs, dscores, length, first, A, stride_keys_l, BLOCK_A
        )
        offs_a = first + tl.arange(0, BLOCK_A)
        mask = batch & (offs_a[None, :] < A)
        tl.store(
            dkeys_ptr + rows * A + offs_a[None, None, :], dkeys.to(dtype), mask=items & (offs_a[None, None, :] < A)
        )
        tl.store(dquery_ptr + offs_b[:, None] * A + offs_a[None, :], dquery.to(dtype), mask=mask)
        tl.store(dv_ptr + offs_b[:, None] * A + offs_a[None, :], dv.to(dv_ptr.dtype.element_ty), mask=mask)


def blocks(L: int, A: int, D: int, tile: int) -> dict[str, int]:
    """Powers of two: all items, as many units as a tile has room for, and samples for the rest of it."""
    block_l = triton.next_power_of_2(L)
    widest = max(tile // block_l, 16)  # beyond a tile rather than with shorter pieces of a line of memory
    block_a, block_d = (min(triton.next_power_of_2(max(size, 1)), widest) for size in (A, D))
    block_b = max(tile // (block_l * max(block_a, block_d)), 1)
    return {"BLOCK_B": block_b, "BLOCK_L": block_l, "BLOCK_A": block_a, "BLOCK_D": block_d}


def additive_attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, v: torch.Tensor, lengths: Optional
) -> tuple[torch.Tensor, torch.Tensor]:
    """query (B, A), keys (B, L, A), values (B, L, D), v (G, A), of one dtype, any strides, lengths (B,) int64 or int32
    -> context (B, D), weights (B, L), contiguous."""
    B, L, A = keys.shape
    D = values.shape[2]
    context, weights = query.new_empty(B, D), query.new_empty(B, L)
    if B == 0:
        return context, weights
    query, keys, values, v = (with_unit_stride(x) for x in (query, keys, values, v))
    counts = keys if lengths is None else lengths
    launch = config("attention", query.device)
    tile = blocks(L, A, D, launch.pop("TILE"))
    with torch.cuda.device_of(query):
        attention_fwd_kernel[(triton.cdiv(B, tile["BLOCK_B"]),)](
            context, weights, query, keys, values, v, counts,
            B, L, A, D, B // v.shape[0], query.stride(0), *keys.stride()[:2], *values.stride()[:2], v.stride(0),
            counts.stride(0), HAS_LENGTHS=lengths is not None, **tile, **launch,
        )  # fmt: skip
    return context, weights


def additive_attention_bwd(
    dcontext: torch.Tensor,
    dweights: torch.Tensor,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    v: torch.Tensor,
    lengths: Optional,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """dcontext (B, D), dweights (B, L) and the forward's tensors -> dquery, dkeys, dvalues and dv, contiguous."""
    B, L, A = keys.shape
    D, G = values.shape[2], v.shape[0]
    dquery, dkeys, dvalues = (query.new_empty(x.shape) for x in (query, keys, values))
    if B == 0:
        return dquery, dkeys, dvalues, v.new_zeros(v.shape)
    dcontext, dweights, query, keys, values, v = (
        with_unit_stride(x) for x in (dcontext, dweights, query, keys, values, v)
    )
    counts = keys if lengths is None else lengths
    # Of each sample, in the dtype that it was computed in, unless it is the whole sum.
    dtype = v.dtype if G == B or v.dtype == torch.float64 else torch.float32
    dv = v.new_empty(B, A, dtype=dtype)
    launch = config("attention", query.device)
    tile = blocks(L, A, D, launch.pop("TILE"))
    with torch.cuda.device_of(query):
        attention_bwd_kernel[(triton.cdiv(B, tile["BLOCK_B"]),)](
            dquery, dkeys, dvalues, dv, dcontext, dweights, query, keys, values, v, counts,
            B, L, A, D, B // G, dcontext.stride(0), dweights.stride(0), query.stride(0), *keys.stride()[:2],
            *values.stride()[:2], v.stride(0), counts.stride(0), HAS_LENGTHS=lengths is not None, **tile, **launch,
        )  # fmt: skip
    return dquery, dkeys, dvalues, sum_partials(dv.view(G, B // G, A), v.dtype)
