"""The kernels of one step of a rollout, forward; between them stand products with weights (see rollout.py).

    look     canvas += write(patch, window) of the step before;  x = read(image, image - sigmoid(canvas), window)
    cell     gates, summed up from what the products left -> h, c
    settle   prior and posterior -> z and the KL;  query and labels -> the context y

`look` takes one channel of a sample per program, the others a tile of samples. A sample that has taken its last step
keeps its canvas, and all else of it is 0 from then on. Every number is computed by one program, sums run in one order:
deterministic.
"""

import triton
import triton.language as tl

from .attention import attention_context, attention_weights, load_lengths
from .glimpse import read_channel, write_channel
from .latent import sample, unit_kl
from .lstm import cell
from .numerics import sigmoid_and_slope, tanh_and_slope


@triton.jit
def takes_step(steps_ptr, b, t, HAS_STEPS: tl.constexpr):
    """Whether sample b takes step t."""
    taken = True
    if HAS_STEPS:
        taken = tl.load(steps_ptr + b) > t
    return taken


@triton.jit(do_not_specialize=["t"])
def look_kernel(
    # outputs: canvas (B, P), windows (B, 5), x (B, R)
    canvas_ptr, write_window_ptr, read_window_ptr, x_ptr,
    # inputs: canvas (B, P), what the decoder's state made (B, from_dec), image (B, P), steps (B,)
    before_ptr, from_dec_ptr, image_ptr, steps_ptr,
    # step, sizes, and strides of rows in elements
    t, C, H, W, stride_canvas_b, stride_before_b, stride_from_dec_b, stride_window_b, stride_x_b,
    # columns of what the decoder's state made
    WRITE_WINDOW: tl.constexpr, READ_WINDOW: tl.constexpr,
    # what there is to do; N_WRITE and N_READ are 0 for whole images
    WRITE: tl.constexpr, READ: tl.constexpr, N_WRITE: tl.constexpr, N_READ: tl.constexpr, HAS_STEPS: tl.constexpr,
    PER_AXIS: tl.constexpr, EPS: tl.constexpr, HALF: tl.constexpr, PRECISION: tl.constexpr,
    # tiles
    BLOCK_NW: tl.constexpr, BLOCK_NR: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
    BLOCK_P: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = canvas_ptr.dtype.element_ty
    b = tl.program_id(0).to(tl.int64) // C
    c = tl.program_id(0).to(tl.int64) % C
    pixels = H * W
    canvas_ptr += b * stride_canvas_b + c * pixels
    before_ptr += b * stride_before_b + c * pixels
    from_dec_ptr += b * stride_from_dec_b
    five = tl.arange(0, 8)

    if WRITE:
        written = takes_step(steps_ptr, b, t - 1, HAS_STEPS)
        if N_WRITE > 0:
            if written:
                write_channel(
                    canvas_ptr, from_dec_ptr + c * N_WRITE * N_WRITE, before_ptr, from_dec_ptr + WRITE_WINDOW, H, W,
                    N_WRITE, 1, W, 1, N_WRITE, PER_AXIS, EPS, HALF, True, PRECISION, BLOCK_NW, BLOCK_H, BLOCK_W, dtype,
                )  # fmt: skip
            else:
                for first in range(0, pixels, BLOCK_P):
                    p = first + tl.arange(0, BLOCK_P)
                    tl.store(canvas_ptr + p, tl.load(before_ptr + p, mask=p < pixels, other=0.0), mask=p < pixels)
            if c == 0:
                window = tl.load(from_dec_ptr + WRITE_WINDOW + five, mask=five < 5, other=0.0)
                tl.store(write_window_ptr + b * stride_window_b + five, window)
        else:
            for first in range(0, pixels, BLOCK_P):
                p = first + tl.arange(0, BLOCK_P)
                mask = p < pixels
                patch = tl.load(from_dec_ptr + c * pixels + p, mask=mask, other=0.0)
                pixel = tl.load(before_ptr + p, mask=mask, other=0.0) + tl.where(written, patch, 0.0)
                tl.store(canvas_ptr + p, pixel, mask=mask)
        # What was written is read by other threads of this program.
        tl.debug_barrier()
        before_ptr = canvas_ptr

    if READ:
        taken = takes_step(steps_ptr, b, t, HAS_STEPS)
        x_ptr += b * stride_x_b
        image_ptr += (b * C + c) * pixels
        if N_READ > 0:
            patch_ptr = x_ptr + c * N_READ * N_READ
            if taken:
                read_channel(
                    patch_ptr, patch_ptr + C * N_READ * N_READ, image_ptr, before_ptr, from_dec_ptr + READ_WINDOW, H, W,
                    W, 1, W, 1, N_READ, PER_AXIS, EPS, HALF, True, PRECISION, BLOCK_NR, BLOCK_H, BLOCK_W, dtype,
                )  # fmt: skip
            zero_from = tl.where(taken, 2 * C * N_READ * N_READ, 0) if HAS_STEPS else 2 * C * N_READ * N_READ
            if c == 0:
                window = tl.load(from_dec_ptr + READ_WINDOW + five, mask=five < 5, other=0.0)
                tl.store(read_window_ptr + b * stride_window_b + five, window)
        else:
            for first in range(0, pixels, BLOCK_P):
                p = first + tl.arange(0, BLOCK_P)
                mask = p < pixels
                image = tl.load(image_ptr + p, mask=mask, other=0.0)
                mean, _ = sigmoid_and_slope(tl.load(before_ptr + p, mask=mask, other=0.0))
                to = x_ptr + c * pixels + p
                tl.store(to, tl.where(taken, image, 0.0).to(x_ptr.dtype.element_ty), mask=mask)
                error = tl.where(taken, image - mean, 0.0)
                tl.store(to + C * pixels, error.to(x_ptr.dtype.element_ty), mask=mask)
            zero_from = 2 * C * pixels
        # Columns that fill up the row; all of it after the last step. Each channel's program writes zeros, and they do
        # not meet what another has read.
        for first in range(zero_from, stride_x_b, BLOCK_P):
            p = first + tl.arange(0, BLOCK_P)
            tl.store(x_ptr + p, tl.zeros((BLOCK_P,), x_ptr.dtype.element_ty), mask=p < stride_x_b)


@triton.jit
def load_gates(
    product_ptr, from_dec_ptr, from_enc_ptr, b, u, mask, U, stride_product_b, stride_from_dec_b, stride_from_enc_b
):
    """i, f, g and o before their nonlinearities: sums of what the products left; from_enc_ptr may be None."""
    product_ptrs = product_ptr + b * stride_product_b + u
    from_dec_ptrs = from_dec_ptr + b * stride_from_dec_b + u
    gate_i = tl.load(product_ptrs, mask=mask, other=0.0) + tl.load(from_dec_ptrs, mask=mask, other=0.0)
    gate_f = tl.load(product_ptrs + U, mask=mask, other=0.0) + tl.load(from_dec_ptrs + U, mask=mask, other=0.0)
    gate_g = tl.load(product_ptrs + 2 * U, mask=mask, other=0.0) + tl.load(from_dec_ptrs + 2 * U, mask=mask, other=0.0)
    gate_o = tl.load(product_ptrs + 3 * U, mask=mask, other=0.0) + tl.load(from_dec_ptrs + 3 * U, mask=mask, other=0.0)
    if from_enc_ptr is not None:
        from_enc_ptrs = from_enc_ptr + b * stride_from_enc_b + u
        gate_i += tl.load(from_enc_ptrs, mask=mask, other=0.0)
        gate_f += tl.load(from_enc_ptrs + U, mask=mask, other=0.0)
        gate_g += tl.load(from_enc_ptrs + 2 * U, mask=mask, other=0.0)
        gate_o += tl.load(from_enc_ptrs + 3 * U, mask=mask, other=0.0)
    return gate_i, gate_f, gate_g, gate_o


@triton.jit(do_not_specialize=["t"])
def cell_kernel(
    # outputs: h (B, stride_h_b), its columns beyond U a 1 and zeros, and c (B, U)
    h_ptr, c_ptr,
    # inputs: parts of the gates (B, 4U), c before (B, U), steps (B,)
    product_ptr, from_dec_ptr, from_enc_ptr, before_ptr, steps_ptr,
    # step, sizes, and strides of rows in elements
    t, B, U, stride_h_b, stride_c_b, stride_product_b, stride_from_dec_b, stride_from_enc_b, stride_before_b,
    HAS_STEPS: tl.constexpr,
    # tile
    BLOCK_B: tl.constexpr, BLOCK_U: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0).to(tl.int64)
    blocks_u = tl.cdiv(stride_h_b, BLOCK_U)
    b = (pid // blocks_u) * BLOCK_B + tl.arange(0, BLOCK_B)[:, None]
    u = (pid % blocks_u) * BLOCK_U + tl.arange(0, BLOCK_U)[None, :]
    mask = (b < B) & (u < U)

    gate_i, gate_f, gate_g, gate_o = load_gates(
        product_ptr, from_dec_ptr, from_enc_ptr, b, u, mask, U, stride_product_b, stride_from_dec_b, stride_from_enc_b
    )
    before = tl.load(before_ptr + b * stride_before_b + u, mask=mask, other=0.0)
    h, c = cell(gate_i, gate_f, gate_g, gate_o, before)
    h = tl.where(u < U, h, tl.where(u == U, 1.0, 0.0))
    if HAS_STEPS:
        taken = tl.load(steps_ptr + b, mask=b < B, other=0) > t
        h = tl.where(taken, h, 0.0)
        c = tl.where(taken, c, 0.0)
    tl.store(h_ptr + b * stride_h_b + u, h.to(h_ptr.dtype.element_ty), mask=(b < B) & (u < stride_h_b))
    tl.store(c_ptr + b * stride_c_b + u, c, mask=mask)


@triton.jit
def load_gaussian(
    ptrs, mask, Z, is_first, TANH: tl.constexpr, STANDARD_FIRST: tl.constexpr, LOG_VARIANCE: tl.constexpr
):  # fmt: skip
    """mu and log sigma of a prior, and the factors between their gradients and those of what the product left.

    Of a posterior too, whose outputs have no activation and no standard normal step.
    """
    mu = tl.load(ptrs, mask=mask, other=0.0)
    log_sigma = tl.load(ptrs + Z, mask=mask, other=0.0)
    slope_mu = tl.full(mu.shape, 1.0, mu.dtype)
    slope_log_sigma = tl.full(mu.shape, 1.0, mu.dtype)
    if TANH:
        mu, slope_mu = tanh_and_slope(mu)
        log_sigma, slope_log_sigma = tanh_and_slope(log_sigma)
    if STANDARD_FIRST:
        mu = tl.where(is_first, 0.0, mu)
        log_sigma = tl.where(is_first, 0.0, log_sigma)
        slope_mu = tl.where(is_first, 0.0, slope_mu)
        slope_log_sigma = tl.where(is_first, 0.0, slope_log_sigma)
    if LOG_VARIANCE:
        log_sigma *= 0.5
        slope_log_sigma *= 0.5
    return mu, log_sigma, slope_mu, slope_log_sigma


@triton.jit(do_not_specialize=["t"])
def settle_kernel(
    # outputs: z, then y (B, stride_zy_b), and the KL (T, B)
    zy_ptr, kl_ptr,
    # inputs: prior (B, 2Z), posterior (B, 2Z), noise (T, B, Z)
    prior_ptr, posterior_ptr, noise_ptr,
    # inputs: query (B, A), keys (B, L, A), labels (B, L, D), v (A,), lengths (B,), steps (B,)
    query_ptr, keys_ptr, labels_ptr, v_ptr, lengths_ptr, steps_ptr,
    # step, sizes, and strides of rows in elements
    t, B, Z, L, A, D, stride_zy_b, stride_from_dec_b, stride_posterior_b,
    ENCODER: tl.constexpr, LABELS: tl.constexpr, HAS_LENGTHS: tl.constexpr, HAS_STEPS: tl.constexpr,
    TANH: tl.constexpr, STANDARD_FIRST: tl.constexpr, LOG_VARIANCE: tl.constexpr,
    # tiles
    BLOCK_B: tl.constexpr, BLOCK_Z: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = prior_ptr.dtype.element_ty
    multiplied: tl.constexpr = zy_ptr.dtype.element_ty
    b = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    taken = b < B
    if HAS_STEPS:
        taken = taken & (tl.load(steps_ptr + b, mask=taken, other=0) > t)

    kl = tl.zeros((BLOCK_B,), dtype)
    for first in range(0, Z, BLOCK_Z):
        z = first + tl.arange(0, BLOCK_Z)
        # A lane beyond the end holds zeros, of which the KL is 0.
        mask = taken[:, None] & (z < Z)[None, :]
        mu, log_sigma, _, _ = load_gaussian(
            prior_ptr + b[:, None] * stride_from_dec_b + z[None, :], mask, Z, t == 0, TANH, STANDARD_FIRST, LOG_VARIANCE
        )
        if ENCODER:
            posterior = posterior_ptr + b[:, None] * stride_posterior_b + z[None, :]
            mu_q, log_sigma_q, _, _ = load_gaussian(posterior, mask, Z, False, False, False, LOG_VARIANCE)
            kl += tl.sum(unit_kl(mu_q, log_sigma_q, mu, log_sigma), axis=1)
            mu, log_sigma = mu_q, log_sigma_q
        noise = tl.load(noise_ptr + (t * B + b[:, None]) * Z + z[None, :], mask=mask, other=0.0)
        drawn = tl.where(mask, sample(mu, log_sigma, noise), 0.0)
        tl.store(
            zy_ptr + b[:, None] * stride_zy_b + z[None, :],
            drawn.to(multiplied),
            mask=(b < B)[:, None] & (z < Z)[None, :],
        )
    if ENCODER:
        tl.store(kl_ptr + t * B + b, kl, mask=b < B)

    if LABELS:
        length = tl.where(taken, load_lengths(lengths_ptr, 1, b, B, L, HAS_LENGTHS), 0)
        weights = attention_weights(
            query_ptr + b * stride_from_dec_b, keys_ptr + b * L * A, v_ptr + b * 0, length, A, A, BLOCK_L, BLOCK_A
        )
    for first in range(0, stride_zy_b - Z, BLOCK_D):
        d = first + tl.arange(0, BLOCK_D)
        y = tl.zeros((BLOCK_B, BLOCK_D), dtype)
        if LABELS:
            y = attention_context(labels_ptr + b * L * D, weights, length, d, D, D)
        mask = (b < B)[:, None] & (d < stride_zy_b - Z)[None, :]
        tl.store(zy_ptr + b[:, None] * stride_zy_b + Z + d[None, :], y.to(multiplied), mask=mask)
