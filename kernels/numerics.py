"""Elementary functions for the kernels, right to an ulp or two where Triton's own are not.

float16 and bfloat16 are computed in float32: every function takes and returns float32 or float64.
"""

import torch
import triton
import triton.language as tl

# exp(-x) is 0 in float32 and float64 alike beyond this; without the bound an infinite number would give inf - inf.
EXP_RANGE = tl.constexpr(1000.0)
LOG2_E = tl.constexpr(1.4426950408889634)
# log(2) in two parts; the upper one has 9 bits, so that n * LN2_UPPER is exact for every n that EXP_RANGE allows.
LN2_UPPER = tl.constexpr(0.693359375)
LN2_LOWER = tl.constexpr(-2.1219444005469058e-4)


@triton.jit
def reciprocal(x):
    # Triton's own float32 division is off by up to 2 ulp.
    if x.dtype == tl.float32:
        return tl.div_rn(1.0, x)
    else:
        return 1.0 / x


@triton.jit
def divide(x, y):
    if x.dtype == tl.float32:
        return tl.div_rn(x, y)
    else:
        return x / y


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


def with_unit_stride(rows: torch.Tensor) -> torch.Tensor:
    """The tensor itself if each of its rows lies in one piece (rows may be apart, or one row repeated), else a copy."""
    return rows if rows.stride(-1) == 1 else rows.contiguous()


def product_precision(dtype: torch.dtype) -> str:
    """How tl.dot multiplies: TF32 where torch's own switch allows it, and where the inputs have fewer bits anyway."""
    allowed = dtype != torch.float64 and torch.backends.cuda.matmul.allow_tf32
    return "tf32" if dtype == torch.bfloat16 or allowed else "ieee"
