"""Negative log-likelihoods of an image, in Triton.

    bernoulli: nll = sum max(x, 0) - x t + log(1 + e^-|x|)      dx = dnll (sigmoid(x) - t)        dt = -dnll x
    gaussian:  nll = sum u^2 / 2 + log sigma + log(2 pi) / 2    with u = (t - mean) / sigma
               dmean = -dnll u / sigma = -dt                    dlog_sigma = dnll (1 - u^2)

One program computes a tile of BLOCK_B samples x BLOCK_P elements; a sample longer than a tile comes in partial sums,
which `sums.py` adds up in order. Forward: reads every element once, writes B sums. Backward: reads every element once,
writes a gradient of each.
Every element is computed by one thread, every sum in an order that the length of a sample alone decides: deterministic.
"""

import math

import torch
import triton
import triton.language as tl

from .configs import config
from .numerics import exp_and_minus_one, log1p_exp_minus_abs, sigmoid_and_slope, with_unit_stride
from .sums import partials, rows_and_columns, sum_partials

HALF_LOG_2_PI = tl.constexpr(math.log(2 * math.pi) / 2)


@triton.jit
def bernoulli(x, t):
    """The negative log-likelihood of each element: logits x, targets t."""
    return tl.where(x > 0.0, x, 0.0) - x * t + log1p_exp_minus_abs(x)


@triton.jit
def bernoulli_bwd(dnll, x, t):
    """Gradients of logits and targets of each element."""
    p, _ = sigmoid_and_slope(x)
    return dnll * (p - t), -dnll * x


@triton.jit
def gaussian(mean, log_sigma, t):
    """The negative log-likelihood of each element."""
    inverse_sigma, _ = exp_and_minus_one(-log_sigma)
    u = (t - mean) * inverse_sigma
    return 0.5 * u * u + (log_sigma + HALF_LOG_2_PI)


@triton.jit
def gaussian_bwd(dnll, mean, log_sigma, t):
    """Gradients of mean and log_sigma of each element."""
    inverse_sigma, _ = exp_and_minus_one(-log_sigma)
    u = (t - mean) * inverse_sigma
    return -dnll * u * inverse_sigma, dnll * (1.0 - u * u)


