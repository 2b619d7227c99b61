"""An LSTM cell in Triton: its pointwise half alone, and the whole step.

lstm_gates, the pointwise half:

    i, f, o = sigmoid(gates_i), sigmoid(gates_f), sigmoid(gates_o)        g = tanh(gates_g)
    c' = f * c + i * g                                                    h' = o * tanh(c')

    do = dh * tanh(c')       dc' = dc_next + dh * o * (1 - tanh(c')^2)
    dgates = [dc' * g * i(1-i),  dc' * c * f(1-f),  dc' * i * (1-g^2),  do * o(1-o)]        dc = dc' * f

One program computes a tile of BLOCK_B samples x BLOCK_U units.
Forward: reads 5 B U elements, writes 2 B U. Backward: reads 7 B U, writes 5 B U.
The backward pass recomputes gates and cell state from the forward pass's inputs: nothing is saved between the two.
Every element is computed by one thread, in an order that does not depend on the launch: deterministic.

lstm_step:

    gates = input @ w_ih^T + b_ih + h @ w_hh^T + b_hh            h', c' = lstm_gates(gates, c)

    dgates, dc = lstm_gates_bwd(dh', dc', gates, c)
    dinput = dgates @ w_ih     dw_ih = dgates^T @ input     db_ih = db_hh = sum over samples of dgates     (h alike)

One program computes the gates of a tile of BLOCK_B samples x BLOCK_U units as one product of BLOCK_B x 4 BLOCK_U, whose
columns are the rows u, U + u, 2U + u, 3U + u of the weights, side by side; h' and c' are its epilogue.
It reads (BLOCK_B + 4 BLOCK_U)(I + U) elements in steps of BLOCK_K. Only where a backward pass will come are gates
written, before their nonlinearities and in the compute dtype: then lstm_gates_bwd serves, with all digits in the tails.
Its products and sum are torch's, and only those that are wanted.
A sum over K is one accumulator's, in steps that depend on no size but K: deterministic, whatever the batch.
"""

import torch
import triton
import triton.language as tl

from .configs import config
from .numerics import sigmoid_and_slope, tanh_and_slope, tf32, with_unit_stride

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
def cell(gate_i, gate_f, gate_g, gate_o, c):
    i, _ = sigmoid_and_slope(gate_i)
    f, _ = sigmoid_and_slope(gate_f)
    g, _ = tanh_and_slope(gate_g)
    o, _ = sigmoid_and_slope(gate_o)
    c_next = f * c + i * g
    tanh_c, _ = tanh_and_slope(c_next)
    return o * tanh_c, c_next


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
    h_next, c_next = cell(gate_i, gate_f, gate_g, gate_o, c)

    offs = offs_b * U + offs_u
    tl.store(h_ptr + offs, h_next.to(h_ptr.dtype.element_ty), mask=mask)
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
def cell_bwd(gate_i, gate_f, gate_g, gate_o, c, dh, dc_next):
    i, slope_i = sigmoid_and_slope(gate_i)
    f, slope_f = sigmoid_and_slope(gate_f)
    g, slope_g = tanh_and_slope(gate_g)
    o, slope_o = sigmoid_and_slope(gate_o)
    tanh_c, slope_c = tanh_and_slope(f * c + i * g)
    dc_next += dh * o * slope_c
    return dc_next * g * slope_i, dc_next * c * slope_f, dc_next * i * slope_g, dh * tanh_c * slope_o, dc_next * f


@triton.jit
def store_gates(ptrs, i, f, g, o, mask, U):
    dtype: tl.constexpr = ptrs.dtype.element_ty
    tl.store(ptrs, i.to(dtype), mask=mask)
    tl.store(ptrs + U, f.to(dtype), mask=mask)
    tl.store(ptrs + U + U, g.to(dtype), mask=mask)
    tl.store(ptrs + U + U + U, o.to(dtype), mask=mask)


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

    dgate_i, dgate_f, dgate_g, dgate_o, dc = cell_bwd(gate_i, gate_f, gate_g, gate_o, c, dh, dc_next)
    store_gates(dgates_ptr + offs_b * U * 4 + offs_u, dgate_i, dgate_f, dgate_g, dgate_o, mask, U)
    tl.store(dc_ptr + offs_b * U + offs_u, dc.to(dc_ptr.dtype.element_ty), mask=mask)


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


