"""The pointwise half of an LSTM cell, in Triton.

    i, f, o = sigmoid(gates_i), sigmoid(gates_f), sigmoid(gates_o)        g = tanh(gates_g)
    c' = f * c + i * g                                                    h' = o * tanh(c')

    do = dh * tanh(c')       dc' = dc_next + dh * o * (1 - tanh(c')^2)
    dgates = [dc' * g * i(1-i),  dc' * c * f(1-f),  dc' * i * (1-g^2),  do * o(1-o)]        dc = dc' * f

One program computes a tile of BLOCK_B samples x BLOCK_U units.
Forward: reads 5 B U elements, writes 2 B U. Backward: reads 7 B U, writes 5 B U.
The backward pass recomputes gates and cell state from the forward pass's inputs: nothing is saved between the two.
Every element is computed by one thread, in an order that does not depend on the launch: deterministic.
"""

import torch
import triton
import triton.language as tl

# One 16-byte load of float32 per thread and tensor: 4 warps x 32 lanes x 4. Not yet measured on a GPU.
TILE = 512
# Fusion is said outright because Triton is about to change its default, and warns until one does.
LAUNCH = {"num_warps": 4, "enable_fp_fusion": True}
# 64 units are two whole 128-byte lines of float32 per row, and leave few lanes idle in the last block (U = 400: 11 %).
MAX_BLOCK_U = 64
# exp(-x) is 0 in float32 and float64 alike beyond this; without the bound an infinite gate would give inf - inf.
EXP_RANGE = tl.constexpr(1000.0)
LOG2_E = tl.constexpr(1.4426950408889634)
# log(2) in two parts; the upper one has 9 bits, so that n * LN2_UPPER is exact for every n that EXP_RANGE allows.
LN2_UPPER = tl.constexpr(0.693359375)
LN2_LOWER = tl.constexpr(-2.1219444005469058e-4)


def block_shape(U: int) -> tuple[int, int]:
    """(BLOCK_B, BLOCK_U), powers of two with product TILE: narrow rows share a program, so that no lane stays idle."""
    block_u = min(triton.next_power_of_2(U), MAX_BLOCK_U)
    return TILE // block_u, block_u


def grid_size(B: int, U: int, block_b: int, block_u: int) -> tuple[int]:
    """Programs along one axis alone: the other axes end at 65535 programs, too few for large B or U."""
    return (triton.cdiv(B, block_b) * triton.cdiv(U, block_u),)


@triton.jit
def reciprocal(x):
    # Triton's own float32 division is off by up to 2 ulp.
    if x.dtype == tl.float32:
        return tl.div_rn(1.0, x)
    else:
        return 1.0 / x


@triton.jit
def exp_minus_abs(x):
    # The hardware's exp2 alone loses |x| / 2 ulp to the rounding of x * log2(e): reduced to |r| <= log(2) / 2 first.
    x = tl.abs(x)
    x = tl.where(x > EXP_RANGE, EXP_RANGE, x)
    n = tl.floor(x * LOG2_E + 0.5)
    r = (n * LN2_UPPER - x) + n * LN2_LOWER
    return tl.exp(r) * tl.exp2(-n)


@triton.jit
def sigmoid_and_slope(x):
    # The slope as e / (1 + e)^2 and not s (1 - s), which has no digits left where s is close to 1.
    e = exp_minus_abs(x)
    r = reciprocal(1.0 + e)
    return tl.where(x < 0.0, e * r, r), e * r * r


@triton.jit
def tanh_and_slope(x):
    # Below 1/2, where 1 - e would cancel: Lambert's continued fraction x / (1 + z / (3 + z / (5 + ... z / 13))) with
    # z = x^2, written as x minus a small correction; cut there, it is right to 2e-16.
    e = exp_minus_abs(2.0 * x)
    small = tl.abs(x) < 0.5
    x_small = tl.where(small, x, 0.0)
    z = x_small * x_small
    num = (27.0 * z + 2772.0) * z + 45045.0
    den = ((28.0 * z + 3150.0) * z + 62370.0) * z + 135135.0
    r = reciprocal(tl.where(small, den, 1.0 + e))
    large = (1.0 - e) * r
    t = tl.where(small, x_small - x_small * (z * num * r), tl.where(x < 0.0, -large, large))
    return t, tl.where(small, 1.0 - t * t, 4.0 * e * r * r)


@triton.jit
def load_cell(gates_ptrs, c_ptrs, mask, U):
    # The pointer moves by U at a time: 3 * U may not fit in 32 bits. float16 and bfloat16 are computed in float32.
    dtype: tl.constexpr = tl.float64 if c_ptrs.dtype.element_ty == tl.float64 else tl.float32
    gate_i = tl.load(gates_ptrs, mask=mask, other=0.0).to(dtype)
    gate_f = tl.load(gates_ptrs + U, mask=mask, other=0.0).to(dtype)
    gate_g = tl.load(gates_ptrs + U + U, mask=mask, other=0.0).to(dtype)
    gate_o = tl.load(gates_ptrs + U + U + U, mask=mask, other=0.0).to(dtype)
    c = tl.load(c_ptrs, mask=mask, other=0.0).to(dtype)
    return gate_i, gate_f, gate_g, gate_o, c