@triton.jit
def tile_of(B, P, BLOCK_B: tl.constexpr, BLOCK_P: tl.constexpr):
    """Samples, elements and chunk of this program, and how many chunks there are."""
    pid = tl.program_id(0).to(tl.int64)
    chunks = tl.maximum(tl.cdiv(P, BLOCK_P), 1)
    offs_b = (pid // chunks) * BLOCK_B + tl.arange(0, BLOCK_B)[:, None]
    offs_p = (pid % chunks) * BLOCK_P + tl.arange(0, BLOCK_P)[None, :]
    return offs_b, offs_p, pid % chunks, chunks


@triton.jit
def load_elements(ptrs, mask):
    # float16 and bfloat16 are computed in float32.
    dtype: tl.constexpr = tl.float64 if ptrs.dtype.element_ty == tl.float64 else tl.float32
    return tl.load(ptrs, mask=mask, other=0.0).to(dtype)


@triton.jit
def store_sums(nll_ptr, terms, offs_b, chunk, chunks, B):
    nll = tl.sum(terms, axis=1, keep_dims=True)
    tl.store(nll_ptr + offs_b * chunks + chunk, nll.to(nll_ptr.dtype.element_ty), mask=offs_b < B)


@triton.jit
def bernoulli_fwd_kernel(
    # output (B, chunks), contiguous
    nll_ptr,
    # inputs (B, P)
    logits_ptr, target_ptr,
    # sizes, and strides of rows in elements
    B, P, stride_logits_b, stride_target_b,
    # tile
    BLOCK_B: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    offs_b, offs_p, chunk, chunks = tile_of(B, P, BLOCK_B, BLOCK_P)
    mask = (offs_b < B) & (offs_p < P)
    x = load_elements(logits_ptr + offs_b * stride_logits_b + offs_p, mask)
    t = load_elements(target_ptr + offs_b * stride_target_b + offs_p, mask)
    store_sums(nll_ptr, tl.where(mask, bernoulli(x, t), 0.0), offs_b, chunk, chunks, B)


@triton.jit
def bernoulli_bwd_kernel(
    # outputs (B, P), contiguous
    dlogits_ptr, dtarget_ptr,
    # inputs (B,), (B, P), (B, P)
    dnll_ptr, logits_ptr, target_ptr,
    # sizes, and strides of rows in elements
    B, P, stride_dnll_b, stride_logits_b, stride_target_b,
    # whether the gradient of target is wanted
    NEED_DTARGET: tl.constexpr,
    # tile
    BLOCK_B: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    offs_b, offs_p, _, _ = tile_of(B, P, BLOCK_B, BLOCK_P)
    mask = (offs_b < B) & (offs_p < P)
    dnll = load_elements(dnll_ptr + offs_b * stride_dnll_b, offs_b < B)
    x = load_elements(logits_ptr + offs_b * stride_logits_b + offs_p, mask)
    t = load_elements(target_ptr + offs_b * stride_target_b + offs_p, mask)
    dx, dt = bernoulli_bwd(dnll, x, t)
    tl.store(dlogits_ptr + offs_b * P + offs_p, dx.to(dlogits_ptr.dtype.element_ty), mask=mask)
    if NEED_DTARGET:
        tl.store(dtarget_ptr + offs_b * P + offs_p, dt.to(dtarget_ptr.dtype.element_ty), mask=mask)


@triton.jit
def gaussian_fwd_kernel(
    # output (B, chunks), contiguous
    nll_ptr,
    # inputs (B, P)
    mean_ptr, log_sigma_ptr, target_ptr,
    # sizes, and strides of rows in elements
    B, P, stride_mean_b, stride_log_sigma_b, stride_target_b,
    # tile
    BLOCK_B: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    offs_b, offs_p, chunk, chunks = tile_of(B, P, BLOCK_B, BLOCK_P)
    mask = (offs_b < B) & (offs_p < P)
    mean = load_elements(mean_ptr + offs_b * stride_mean_b + offs_p, mask)
    log_sigma = load_elements(log_sigma_ptr + offs_b * stride_log_sigma_b + offs_p, mask)
    t = load_elements(target_ptr + offs_b * stride_target_b + offs_p, mask)
    store_sums(nll_ptr, tl.where(mask, gaussian(mean, log_sigma, t), 0.0), offs_b, chunk, chunks, B)


@triton.jit
def gaussian_bwd_kernel(
    # outputs (B, P), contiguous
    dmean_ptr, dlog_sigma_ptr,
    # inputs (B,), (B, P) and so on
    dnll_ptr, mean_ptr, log_sigma_ptr, target_ptr,
    # sizes, and strides of rows in elements
    B, P, stride_dnll_b, stride_mean_b, stride_log_sigma_b, stride_target_b,
    # tile
    BLOCK_B: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    offs_b, offs_p, _, _ = tile_of(B, P, BLOCK_B, BLOCK_P)
    mask = (offs_b < B) & (offs_p < P)
    dnll = load_elements(dnll_ptr + offs_b * stride_dnll_b, offs_b < B)
    mean = load_elements(mean_ptr + offs_b * stride_mean_b + offs_p, mask)
    log_sigma = load_elements(log_sigma_ptr + offs_b * stride_log_sigma_b + offs_p, mask)
    t = load_elements(target_ptr + offs_b * stride_target_b + offs_p, mask)
    dmean, dlog_sigma = gaussian_bwd(dnll, mean, log_sigma, t)
    tl.store(dmean_ptr + offs_b * P + offs_p, dmean.to(dmean_ptr.dtype.element_ty), mask=mask)
    tl.store(dlog_sigma_ptr + offs_b * P + offs_p, dlog_sigma.to(dlog_sigma_ptr.dtype.element_ty), mask=mask)


def _rows(x: torch.Tensor) -> torch.Tensor:
    """Samples of any rank as the rows of a matrix; a copy where the strides allow no view."""
    return with_unit_stride(x.reshape(x.shape[0], math.prod(x.shape[1:])))


def _forward(kernel: triton.JITFunction, *inputs: torch.Tensor) -> torch.Tensor:
    """Launch a forward kernel: tensors (B, ...) -> the likelihood (B,)."""
    like = inputs[0]
    rows = [_rows(x) for x in inputs]
    B, P = rows[0].shape
    launch = config("likelihood", like.device)
    block_b, block_p = rows_and_columns(P, launch.pop("TILE"))
    chunks = max(triton.cdiv(P, block_p), 1)
    nll = partials(like, B, chunks)
    if B > 0:
        with torch.cuda.device_of(like):
            kernel[(triton.cdiv(B, block_b) * chunks,)](
                nll, *rows, B, P, *(x.stride(0) for x in rows), BLOCK_B=block_b, BLOCK_P=block_p, **launch
            )
    return sum_partials(nll.unsqueeze(2), like.dtype).view(B)


def _backward(
    kernel: triton.JITFunction,
    gradients: tuple[torch.Tensor, ...],
    dnll: torch.Tensor,
    *inputs: torch.Tensor,
    **flags: bool,
) -> tuple[torch.Tensor, ...]:
    """Launch a backward kernel, which writes the gradients: dnll (B,), tensors (B, ...)."""
    if inputs[0].numel() == 0:
        return gradients
    rows = [_rows(x) for x in inputs]
    B, P = rows[0].shape
    launch = config("likelihood", dnll.device)
    block_b, block_p = rows_and_columns(P, launch.pop("TILE"))
    with torch.cuda.device_of(dnll):
        kernel[(triton.cdiv(B, block_b) * triton.cdiv(P, block_p),)](
            *gradients, dnll, *rows, B, P, dnll.stride(0), *(x.stride(0) for x in rows),
            **flags, BLOCK_B=block_b, BLOCK_P=block_p, **launch,
        )  # fmt: skip
    return gradients


def bernoulli_nll(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Tensors (B, ...), of one dtype, any strides -> the negative log-likelihood (B,)."""
    return _forward(bernoulli_fwd_kernel, logits, target)


def bernoulli_nll_bwd(
    dnll: torch.Tensor, logits: torch.Tensor, target: torch.Tensor, need_dtarget: bool
) -> tuple[torch.Tensor, ...]:
    """dnll (B,), logits and target (B, ...) -> dlogits and dtarget (B, ...), contiguous, or (0,) if not needed."""
    gradients = logits.new_empty(logits.shape), target.new_empty(target.shape if need_dtarget else 0)
    return _backward(bernoulli_bwd_kernel, gradients, dnll, logits, target, NEED_DTARGET=need_dtarget)


def gaussian_nll(mean: torch.Tensor, log_sigma: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Tensors (B, ...), of one dtype, any strides -> the negative log-likelihood (B,)."""
    return _forward(gaussian_fwd_kernel, mean, log_sigma, target)


def gaussian_nll_bwd(
    dnll: torch.Tensor, mean: torch.Tensor, log_sigma: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """dnll (B,), mean, log_sigma and target (B, ...) -> dmean and dlog_sigma (B, ...), contiguous."""
    gradients = mean.new_empty(mean.shape), log_sigma.new_empty(log_sigma.shape)
    return _backward(gaussian_bwd_kernel, gradients, dnll, mean, log_sigma, target)
