"""The Gaussian filters of a window, in Triton: functions for every kernel with a window, and the op that stores them.

    f[i,a] = e[i,a] / (sum_a e[i,a] + eps),  e[i,a] = exp(-u^2 / 2),  u = (a - mu[i]) / sigma

Backward, with m1 and m2 the sums over a of u f and u^2 f:

    dmu[i] = 1/sigma sum_a df f (u - m1),   dlog_sigma2 = 1/2 sum_{i,a} df f (u^2 - m2)

A tile of filters is (BLOCK_N, BLOCK_A): filters by pixels of one axis. It is made in registers, from five numbers,
wherever it is needed. One program computes both axes of a sample. Forward: reads 5 and writes N (H + W) + 1 elements;
backward: reads as many, writes 5. Sums run in one order: deterministic.
"""

import torch
import triton
import triton.language as tl

from .configs import config
from .numerics import divide, reciprocal, with_unit_stride

# Ranges that keep every value and gradient finite for any finite window; those of fastdraw/reference/filterbank.py.
MAX_CENTRE = tl.constexpr(1e6)
MAX_LOG = tl.constexpr(32.0)
MAX_DEVIATION = tl.constexpr(40.0)  # beyond it e is 0 in float64 too
MAX_HALF = tl.constexpr(65504.0)
SQRT_HALF_LOG2_E = tl.constexpr(0.84932180028801907)
MAX_EXPONENT = tl.constexpr(1155.0)  # of 2^-y; that of MAX_DEVIATION, rounded up
# e is kept 2^32 times too large, so that a filter far off the image, whose e are all below the least float, is as exact
# as any other.
EXPONENT = tl.constexpr(32.0)
SCALE = tl.constexpr(4294967296.0)


@triton.jit
def load_window(window_ptr):
    # gx~, gy~, log sigma^2, log delta~, log gamma. In float64, which costs little for five numbers: a centre that is
    # rounded to float32 would cost a narrow filter most of its digits.
    gx = tl.load(window_ptr).to(tl.float64)
    gy = tl.load(window_ptr + 1).to(tl.float64)
    log_sigma2 = tl.load(window_ptr + 2).to(tl.float64)
    log_delta = tl.load(window_ptr + 3).to(tl.float64)
    log_gamma = tl.load(window_ptr + 4).to(tl.float64)
    return gx, gy, log_sigma2, log_delta, log_gamma


@triton.jit
def clamp(x, bound):
    return tl.where(x < -bound, -bound, tl.where(x > bound, bound, x))  # NaN runs through


@triton.jit
def is_within(x, bound):
    return tl.where((x < -bound) | (x > bound), 0.0, 1.0)


@triton.jit
def window_geometry(gx, gy, log_sigma2, log_delta, log_gamma, H, W, N: tl.constexpr, PER_AXIS: tl.constexpr):
    """Centres and spacings in pixels, sigma and gamma, all float64."""
    # With one filter the spacing is multiplied by 0.
    delta = tl.exp(clamp(log_delta, MAX_LOG)) / (N - 1 if N > 1 else 1)
    delta_y = (H - 1) * delta
    delta_x = (W - 1) * delta
    if not PER_AXIS:
        delta_y = tl.where(H > W, delta_y, delta_x)
        delta_x = delta_y
    centre_y = (H + 1) * 0.5 * (clamp(gy, MAX_CENTRE) + 1.0) - 1.0
    centre_x = (W + 1) * 0.5 * (clamp(gx, MAX_CENTRE) + 1.0) - 1.0
    sigma = tl.exp(0.5 * clamp(log_sigma2, MAX_LOG))
    gamma = tl.exp(clamp(log_gamma, MAX_LOG))
    return centre_y, centre_x, delta_y, delta_x, sigma, gamma


@triton.jit
def gain_of(gamma, HALF: tl.constexpr):
    # float16 is too small for exp of the largest log.
    return tl.where(gamma > MAX_HALF, MAX_HALF, gamma) if HALF else gamma


@triton.jit
def place_filters(centre, delta, N: tl.constexpr, BLOCK_N: tl.constexpr):
    """The centres mu (BLOCK_N,) in float64."""
    return centre + (tl.arange(0, BLOCK_N).to(tl.float64) - (N - 1) * 0.5) * delta