@triton.jit
def lstm_gates_fwd_kernel(
    # outputs (B, U), contiguous
    h_ptr, c_next_ptr,
    # inputs (B, 4U), (B, U)
    gates_ptr, c_ptr,
    # sizes, and strides of rows in elements
    B, U, stride_gates_b, stride_c_b,
    # tile
    BLOCK_B: tl.constexpr, BLOCK_U: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0).to(tl.int64)
    blocks_u = tl.cdiv(U, BLOCK_U)

    offs_b = (pid // blocks_u) * BLOCK_B + tl.arange(0, BLOCK_B)[:, None]
    offs_u = (pid % blocks_u) * BLOCK_U + tl.arange(0, BLOCK_U)[None, :]
    mask = (offs_b < B) & (offs_u < U)

    gate_i, gate_f, gate_g, gate_o, c = load_cell(
        gates_ptr + offs_b * stride_gates_b + offs_u, c_ptr + offs_b * stride_c_b + offs_u, mask, U
    )

    i, _ = sigmoid_and_slope(gate_i)
    f, _ = sigmoid_and_slope(gate_f)
    g, _ = tanh_and_slope(gate_g)
    o, _ = sigmoid_and_slope(gate_o)
    c_next = f * c + i * g
    tanh_c, _ = tanh_and_slope(c_next)

    offs = offs_b * U + offs_u
    tl.store(h_ptr + offs, (o * tanh_c).to(h_ptr.dtype.element_ty), mask=mask)
    tl.store(c_next_ptr + offs, c_next.to(c_next_ptr.dtype.element_ty), mask=mask)


def lstm_gates(gates: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the forward kernel: gates (B, 4U), c (B, U), of one dtype, any strides -> h', c' (B, U), contiguous."""
    B, U = c.shape
    gates, c = with_unit_stride(gates), with_unit_stride(c)
    h, c_next = c.new_empty(B, U), c.new_empty(B, U)
    if c.numel() == 0:
        return h, c_next
    block_b, block_u = block_shape(U)
    with torch.cuda.device_of(c):
        lstm_gates_fwd_kernel[grid_size(B, U, block_b, block_u)](
            h, c_next, gates, c, B, U, gates.stride(0), c.stride(0), BLOCK_B=block_b, BLOCK_U=block_u, **LAUNCH
        )
    return h, c_next


@triton.jit
def lstm_gates_bwd_kernel(
    # outputs (B, 4U), (B, U), contiguous
    dgates_ptr, dc_ptr,
    # inputs (B, U), (B, U), (B, 4U), (B, U)
    dh_ptr, dc_next_ptr, gates_ptr, c_ptr,
    # sizes, and strides of rows in elements
    B, U, stride_dh_b, stride_dc_next_b, stride_gates_b, stride_c_b,
    # tile
    BLOCK_B: tl.constexpr, BLOCK_U: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0).to(tl.int64)
    blocks_u = tl.cdiv(U, BLOCK_U)

    offs_b = (pid // blocks_u) * BLOCK_B + tl.arange(0, BLOCK_B)[:, None]
    offs_u = (pid % blocks_u) * BLOCK_U + tl.arange(0, BLOCK_U)[None, :]
    mask = (offs_b < B) & (offs_u < U)

    gate_i, gate_f, gate_g, gate_o, c = load_cell(
        gates_ptr + offs_b * stride_gates_b + offs_u, c_ptr + offs_b * stride_c_b + offs_u, mask, U
    )
    dh = tl.load(dh_ptr + offs_b * stride_dh_b + offs_u, mask=mask, other=0.0).to(c.dtype)
    dc_next = tl.load(dc_next_ptr + offs_b * stride_dc_next_b + offs_u, mask=mask, other=0.0).to(c.dtype)

    i, slope_i = sigmoid_and_slope(gate_i)
    f, slope_f = sigmoid_and_slope(gate_f)
    g, slope_g = tanh_and_slope(gate_g)
    o, slope_o = sigmoid_and_slope(gate_o)
    tanh_c, slope_c = tanh_and_slope(f * c + i * g)
    dc_next += dh * o * slope_c

    dtype: tl.constexpr = dgates_ptr.dtype.element_ty
    dgates_ptrs = dgates_ptr + offs_b * U * 4 + offs_u
    tl.store(dgates_ptrs, (dc_next * g * slope_i).to(dtype), mask=mask)
    tl.store(dgates_ptrs + U, (dc_next * c * slope_f).to(dtype), mask=mask)
    tl.store(dgates_ptrs + U + U, (dc_next * i * slope_g).to(dtype), mask=mask)
    tl.store(dgates_ptrs + U + U + U, (dh * tanh_c * slope_o).to(dtype), mask=mask)
    tl.store(dc_ptr + offs_b * U + offs_u, (dc_next * f).to(dtype), mask=mask)


def lstm_gates_bwd(
    dh: torch.Tensor, dc_next: torch.Tensor, gates: torch.Tensor, c: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the backward kernel: dh, dc_next, c (B, U), gates (B, 4U) -> dgates (B, 4U), dc (B, U), contiguous."""
    B, U = c.shape
    dh, dc_next, gates, c = (with_unit_stride(tensor) for tensor in (dh, dc_next, gates, c))
    dgates, dc = c.new_empty(B, 4 * U), c.new_empty(B, U)
    if c.numel() == 0:
        return dgates, dc
    block_b, block_u = block_shape(U)
    strides = dh.stride(0), dc_next.stride(0), gates.stride(0), c.stride(0)
    with torch.cuda.device_of(c):
        lstm_gates_bwd_kernel[grid_size(B, U, block_b, block_u)](
            dgates, dc, dh, dc_next, gates, c, B, U, *strides, BLOCK_B=block_b, BLOCK_U=block_u, **LAUNCH
        )
    return dgates, dc


def with_unit_stride(rows: torch.Tensor) -> torch.Tensor:
    """The tensor itself if each of its rows lies in one piece (rows may be apart, or one row repeated), else a copy."""
    return rows if rows.stride(-1) == 1 else rows.contiguous()
