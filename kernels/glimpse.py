"""Gaussian glimpses in Triton: read a patch from an image and from what a canvas lacks of it, write one onto a canvas.

    patch = gamma fy @ image @ fx^T                          canvas += 1/gamma fy^T @ patch @ fx
    error = image - sigmoid(canvas), read by draw_read through the same window

Backward, with g = gamma dpatch, p = patch / gamma, and rows the product of fy with an image:

    read:   dimage = fy^T (g fx),   dfy = (g fx) image^T,    dfx = g^T rows,   dcanvas = -derror slope
    write:  dpatch = rows fx^T / gamma,   dfy = (p fx) dcanvas^T,   dfx = p^T rows

Forward, a program takes one channel of a sample; backward, one sample. It goes through the image in tiles of BLOCK_H x
BLOCK_W, and makes the filters of a tile in registers from five numbers: image and canvas are read once, the result is
written once, and no filter ever. Sums run in one order: deterministic. Of the sizes, only the batch may be large.
"""

import torch
import triton
import triton.language as tl

from .configs import config
from .filterbank import (
    filter_gradients,
    filter_moments,
    filter_totals,
    filters,
    gain_of,
    load_window,
    place_filters,
    store_window_gradient,
    window_geometry,
)
from .numerics import product_precision, sigmoid_and_slope, with_unit_stride


@triton.jit
def load_patch(ptr, stride_h, stride_w, N: tl.constexpr, BLOCK_N: tl.constexpr, dtype: tl.constexpr):
    """(BLOCK_N, BLOCK_N) of one channel."""
    i = tl.arange(0, BLOCK_N)[:, None]
    j = tl.arange(0, BLOCK_N)[None, :]
    return tl.load(ptr + i * stride_h + j * stride_w, mask=(i < N) & (j < N), other=0.0).to(dtype)


@triton.jit
def store_patch(ptr, patch, N: tl.constexpr):
    i = tl.arange(0, patch.shape[0])[:, None]
    j = tl.arange(0, patch.shape[1])[None, :]
    tl.store(ptr + i * N + j, patch.to(ptr.dtype.element_ty), mask=(i < N) & (j < N))


@triton.jit
def read_channel(
    patch_ptr, error_patch_ptr, image_ptr, canvas_ptr, window_ptr, H, W,
    stride_image_h, stride_image_w, stride_canvas_h, stride_canvas_w,
    N: tl.constexpr, PER_AXIS: tl.constexpr, EPS: tl.constexpr, HALF: tl.constexpr, ERROR: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, dtype: tl.constexpr,
):  # fmt: skip
    """One channel of one sample: N x N numbers to patch_ptr, and of the error image to error_patch_ptr."""
    gx, gy, log_sigma2, log_delta, log_gamma = load_window(window_ptr)
    centre_y, centre_x, delta_y, delta_x, sigma, gamma = window_geometry(
        gx, gy, log_sigma2, log_delta, log_gamma, H, W, N, PER_AXIS
    )
    gamma = gain_of(gamma, HALF).to(dtype)
    mu_y = place_filters(centre_y, delta_y, N, BLOCK_N)
    mu_x = place_filters(centre_x, delta_x, N, BLOCK_N)
    total_y = filter_totals(mu_y, sigma, H, N, EPS, BLOCK_H, dtype)
    total_x = filter_totals(mu_x, sigma, W, N, EPS, BLOCK_W, dtype)

    patch = tl.zeros((BLOCK_N, BLOCK_N), dtype=dtype)
    error_patch = tl.zeros((BLOCK_N, BLOCK_N), dtype=dtype)
    for left in range(0, W, BLOCK_W):
        w = left + tl.arange(0, BLOCK_W)
        # Down the image first: the product that is left for the columns is then only N rows high.
        rows = tl.zeros((BLOCK_N, BLOCK_W), dtype=dtype)
        error_rows = tl.zeros((BLOCK_N, BLOCK_W), dtype=dtype)
        for top in range(0, H, BLOCK_H):
            h = top + tl.arange(0, BLOCK_H)
            mask = (h < H)[:, None] & (w < W)[None, :]
            fy = filters(h, mu_y, sigma, total_y, H, N)
            pixels = h[:, None] * stride_image_h + w[None, :] * stride_image_w
            image = tl.load(image_ptr + pixels, mask=mask, other=0.0).to(dtype)
            rows = tl.dot(fy, image, rows, input_precision=PRECISION, out_dtype=dtype)
            if ERROR:
                pixels = h[:, None] * stride_canvas_h + w[None, :] * stride_canvas_w
                mean, _ = sigmoid_and_slope(tl.load(canvas_ptr + pixels, mask=mask, other=0.0).to(dtype))
                error = tl.where(mask, image - mean, 0.0)
                error_rows = tl.dot(fy, error, error_rows, input_precision=PRECISION, out_dtype=dtype)
        fx = tl.trans(filters(w, mu_x, sigma, total_x, W, N))
        patch = tl.dot(rows, fx, patch, input_precision=PRECISION, out_dtype=dtype)
        if ERROR:
            error_patch = tl.dot(error_rows, fx, error_patch, input_precision=PRECISION, out_dtype=dtype)
    store_patch(patch_ptr, patch * gamma, N)
    if ERROR:
        store_patch(error_patch_ptr, error_patch * gamma, N)