@triton.jit
def exponentials(a, mu, sigma, length, N: tl.constexpr, dtype: tl.constexpr):
    """2^32 exp(-u^2 / 2) of pixels a (BLOCK_A,); 0 beyond the axis and beyond the N filters."""
    # e = 2^-y reaches 2^-158, and y rounded to float32 would spoil its last digits: while it is in float64, it is taken
    # apart into an integer and a rest, y = n - r.
    root = (a[None, :].to(tl.float64) - mu[:, None]) * (SQRT_HALF_LOG2_E / sigma)
    y = root * root
    y = tl.where(y > MAX_EXPONENT, MAX_EXPONENT, y)
    n = tl.floor(y + 0.5)
    e = tl.exp2((n - y).to(dtype)) * tl.exp2((-n + EXPONENT).to(dtype))
    i = tl.arange(0, mu.shape[0])
    return tl.where((a < length)[None, :] & (i < N)[:, None], e, 0.0)


@triton.jit
def filter_totals(
    mu, sigma, length, N: tl.constexpr, EPS: tl.constexpr, BLOCK_A: tl.constexpr, dtype: tl.constexpr
):  # fmt: skip
    """sum_a e + eps (BLOCK_N,)."""
    total = tl.zeros(mu.shape, dtype=dtype)
    for first in range(0, length, BLOCK_A):
        total += tl.sum(exponentials(first + tl.arange(0, BLOCK_A), mu, sigma, length, N, dtype), axis=1)
    return total + EPS * SCALE


@triton.jit
def filters(a, mu, sigma, total, length, N: tl.constexpr):
    """f (BLOCK_N, BLOCK_A). By a division, so that a filter on a single pixel is 1 exactly."""
    e = exponentials(a, mu, sigma, length, N, total.dtype)
    return divide(e, tl.broadcast_to(total[:, None], mu.shape[0], a.shape[0]))


@triton.jit
def filter_moments(
    mu, sigma, length, N: tl.constexpr, EPS: tl.constexpr, BLOCK_A: tl.constexpr, dtype: tl.constexpr
):  # fmt: skip
    """What the gradients of a filter need of the filter itself, each (BLOCK_N,).

    Deviations are taken from the pixel next to the centre, u = v + r with v = (a - nearest) / sigma: of a filter off
    the image all u are large and nearly equal, and u - m1 would have few digits left. Then

        u - m1 = v - mean + r missing,   u^2 - m2 = v^2 - square + 2 r (v - mean) + r^2 missing

    Returns: total, nearest, r, mean = sum v f, square = sum v^2 f and missing = 1 - sum f.
    """
    nearest = tl.floor(mu + 0.5)
    nearest = tl.where(nearest < 0.0, 0.0, tl.where(nearest > length - 1, length - 1.0, nearest))
    r = clamp((nearest - mu) / sigma, MAX_DEVIATION).to(dtype)
    nearest = nearest.to(dtype)
    inverse_sigma = (1.0 / sigma).to(dtype)
    total = tl.zeros(mu.shape, dtype=dtype)
    mean = tl.zeros(mu.shape, dtype=dtype)
    square = tl.zeros(mu.shape, dtype=dtype)
    for first in range(0, length, BLOCK_A):
        a = first + tl.arange(0, BLOCK_A)
        e = exponentials(a, mu, sigma, length, N, dtype)
        v = (a[None, :].to(dtype) - nearest[:, None]) * inverse_sigma
        total += tl.sum(e, axis=1)
        mean += tl.sum(v * e, axis=1)
        square += tl.sum(v * v * e, axis=1)
    inverse_total = reciprocal(total + EPS * SCALE)
    missing = inverse_total * (EPS * SCALE)
    return total + EPS * SCALE, nearest, r, mean * inverse_total, square * inverse_total, missing


@triton.jit
def filter_gradients(df, f, a, sigma, nearest, r, mean, square, missing):
    """What the pixels a add to sum df f (u - m1) and to sum df f (u^2 - m2), each (BLOCK_N,)."""
    v = (a[None, :].to(f.dtype) - nearest[:, None]) * (1.0 / sigma).to(f.dtype)
    centred = v - mean[:, None]
    weight = df * f
    first = weight * (centred + (r * missing)[:, None])
    second = weight * ((v * v - square[:, None]) + (2.0 * r)[:, None] * centred + (r * r * missing)[:, None])
    return tl.sum(first, axis=1), tl.sum(second, axis=1)