@triton.jit
def add_product(acc, x_ptrs, w_ptrs, offs_k, mask_b, mask_n, K, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr):
    # acc + x @ w^T over K, from pointers to the first BLOCK_K columns of both.
    for k in range(0, K, BLOCK_K):
        inside = offs_k < K - k
        x = tl.load(x_ptrs + k, mask=mask_b & inside, other=0.0)
        w = tl.load(w_ptrs + k, mask=mask_n & inside, other=0.0)
        acc = tl.dot(x, tl.trans(w), acc, input_precision=PRECISION, out_dtype=acc.dtype)
    return acc


@triton.jit
def lstm_step_fwd_kernel(
    # outputs (B, U), (B, U), (B, 4U) or None, contiguous
    h_next_ptr, c_next_ptr, gates_ptr,
    # inputs (B, I), (B, U), (B, U), (4U, I), (4U, U), and (4U,) or None, contiguous
    input_ptr, h_ptr, c_ptr, w_ih_ptr, w_hh_ptr, b_ih_ptr, b_hh_ptr,
    # sizes (width is I), and strides of rows in elements
    B, width, U, stride_input_b, stride_h_b, stride_c_b, stride_w_ih, stride_w_hh,
    # tile, and how float32 is multiplied
    BLOCK_B: tl.constexpr, BLOCK_U: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = tl.float64 if c_ptr.dtype.element_ty == tl.float64 else tl.float32
    pid = tl.program_id(0).to(tl.int64)
    blocks_u = tl.cdiv(U, BLOCK_U)
    first_b = (pid // blocks_u) * BLOCK_B
    first_u = (pid % blocks_u) * BLOCK_U

    offs_b = first_b + tl.arange(0, BLOCK_B)[:, None]
    offs_k = tl.arange(0, BLOCK_K)[None, :]
    # Column n of the product is gate n % 4 of unit n // 4, so that two splits in halves part the gates.
    n = tl.arange(0, 4 * BLOCK_U)
    unit = first_u + n // 4
    row = (n % 4).to(tl.int64) * U + unit
    mask_b, mask_n = offs_b < B, unit < U

    acc = tl.zeros((BLOCK_B, 4 * BLOCK_U), dtype)
    if b_ih_ptr is not None:
        acc += tl.load(b_ih_ptr + row, mask=mask_n, other=0.0).to(dtype)[None, :]
    if b_hh_ptr is not None:
        acc += tl.load(b_hh_ptr + row, mask=mask_n, other=0.0).to(dtype)[None, :]
    row, mask_w = row[:, None], mask_n[:, None]
    acc = add_product(
        acc, input_ptr + offs_b * stride_input_b + offs_k, w_ih_ptr + row * stride_w_ih + offs_k,
        offs_k, mask_b, mask_w, width, BLOCK_K, PRECISION,
    )  # fmt: skip
    acc = add_product(
        acc, h_ptr + offs_b * stride_h_b + offs_k, w_hh_ptr + row * stride_w_hh + offs_k,
        offs_k, mask_b, mask_w, U, BLOCK_K, PRECISION,
    )  # fmt: skip

    offs_u = first_u + tl.arange(0, BLOCK_U)[None, :]
    mask = mask_b & (offs_u < U)
    i_and_g, f_and_o = tl.split(acc.reshape(BLOCK_B, BLOCK_U, 2, 2))
    gate_i, gate_g = tl.split(i_and_g)
    gate_f, gate_o = tl.split(f_and_o)
    if gates_ptr is not None:
        gates_ptrs = gates_ptr + offs_b * U * 4 + offs_u
        tl.store(gates_ptrs, gate_i, mask=mask)
        tl.store(gates_ptrs + U, gate_f, mask=mask)
        tl.store(gates_ptrs + U + U, gate_g, mask=mask)
        tl.store(gates_ptrs + U + U + U, gate_o, mask=mask)

    c = tl.load(c_ptr + offs_b * stride_c_b + offs_u, mask=mask, other=0.0).to(dtype)
    h_next, c_next = cell(gate_i, gate_f, gate_g, gate_o, c)

    offs = offs_b * U + offs_u
    tl.store(h_next_ptr + offs, h_next.to(h_next_ptr.dtype.element_ty), mask=mask)
    tl.store(c_next_ptr + offs, c_next.to(c_next_ptr.dtype.element_ty), mask=mask)


def lstm_step(
    input: torch.Tensor,
    h: torch.Tensor,
    c: torch.Tensor,
    w_ih: torch.Tensor,
    w_hh: torch.Tensor,
    b_ih: torch.Tensor | None,
    b_hh: torch.Tensor | None,
    keep_gates: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Launch the forward kernel: tensors of one dtype, any strides -> h', c' (B, U) and gates (B, 4U), or (0, 4U)."""
    B, U = c.shape
    input, h, c, w_ih, w_hh = (with_unit_stride(tensor) for tensor in (input, h, c, w_ih, w_hh))
    b_ih, b_hh = (None if bias is None else bias.contiguous() for bias in (b_ih, b_hh))
    h_next, c_next = c.new_empty(B, U), c.new_empty(B, U)
    compute = torch.float64 if c.dtype == torch.float64 else torch.float32
    gates = c.new_empty(B if keep_gates else 0, 4 * U, dtype=compute)
    if c.numel() == 0:
        return h_next, c_next, gates
    launch = config("lstm_step", c.device)
    blocks = {"BLOCK_B": launch.pop("BLOCK_B"), "BLOCK_U": launch.pop("BLOCK_U")}
    block_k = launch.pop("BYTES_K") // c.element_size()
    precision = tf32() if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"
    strides = (tensor.stride(0) for tensor in (input, h, c, w_ih, w_hh))
    with torch.cuda.device_of(c):
        lstm_step_fwd_kernel[grid_size(B, U, **blocks)](
            h_next, c_next, gates if keep_gates else None, input, h, c, w_ih, w_hh, b_ih, b_hh,
            B, input.shape[1], U, *strides, **blocks, BLOCK_K=block_k, PRECISION=precision, **launch,
        )  # fmt: skip
    return h_next, c_next, gates


def lstm_step_bwd(
    dh_next: torch.Tensor,
    dc_next: torch.Tensor,
    gates: torch.Tensor,
    input: torch.Tensor,
    h: torch.Tensor,
    c: torch.Tensor,
    w_ih: torch.Tensor,
    w_hh: torch.Tensor,
    b_ih: torch.Tensor | None,
    b_hh: torch.Tensor | None,
    need_dinput: bool,
    need_dh: bool,
    need_dw_ih: bool,
    need_dw_hh: bool,
    need_dbias: bool,
) -> tuple[torch.Tensor, ...]:
    """dinput, dh, dc, dw_ih, dw_hh and the gradient of either bias; empty (0,) where it is not needed."""
    dgates, dc = lstm_gates_bwd(dh_next, dc_next, gates, c)
    return (
        product(dgates, w_ih) if need_dinput else c.new_empty(0),
        product(dgates, w_hh) if need_dh else c.new_empty(0),
        dc,
        product(dgates.t(), input) if need_dw_ih else c.new_empty(0),
        product(dgates.t(), h) if need_dw_hh else c.new_empty(0),
        dgates.sum(0, dtype=dgates.dtype) if need_dbias else c.new_empty(0),
    )


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """torch.mm, into a given tensor, which autocast leaves alone."""
    return torch.mm(a, b, out=a.new_empty(a.shape[0], b.shape[1]))