@triton.jit
def glimpse_read_fwd_kernel(
    # output (B, parts, C, N, N), contiguous
    patch_ptr,
    # inputs (B, C, H, W), the same for an error image, (B, 5) in rows of unit stride
    image_ptr, canvas_ptr, window_ptr,
    # sizes, and strides in elements
    C, H, W, stride_image_b, stride_image_c, stride_image_h, stride_image_w,
    stride_canvas_b, stride_canvas_c, stride_canvas_h, stride_canvas_w, stride_window_b,
    N: tl.constexpr, PER_AXIS: tl.constexpr, EPS: tl.constexpr, ERROR: tl.constexpr, PRECISION: tl.constexpr,
    # tile
    BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = tl.float64 if image_ptr.dtype.element_ty == tl.float64 else tl.float32
    half: tl.constexpr = patch_ptr.dtype.element_ty == tl.float16
    b = tl.program_id(0).to(tl.int64) // C
    c = tl.program_id(0).to(tl.int64) % C
    parts: tl.constexpr = 2 if ERROR else 1
    patch_ptr += (b * parts * C + c) * N * N
    read_channel(
        patch_ptr, patch_ptr + C * N * N, image_ptr + b * stride_image_b + c * stride_image_c,
        canvas_ptr + b * stride_canvas_b + c * stride_canvas_c, window_ptr + b * stride_window_b, H, W,
        stride_image_h, stride_image_w, stride_canvas_h, stride_canvas_w,
        N, PER_AXIS, EPS, half, ERROR, PRECISION, BLOCK_N, BLOCK_H, BLOCK_W, dtype,
    )  # fmt: skip


def glimpse_read(
    image: torch.Tensor, window: torch.Tensor, n: int, per_axis: bool, eps: float
) -> torch.Tensor:  # fmt: skip
    """Launch the read: image (B, C, H, W), window (B, 5) -> patch (B, C, n, n)."""
    patch = image.new_empty(*image.shape[:2], n, n)
    _read(patch, image, None, window, n, per_axis, eps)
    return patch


def draw_read(
    image: torch.Tensor, canvas: torch.Tensor, window: torch.Tensor, n: int, per_axis: bool, eps: float
) -> torch.Tensor:
    """Launch the read of an image and its error: image, canvas (B, C, H, W), window (B, 5) -> (B, 2 C n n)."""
    glimpse = image.new_empty(image.shape[0], 2 * image.shape[1] * n * n)
    _read(glimpse, image, canvas, window, n, per_axis, eps)
    return glimpse


def _read(patch, image, canvas, window, n, per_axis, eps):
    B, C, H, W = image.shape
    if B == 0:
        return
    window, other = with_unit_stride(window), image if canvas is None else canvas
    with torch.cuda.device_of(image):
        glimpse_read_fwd_kernel[(B * C,)](
            patch, image, other, window, C, H, W, *image.stride(), *other.stride(), window.stride(0),
            N=n, PER_AXIS=per_axis, EPS=eps, ERROR=canvas is not None, **glimpse_launch(image, n),
        )  # fmt: skip


@triton.jit
def read_sample_bwd(
    dimage_ptr, dcanvas_ptr, dwindow_ptr, dpatch_ptr, image_ptr, canvas_ptr, window_ptr, C, H, W,
    stride_image_c, stride_image_h, stride_image_w, stride_canvas_c, stride_canvas_h, stride_canvas_w,
    N: tl.constexpr, PER_AXIS: tl.constexpr, EPS: tl.constexpr, HALF: tl.constexpr, ERROR: tl.constexpr,
    NEED_DIMAGE: tl.constexpr, ADD: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, dtype: tl.constexpr,
):  # fmt: skip
    """All channels of one sample. With ADD the gradients of image and canvas are added to what is there."""
    gx, gy, log_sigma2, log_delta, log_gamma = load_window(window_ptr)
    centre_y, centre_x, delta_y, delta_x, sigma, gamma = window_geometry(
        gx, gy, log_sigma2, log_delta, log_gamma, H, W, N, PER_AXIS
    )
    factor = gain_of(gamma, HALF).to(dtype)
    mu_y = place_filters(centre_y, delta_y, N, BLOCK_N)
    mu_x = place_filters(centre_x, delta_x, N, BLOCK_N)
    total_y, nearest_y, r_y, mean_y, square_y, missing_y = filter_moments(mu_y, sigma, H, N, EPS, BLOCK_H, dtype)
    total_x, nearest_x, r_x, mean_x, square_x, missing_x = filter_moments(mu_x, sigma, W, N, EPS, BLOCK_W, dtype)

    first_y = tl.zeros((BLOCK_N,), dtype=dtype)
    second_y = tl.zeros((BLOCK_N,), dtype=dtype)
    first_x = tl.zeros((BLOCK_N,), dtype=dtype)
    second_x = tl.zeros((BLOCK_N,), dtype=dtype)
    gain = tl.zeros((BLOCK_N,), dtype=dtype)
    for c in range(0, C):
        from_patch = dpatch_ptr + c * N * N
        g = load_patch(from_patch, N, 1, N, BLOCK_N, dtype) * factor
        error_g = g
        if ERROR:
            error_g = load_patch(from_patch + C * N * N, N, 1, N, BLOCK_N, dtype) * factor
        from_image = image_ptr + c * stride_image_c
        from_canvas = canvas_ptr + c * stride_canvas_c
        for left in range(0, W, BLOCK_W):
            w = left + tl.arange(0, BLOCK_W)
            fx = filters(w, mu_x, sigma, total_x, W, N)
            spread = tl.dot(g, fx, input_precision=PRECISION, out_dtype=dtype)
            error_spread = spread
            if ERROR:
                error_spread = tl.dot(error_g, fx, input_precision=PRECISION, out_dtype=dtype)
            rows = tl.zeros((BLOCK_N, BLOCK_W), dtype=dtype)
            error_rows = tl.zeros((BLOCK_N, BLOCK_W), dtype=dtype)
            for top in range(0, H, BLOCK_H):
                h = top + tl.arange(0, BLOCK_H)
                mask = (h < H)[:, None] & (w < W)[None, :]
                fy = filters(h, mu_y, sigma, total_y, H, N)
                pixels = h[:, None] * stride_image_h + w[None, :] * stride_image_w
                image = tl.load(from_image + pixels, mask=mask, other=0.0).to(dtype)
                rows = tl.dot(fy, image, rows, input_precision=PRECISION, out_dtype=dtype)
                dfy = tl.dot(spread, tl.trans(image), input_precision=PRECISION, out_dtype=dtype)
                dpixels = (c * H + h[:, None]) * W + w[None, :]
                if ERROR:
                    pixels = h[:, None] * stride_canvas_h + w[None, :] * stride_canvas_w
                    mean, slope = sigmoid_and_slope(tl.load(from_canvas + pixels, mask=mask, other=0.0).to(dtype))
                    error = tl.where(mask, image - mean, 0.0)
                    error_rows = tl.dot(fy, error, error_rows, input_precision=PRECISION, out_dtype=dtype)
                    dfy = tl.dot(error_spread, tl.trans(error), dfy, input_precision=PRECISION, out_dtype=dtype)
                    derror = tl.dot(tl.trans(fy), error_spread, input_precision=PRECISION, out_dtype=dtype)
                    dcanvas = -derror * slope
                    if ADD:
                        dcanvas += tl.load(dcanvas_ptr + dpixels, mask=mask, other=0.0)
                    tl.store(dcanvas_ptr + dpixels, dcanvas.to(dcanvas_ptr.dtype.element_ty), mask=mask)
                if NEED_DIMAGE:
                    both = spread + error_spread if ERROR else spread
                    dimage = tl.dot(tl.trans(fy), both, input_precision=PRECISION, out_dtype=dtype)
                    if ADD:
                        dimage += tl.load(dimage_ptr + dpixels, mask=mask, other=0.0)
                    tl.store(dimage_ptr + dpixels, dimage.to(dimage_ptr.dtype.element_ty), mask=mask)
                first, second = filter_gradients(dfy, fy, h, sigma, nearest_y, r_y, mean_y, square_y, missing_y)
                first_y += first
                second_y += second
            dfx = tl.dot(tl.trans(g), rows, input_precision=PRECISION, out_dtype=dtype)
            if ERROR:
                dfx = tl.dot(tl.trans(error_g), error_rows, dfx, input_precision=PRECISION, out_dtype=dtype)
            first, second = filter_gradients(dfx, fx, w, sigma, nearest_x, r_x, mean_x, square_x, missing_x)
            first_x += first
            second_x += second
            gain += tl.sum(dfx * fx, axis=1)

    store_window_gradient(
        dwindow_ptr, first_y, second_y, first_x, second_x, tl.sum(gain),
        gx, gy, log_sigma2, log_delta, log_gamma, delta_y, delta_x, sigma, gamma, H, W, N, HALF,
    )  # fmt: skip


@triton.jit
def glimpse_read_bwd_kernel(
    # outputs (B, C, H, W), the same for an error image, (B, 5), contiguous
    dimage_ptr, dcanvas_ptr, dwindow_ptr,
    # inputs (B, parts, C, N, N), contiguous, (B, C, H, W), the same for an error image, (B, 5) in rows of unit stride
    dpatch_ptr, image_ptr, canvas_ptr, window_ptr,
    # sizes, and strides in elements
    C, H, W, stride_image_b, stride_image_c, stride_image_h, stride_image_w,
    stride_canvas_b, stride_canvas_c, stride_canvas_h, stride_canvas_w, stride_window_b,
    N: tl.constexpr, PER_AXIS: tl.constexpr, EPS: tl.constexpr, ERROR: tl.constexpr, NEED_DIMAGE: tl.constexpr,
    PRECISION: tl.constexpr,
    # tile
    BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = tl.float64 if image_ptr.dtype.element_ty == tl.float64 else tl.float32
    half: tl.constexpr = dwindow_ptr.dtype.element_ty == tl.float16
    b = tl.program_id(0).to(tl.int64)
    parts: tl.constexpr = 2 if ERROR else 1
    read_sample_bwd(
        dimage_ptr + b * C * H * W, dcanvas_ptr + b * C * H * W, dwindow_ptr + b * 5,
        dpatch_ptr + b * parts * C * N * N, image_ptr + b * stride_image_b, canvas_ptr + b * stride_canvas_b,
        window_ptr + b * stride_window_b, C, H, W,
        stride_image_c, stride_image_h, stride_image_w, stride_canvas_c, stride_canvas_h, stride_canvas_w,
        N, PER_AXIS, EPS, half, ERROR, NEED_DIMAGE, False, PRECISION, BLOCK_N, BLOCK_H, BLOCK_W, dtype,
    )  # fmt: skip


def glimpse_read_bwd(
    dpatch: torch.Tensor, image: torch.Tensor, window: torch.Tensor, n: int, per_axis: bool, eps: float,
    need_dimage: bool,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Launch the read backward: dpatch (B, C, n, n) and the arguments of glimpse_read -> dimage, dwindow."""
    dimage, _, dwindow = _read_bwd(dpatch, image, None, window, n, per_axis, eps, need_dimage)
    return dimage, dwindow


def draw_read_bwd(
    dglimpse: torch.Tensor, image: torch.Tensor, canvas: torch.Tensor, window: torch.Tensor, n: int, per_axis: bool,
    eps: float, need_dimage: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Launch the read backward: dglimpse (B, 2 C n n), the arguments of draw_read -> dimage, dcanvas, dwindow."""
    return _read_bwd(dglimpse, image, canvas, window, n, per_axis, eps, need_dimage)


def _read_bwd(dpatch, image, canvas, window, n, per_axis, eps, need_dimage):
    B, C, H, W = image.shape
    dimage = image.new_empty(image.shape if need_dimage else 0)
    dcanvas = image.new_empty(image.shape if canvas is not None else 0)
    dwindow = window.new_empty(B, 5)
    if B == 0:
        return dimage, dcanvas, dwindow
    dpatch, window, other = dpatch.contiguous(), with_unit_stride(window), image if canvas is None else canvas
    with torch.cuda.device_of(image):
        glimpse_read_bwd_kernel[(B,)](
            dimage, dcanvas, dwindow, dpatch, image, other, window,
            C, H, W, *image.stride(), *other.stride(), window.stride(0),
            N=n, PER_AXIS=per_axis, EPS=eps, ERROR=canvas is not None, NEED_DIMAGE=need_dimage,
            **glimpse_launch(image, n),
        )  # fmt: skip
    return dimage, dcanvas, dwindow


@triton.jit
def write_channel(
    out_ptr, patch_ptr, canvas_ptr, window_ptr, H, W,
    stride_patch_h, stride_patch_w, stride_canvas_h, stride_canvas_w,
    N: tl.constexpr, PER_AXIS: tl.constexpr, EPS: tl.constexpr, HALF: tl.constexpr, CANVAS: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, dtype: tl.constexpr,
):  # fmt: skip
    """One channel of one sample: H x W numbers to out_ptr."""
    gx, gy, log_sigma2, log_delta, log_gamma = load_window(window_ptr)
    centre_y, centre_x, delta_y, delta_x, sigma, gamma = window_geometry(
        gx, gy, log_sigma2, log_delta, log_gamma, H, W, N, PER_AXIS
    )
    gamma = gain_of(gamma, HALF)
    mu_y = place_filters(centre_y, delta_y, N, BLOCK_N)
    mu_x = place_filters(centre_x, delta_x, N, BLOCK_N)
    total_y = filter_totals(mu_y, sigma, H, N, EPS, BLOCK_H, dtype)
    total_x = filter_totals(mu_x, sigma, W, N, EPS, BLOCK_W, dtype)

    p = load_patch(patch_ptr, stride_patch_h, stride_patch_w, N, BLOCK_N, dtype) * (1.0 / gamma).to(dtype)
    for left in range(0, W, BLOCK_W):
        w = left + tl.arange(0, BLOCK_W)
        spread = tl.dot(p, filters(w, mu_x, sigma, total_x, W, N), input_precision=PRECISION, out_dtype=dtype)
        for top in range(0, H, BLOCK_H):
            h = top + tl.arange(0, BLOCK_H)
            mask = (h < H)[:, None] & (w < W)[None, :]
            fy = tl.trans(filters(h, mu_y, sigma, total_y, H, N))
            # Summed apart from the canvas and added at the end, so that a faint stroke is not rounded at every filter.
            out = tl.dot(fy, spread, input_precision=PRECISION, out_dtype=dtype)
            if CANVAS:
                pixels = h[:, None] * stride_canvas_h + w[None, :] * stride_canvas_w
                out += tl.load(canvas_ptr + pixels, mask=mask, other=0.0).to(dtype)
            pixels = h[:, None] * W + w[None, :]
            tl.store(out_ptr + pixels, out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def glimpse_write_fwd_kernel(
    # output (B, C, H, W), contiguous
    out_ptr,
    # inputs (B, C, N, N), (B, 5) in rows of unit stride, (B, C, H, W)
    patch_ptr, window_ptr, canvas_ptr,
    # sizes, and strides in elements
    C, H, W, stride_patch_b, stride_patch_c, stride_patch_h, stride_patch_w, stride_window_b,
    stride_canvas_b, stride_canvas_c, stride_canvas_h, stride_canvas_w,
    N: tl.constexpr, PER_AXIS: tl.constexpr, EPS: tl.constexpr, CANVAS: tl.constexpr, PRECISION: tl.constexpr,
    # tile
    BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = tl.float64 if patch_ptr.dtype.element_ty == tl.float64 else tl.float32
    half: tl.constexpr = out_ptr.dtype.element_ty == tl.float16
    b = tl.program_id(0).to(tl.int64) // C
    c = tl.program_id(0).to(tl.int64) % C
    write_channel(
        out_ptr + (b * C + c) * H * W, patch_ptr + b * stride_patch_b + c * stride_patch_c,
        canvas_ptr + b * stride_canvas_b + c * stride_canvas_c, window_ptr + b * stride_window_b, H, W,
        stride_patch_h, stride_patch_w, stride_canvas_h, stride_canvas_w,
        N, PER_AXIS, EPS, half, CANVAS, PRECISION, BLOCK_N, BLOCK_H, BLOCK_W, dtype,
    )  # fmt: skip


def glimpse_write(
    patch: torch.Tensor, window: torch.Tensor, canvas: torch.Tensor | None, height: int, width: int, per_axis: bool,
    eps: float,
) -> torch.Tensor:  # fmt: skip
    """Launch the write: patch (B, C, n, n), window (B, 5), canvas (B, C, height, width) or None -> like canvas."""
    B, C, n, _ = patch.shape
    out = patch.new_empty(B, C, height, width)
    if B == 0:
        return out
    window, other = with_unit_stride(window), out if canvas is None else canvas
    with torch.cuda.device_of(patch):
        glimpse_write_fwd_kernel[(B * C,)](
            out, patch, window, other, C, height, width, *patch.stride(), window.stride(0), *other.stride(),
            N=n, PER_AXIS=per_axis, EPS=eps, CANVAS=canvas is not None, **glimpse_launch(patch, n),
        )  # fmt: skip
    return out


@triton.jit
def write_sample_bwd(
    dpatch_ptr, dwindow_ptr, dcanvas_ptr, patch_ptr, window_ptr, C, H, W,
    stride_canvas_c, stride_canvas_h, stride_canvas_w, stride_patch_c, stride_patch_h, stride_patch_w,
    N: tl.constexpr, PER_AXIS: tl.constexpr, EPS: tl.constexpr, HALF: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, dtype: tl.constexpr,
):  # fmt: skip
    """All channels of one sample."""
    gx, gy, log_sigma2, log_delta, log_gamma = load_window(window_ptr)
    centre_y, centre_x, delta_y, delta_x, sigma, gamma = window_geometry(
        gx, gy, log_sigma2, log_delta, log_gamma, H, W, N, PER_AXIS
    )
    factor = (1.0 / gain_of(gamma, HALF)).to(dtype)
    mu_y = place_filters(centre_y, delta_y, N, BLOCK_N)
    mu_x = place_filters(centre_x, delta_x, N, BLOCK_N)
    total_y, nearest_y, r_y, mean_y, square_y, missing_y = filter_moments(mu_y, sigma, H, N, EPS, BLOCK_H, dtype)
    total_x, nearest_x, r_x, mean_x, square_x, missing_x = filter_moments(mu_x, sigma, W, N, EPS, BLOCK_W, dtype)

    first_y = tl.zeros((BLOCK_N,), dtype=dtype)
    second_y = tl.zeros((BLOCK_N,), dtype=dtype)
    first_x = tl.zeros((BLOCK_N,), dtype=dtype)
    second_x = tl.zeros((BLOCK_N,), dtype=dtype)
    gain = tl.zeros((BLOCK_N,), dtype=dtype)
    for c in range(0, C):
        from_patch = patch_ptr + c * stride_patch_c
        from_canvas = dcanvas_ptr + c * stride_canvas_c
        p = load_patch(from_patch, stride_patch_h, stride_patch_w, N, BLOCK_N, dtype) * factor
        dpatch = tl.zeros((BLOCK_N, BLOCK_N), dtype=dtype)
        for left in range(0, W, BLOCK_W):
            w = left + tl.arange(0, BLOCK_W)
            fx = filters(w, mu_x, sigma, total_x, W, N)
            spread = tl.dot(p, fx, input_precision=PRECISION, out_dtype=dtype)
            rows = tl.zeros((BLOCK_N, BLOCK_W), dtype=dtype)
            for top in range(0, H, BLOCK_H):
                h = top + tl.arange(0, BLOCK_H)
                mask = (h < H)[:, None] & (w < W)[None, :]
                fy = filters(h, mu_y, sigma, total_y, H, N)
                pixels = h[:, None] * stride_canvas_h + w[None, :] * stride_canvas_w
                dcanvas = tl.load(from_canvas + pixels, mask=mask, other=0.0).to(dtype)
                rows = tl.dot(fy, dcanvas, rows, input_precision=PRECISION, out_dtype=dtype)
                dfy = tl.dot(spread, tl.trans(dcanvas), input_precision=PRECISION, out_dtype=dtype)
                first, second = filter_gradients(dfy, fy, h, sigma, nearest_y, r_y, mean_y, square_y, missing_y)
                first_y += first
                second_y += second
            dpatch = tl.dot(rows, tl.trans(fx), dpatch, input_precision=PRECISION, out_dtype=dtype)
            dfx = tl.dot(tl.trans(p), rows, input_precision=PRECISION, out_dtype=dtype)
            first, second = filter_gradients(dfx, fx, w, sigma, nearest_x, r_x, mean_x, square_x, missing_x)
            first_x += first
            second_x += second
            gain += tl.sum(dfx * fx, axis=1)
        store_patch(dpatch_ptr + c * N * N, dpatch * factor, N)

    store_window_gradient(
        dwindow_ptr, first_y, second_y, first_x, second_x, -tl.sum(gain),
        gx, gy, log_sigma2, log_delta, log_gamma, delta_y, delta_x, sigma, gamma, H, W, N, HALF,
    )  # fmt: skip


@triton.jit
def glimpse_write_bwd_kernel(
    # outputs (B, C, N, N), (B, 5), contiguous
    dpatch_ptr, dwindow_ptr,
    # inputs (B, C, H, W), (B, C, N, N), (B, 5) in rows of unit stride
    dcanvas_ptr, patch_ptr, window_ptr,
    # sizes, and strides in elements
    C, H, W, stride_canvas_b, stride_canvas_c, stride_canvas_h, stride_canvas_w,
    stride_patch_b, stride_patch_c, stride_patch_h, stride_patch_w, stride_window_b,
    N: tl.constexpr, PER_AXIS: tl.constexpr, EPS: tl.constexpr, PRECISION: tl.constexpr,
    # tile
    BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = tl.float64 if patch_ptr.dtype.element_ty == tl.float64 else tl.float32
    half: tl.constexpr = dwindow_ptr.dtype.element_ty == tl.float16
    b = tl.program_id(0).to(tl.int64)
    write_sample_bwd(
        dpatch_ptr + b * C * N * N, dwindow_ptr + b * 5, dcanvas_ptr + b * stride_canvas_b,
        patch_ptr + b * stride_patch_b, window_ptr + b * stride_window_b, C, H, W,
        stride_canvas_c, stride_canvas_h, stride_canvas_w, stride_patch_c, stride_patch_h, stride_patch_w,
        N, PER_AXIS, EPS, half, PRECISION, BLOCK_N, BLOCK_H, BLOCK_W, dtype,
    )  # fmt: skip


def glimpse_write_bwd(
    dcanvas: torch.Tensor, patch: torch.Tensor, window: torch.Tensor, per_axis: bool, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the write backward: dcanvas (B, C, H, W), patch (B, C, n, n), window (B, 5) -> dpatch, dwindow."""
    B, C, n, _ = patch.shape
    dpatch, dwindow = patch.new_empty(patch.shape), window.new_empty(B, 5)
    if B == 0:
        return dpatch, dwindow
    window = with_unit_stride(window)
    with torch.cuda.device_of(patch):
        glimpse_write_bwd_kernel[(B,)](
            dpatch, dwindow, dcanvas, patch, window, C, *dcanvas.shape[2:], *dcanvas.stride(), *patch.stride(),
            window.stride(0), N=n, PER_AXIS=per_axis, EPS=eps, **glimpse_launch(patch, n),
        )  # fmt: skip
    return dpatch, dwindow


def glimpse_launch(image: torch.Tensor, n: int) -> dict[str, int | str]:
    """Tile, precision and launch options of a kernel with a window of n x n on images of this dtype."""
    launch = config("glimpse", image.device)
    if image.dtype == torch.float64:
        launch["BLOCK_W"] //= 2  # the registers of a thread hold half as many
    # A matrix product of Triton's has at least 16 rows, columns and terms.
    block_n = max(triton.next_power_of_2(n), 16)
    return {"BLOCK_N": block_n, "PRECISION": product_precision(image.dtype), **launch}
