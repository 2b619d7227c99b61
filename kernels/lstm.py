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

from .configs import config
from .numerics import sigmoid_and_slope, tanh_and_slope, with_unit_stride

# 64 units are two whole 128-byte lines of float32 per row, and leave few lanes idle in the last block (U = 400: 11 %).
MAX_BLOCK_U = 64


def block_shape(U: int, tile: int) -> dict[str, int]:
    """Powers of two with product `tile`: narrow rows share a program, so that no lane stays idle."""
    block_u = min(triton.next_power_of_2(U), MAX_BLOCK_U)
    return {"BLOCK_B": tile // block_u, "BLOCK_U": block_u}


def grid_size(B: int, U: int, BLOCK_B: int, BLOCK_U: int) -> tuple[int]:
    """Programs along one axis alone: the other axes end at 65535 programs, too few for large B or U."""
    return (triton.cdiv(B, BLOCK_B) * triton.cdiv(U, BLOCK_U),)


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
    launch = config("lstm_gates", c.device)
    blocks = block_shape(U, launch.pop("TILE"))
    with torch.cuda.device_of(c):
        lstm_gates_fwd_kernel[grid_size(B, U, **blocks)](
            h, c_next, gates, c, B, U, gates.stride(0), c.stride(0), **blocks, **launch
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
    launch = config("lstm_gates", c.device)
    blocks = block_shape(U, launch.pop("TILE"))
    strides = dh.stride(0), dc_next.stride(0), gates.stride(0), c.stride(0)
    with torch.cuda.device_of(c):
        lstm_gates_bwd_kernel[grid_size(B, U, **blocks)](
            dgates, dc, dh, dc_next, gates, c, B, U, *strides, **blocks, **launch
        )
    return dgates, dc
