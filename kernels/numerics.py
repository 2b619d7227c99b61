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
LN2 = tl.constexpr(0.6931471805599453)
SQRT2_MINUS_1 = tl.constexpr(0.4142135623730951)


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
def exp_and_minus_one(x):
    """e^x and e^x - 1 for any x, each with all its digits, subnormal and infinite values included; NaN stays NaN."""
    # Beyond the bounds e^x is 0 or infinite.
    lower: tl.constexpr = -746.0 if x.dtype == tl.float64 else -104.0
    upper: tl.constexpr = 710.0 if x.dtype == tl.float64 else 89.0
    x = tl.where(x < lower, lower, tl.where(x > upper, upper, x))
    n = tl.floor(tl.where(x == x, x, 0.0) * LOG2_E + 0.5)
    r = (x - n * LN2_UPPER) - n * LN2_LOWER
    # q = e^r - 1
    z = r * r
    if x.dtype == tl.float64:
        # r + r c / (2 - c), with c = r - r^2 / 6 + r^4 / 360 - ..., the coefficients those of fdlibm.
        p = (4.13813679705723846039e-08 * z - 1.65339022054652515390e-06) * z + 6.61375632143793436117e-05
        p = (p * z - 2.77777777770155933842e-03) * z + 1.66666666666666019037e-01
        c = r - z * p
        q = r + r * c / (2.0 - c)
    else:
        # r + r^2 P(r): the least maximal relative error at degree 4, 1.4e-8, as on the CPU.
        p = ((0.0013946457765996456 * r + 0.00836658850312233) * r + 0.04166628047823906) * r
        q = r + z * ((p + 0.1666654348373413) * r + 0.5)
    # 2^n in two factors, neither of which can overflow, from their bits: exact, where exp2 may be an approximation.
    bits: tl.constexpr = tl.int64 if x.dtype == tl.float64 else tl.int32
    place: tl.constexpr = 52 if x.dtype == tl.float64 else 23
    bias: tl.constexpr = 1023 if x.dtype == tl.float64 else 127
    whole = n.to(bits)
    half = whole >> 1
    first = ((bias + half) << place).to(x.dtype, bitcast=True)
    second = ((bias + (whole - half)) << place).to(x.dtype, bitcast=True)
    inverse = ((bias - (whole - half)) << place).to(x.dtype, bitcast=True)
    return (first * q + first) * second, (first * q + (first - inverse)) * second


@triton.jit
def log1p_exp_minus_abs(x):
    """log(1 + e^-|x|), the part of log(1 + e^x) that is no straight line."""
    # log(1 + e) = log(2) + log(1 + (e - 1) / 2) if 1 + e is above sqrt(2). Then log(1 + f) = 2 artanh(s) with
    # s = f / (2 + f) = 2 s + s z P(z), z = s^2, |s| < 0.172, the coefficients those of fdlibm.
    e = exp_minus_abs(x)
    large = e > SQRT2_MINUS_1
    s = divide(tl.where(large, e - 1.0, e), tl.where(large, e + 3.0, e + 2.0))
    z = s * s
    p = (1.479819860511658591e-01 * z + 1.531383769920937332e-01) * z + 1.818357216161805012e-01
    p = ((p * z + 2.222219843214978396e-01) * z + 2.857142874366239149e-01) * z + 3.999999999940941908e-01
    p = p * z + 6.666666666666735130e-01
    return large.to(x.dtype) * LN2 + (2.0 * s + s * (z * p))


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
    allowed = dtype != torch.float64 and torch.backends.cuda.matmul.fp32_precision == "tf32"
    return tf32() if dtype == torch.bfloat16 or allowed else "ieee"


def tf32() -> str:
    return "tf32" if torch.version.hip is None else "ieee"  # Triton takes the word on few of AMD's GPUs