@triton.jit
def store_window_gradient(
    dwindow_ptr, first_y, second_y, first_x, second_x, gain,
    gx, gy, log_sigma2, log_delta, log_gamma, delta_y, delta_x, sigma, gamma, H, W,
    N: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """From the sums over pixels of both axes and d log gamma to the five raw numbers."""
    offset = tl.arange(0, first_y.shape[0]).to(tl.float64) - (N - 1) * 0.5
    dmu_y = first_y.to(tl.float64) / sigma
    dmu_x = first_x.to(tl.float64) / sigma
    dgx = tl.sum(dmu_x) * ((W + 1) * 0.5) * is_within(gx, MAX_CENTRE)
    dgy = tl.sum(dmu_y) * ((H + 1) * 0.5) * is_within(gy, MAX_CENTRE)
    dlog_sigma2 = 0.5 * (tl.sum(second_y.to(tl.float64)) + tl.sum(second_x.to(tl.float64)))
    dlog_delta = tl.sum(dmu_y * offset) * delta_y + tl.sum(dmu_x * offset) * delta_x
    free_gain = is_within(log_gamma, MAX_LOG) * (tl.where(gamma > MAX_HALF, 0.0, 1.0) if HALF else 1.0)
    dtype = dwindow_ptr.dtype.element_ty
    tl.store(dwindow_ptr, dgx.to(dtype))
    tl.store(dwindow_ptr + 1, dgy.to(dtype))
    tl.store(dwindow_ptr + 2, (dlog_sigma2 * is_within(log_sigma2, MAX_LOG)).to(dtype))
    tl.store(dwindow_ptr + 3, (dlog_delta * is_within(log_delta, MAX_LOG)).to(dtype))
    tl.store(dwindow_ptr + 4, (gain.to(tl.float64) * free_gain).to(dtype))


@triton.jit
def store_axis(
    f_ptr, centre, delta, sigma, length,
    N: tl.constexpr, EPS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_A: tl.constexpr, dtype: tl.constexpr,
):  # fmt: skip
    i = tl.arange(0, BLOCK_N)[:, None]
    mu = place_filters(centre, delta, N, BLOCK_N)
    total = filter_totals(mu, sigma, length, N, EPS, BLOCK_A, dtype)
    for start in range(0, length, BLOCK_A):
        a = start + tl.arange(0, BLOCK_A)
        f = filters(a, mu, sigma, total, length, N)
        tl.store(f_ptr + i * length + a[None, :], f.to(f_ptr.dtype.element_ty), mask=(i < N) & (a < length)[None, :])


@triton.jit
def gaussian_filterbank_fwd_kernel(
    # outputs (B, N, H), (B, N, W), (B,), contiguous
    fy_ptr, fx_ptr, gamma_ptr,
    # input (B, 5) in rows of unit stride
    window_ptr,
    # sizes, and strides in elements
    H, W, stride_window_b,
    N: tl.constexpr, PER_AXIS: tl.constexpr, EPS: tl.constexpr,
    # tile
    BLOCK_N: tl.constexpr, BLOCK_A: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = tl.float64 if window_ptr.dtype.element_ty == tl.float64 else tl.float32
    b = tl.program_id(0).to(tl.int64)
    gx, gy, log_sigma2, log_delta, log_gamma = load_window(window_ptr + b * stride_window_b)
    centre_y, centre_x, delta_y, delta_x, sigma, gamma = window_geometry(
        gx, gy, log_sigma2, log_delta, log_gamma, H, W, N, PER_AXIS
    )
    store_axis(fy_ptr + b * N * H, centre_y, delta_y, sigma, H, N, EPS, BLOCK_N, BLOCK_A, dtype)
    store_axis(fx_ptr + b * N * W, centre_x, delta_x, sigma, W, N, EPS, BLOCK_N, BLOCK_A, dtype)
    gamma = gain_of(gamma, gamma_ptr.dtype.element_ty == tl.float16)
    tl.store(gamma_ptr + b, gamma.to(gamma_ptr.dtype.element_ty))


def gaussian_filterbank(
    window: torch.Tensor, n: int, height: int, width: int, per_axis: bool, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Launch the forward kernel: window (B, 5) -> fy (B, n, height), fx (B, n, width), gamma (B,)."""
    B = window.shape[0]
    window = with_unit_stride(window)
    fy, fx, gamma = window.new_empty(B, n, height), window.new_empty(B, n, width), window.new_empty(B)
    if B == 0:
        return fy, fx, gamma
    with torch.cuda.device_of(window):
        gaussian_filterbank_fwd_kernel[(B,)](
            fy, fx, gamma, window, height, width, window.stride(0),
            N=n, PER_AXIS=per_axis, EPS=eps, **_launch(window, n),
        )  # fmt: skip
    return fy, fx, gamma


@triton.jit
def axis_gradients(
    df_ptr, stride_n, stride_a, centre, delta, sigma, length,
    N: tl.constexpr, EPS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_A: tl.constexpr, dtype: tl.constexpr,
):  # fmt: skip
    i = tl.arange(0, BLOCK_N)[:, None]
    mu = place_filters(centre, delta, N, BLOCK_N)
    total, nearest, r, mean, square, missing = filter_moments(mu, sigma, length, N, EPS, BLOCK_A, dtype)
    first = tl.zeros(mu.shape, dtype=dtype)
    second = tl.zeros(mu.shape, dtype=dtype)
    for start in range(0, length, BLOCK_A):
        a = start + tl.arange(0, BLOCK_A)
        f = filters(a, mu, sigma, total, length, N)
        mask = (i < N) & (a < length)[None, :]
        df = tl.load(df_ptr + i * stride_n + a[None, :] * stride_a, mask=mask, other=0.0).to(dtype)
        by_first, by_second = filter_gradients(df, f, a, sigma, nearest, r, mean, square, missing)
        first += by_first
        second += by_second
    return first, second


@triton.jit
def gaussian_filterbank_bwd_kernel(
    # output (B, 5), contiguous
    dwindow_ptr,
    # inputs (B, N, H), (B, N, W), (B,), (B, 5), the last in rows of unit stride
    dfy_ptr, dfx_ptr, dgamma_ptr, window_ptr,
    # sizes, and strides in elements
    H, W, stride_y_b, stride_y_n, stride_y_a, stride_x_b, stride_x_n, stride_x_a, stride_dgamma_b, stride_window_b,
    N: tl.constexpr, PER_AXIS: tl.constexpr, EPS: tl.constexpr,
    # tile
    BLOCK_N: tl.constexpr, BLOCK_A: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = tl.float64 if window_ptr.dtype.element_ty == tl.float64 else tl.float32
    half: tl.constexpr = window_ptr.dtype.element_ty == tl.float16
    b = tl.program_id(0).to(tl.int64)
    gx, gy, log_sigma2, log_delta, log_gamma = load_window(window_ptr + b * stride_window_b)
    centre_y, centre_x, delta_y, delta_x, sigma, gamma = window_geometry(
        gx, gy, log_sigma2, log_delta, log_gamma, H, W, N, PER_AXIS
    )
    first_y, second_y = axis_gradients(
        dfy_ptr + b * stride_y_b, stride_y_n, stride_y_a, centre_y, delta_y, sigma, H, N, EPS, BLOCK_N, BLOCK_A, dtype
    )
    first_x, second_x = axis_gradients(
        dfx_ptr + b * stride_x_b, stride_x_n, stride_x_a, centre_x, delta_x, sigma, W, N, EPS, BLOCK_N, BLOCK_A, dtype
    )
    gain = tl.load(dgamma_ptr + b * stride_dgamma_b).to(tl.float64) * gamma
    store_window_gradient(
        dwindow_ptr + b * 5, first_y, second_y, first_x, second_x, gain,
        gx, gy, log_sigma2, log_delta, log_gamma, delta_y, delta_x, sigma, gamma, H, W, N, half,
    )  # fmt: skip


def gaussian_filterbank_bwd(
    dfy: torch.Tensor, dfx: torch.Tensor, dgamma: torch.Tensor, window: torch.Tensor,
    n: int, height: int, width: int, per_axis: bool, eps: float,
) -> torch.Tensor:  # fmt: skip
    """Launch the backward kernel: dfy (B, n, height), dfx (B, n, width), dgamma (B,), window (B, 5) -> dwindow."""
    B = window.shape[0]
    window = with_unit_stride(window)
    dwindow = window.new_empty(B, 5)
    if B == 0:
        return dwindow
    with torch.cuda.device_of(window):
        gaussian_filterbank_bwd_kernel[(B,)](
            dwindow, dfy, dfx, dgamma, window, height, width,
            *dfy.stride(), *dfx.stride(), dgamma.stride(0), window.stride(0),
            N=n, PER_AXIS=per_axis, EPS=eps, **_launch(window, n),
        )  # fmt: skip
    return dwindow


def _launch(window: torch.Tensor, n: int) -> dict[str, int]:
    return {"BLOCK_N": triton.next_power_of_2(n), **config("filterbank", window.device)}
