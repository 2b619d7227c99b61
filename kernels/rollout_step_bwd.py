"""The kernels of one step of a rollout, backward; between them stand products with weights (see rollout_bwd.py).

    look_bwd     x = read(...) of step t, and the write of step t - 1:  dx, dcanvas -> dwindows, dpatch, dcanvas, dimage
    cell_bwd     dh, dc -> dgates, dc
    settle_bwd   dz, dKL, dy -> dposterior, dprior, dnoise, dquery, dkeys, dlabels

`look_bwd` takes a sample per program, the others a tile of samples. Filters and attention weights are made again.
Rows of steps that a sample did not take are left as they are: zeros. Every number is computed by one program, sums run
in one order: deterministic.
"""

import triton
import triton.language as tl

from .attention import attention_dscores, attention_units_bwd, attention_weights, load_lengths
from .glimpse import read_sample_bwd, write_sample_bwd
from .latent import sample_bwd, unit_kl_bwd
from .lstm import cell_bwd, store_gates
from .numerics import sigmoid_and_slope
from .rollout_step import load_gates, load_gaussian, takes_step


@triton.jit(do_not_specialize=["t"])
def look_bwd_kernel(
    # outputs: what flows into the decoder's state before step t (B, from_dec), dcanvas and dimage (B, P), both added to
    dfrom_dec_ptr, dcanvas_ptr, dimage_ptr,
    # inputs: dx (B, R), image, canvas before step t and, of the same step's result, dframe (B, P), windows (B, 5)
    dx_ptr, image_ptr, canvas_ptr, dframe_ptr, read_window_ptr, write_window_ptr,
    # inputs: what the decoder's state made (B, from_dec), whose patch is that of the write, and steps (B,)
    from_dec_ptr, steps_ptr,
    # step, sizes, and strides of rows in elements
    t, C, H, W, stride_dfrom_dec_b, stride_dx_b, stride_canvas_b, stride_window_b, stride_from_dec_b,
    # columns of what the decoder's state made
    WRITE_WINDOW: tl.constexpr, READ_WINDOW: tl.constexpr,
    # what there is to do; N_WRITE and N_READ are 0 for whole images
    WRITE: tl.constexpr, READ: tl.constexpr, N_WRITE: tl.constexpr, N_READ: tl.constexpr, HAS_STEPS: tl.constexpr,
    NEED_DIMAGE: tl.constexpr, PER_AXIS: tl.constexpr, EPS: tl.constexpr, HALF: tl.constexpr, PRECISION: tl.constexpr,
    # tiles
    BLOCK_NW: tl.constexpr, BLOCK_NR: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
    BLOCK_P: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = dcanvas_ptr.dtype.element_ty
    multiplied: tl.constexpr = dfrom_dec_ptr.dtype.element_ty
    b = tl.program_id(0).to(tl.int64)
    pixels = C * H * W
    dcanvas_ptr += b * pixels
    dfrom_dec_ptr += b * stride_dfrom_dec_b
    if NEED_DIMAGE:
        dimage_ptr += b * pixels

    if READ:
        if takes_step(steps_ptr, b, t, HAS_STEPS):
            dx_ptr += b * stride_dx_b
            image_ptr += b * pixels
            canvas_ptr += b * stride_canvas_b
            if N_READ > 0:
                read_sample_bwd(
                    dimage_ptr, dcanvas_ptr, dfrom_dec_ptr + READ_WINDOW, dx_ptr, image_ptr, canvas_ptr,
                    read_window_ptr + b * stride_window_b, C, H, W, H * W, W, 1, H * W, W, 1,
                    N_READ, PER_AXIS, EPS, HALF, True, NEED_DIMAGE, True, PRECISION,
                    BLOCK_NR, BLOCK_H, BLOCK_W, dtype,
                )  # fmt: skip
            else:
                for first in range(0, pixels, BLOCK_P):
                    p = first + tl.arange(0, BLOCK_P)
                    mask = p < pixels
                    derror = tl.load(dx_ptr + pixels + p, mask=mask, other=0.0)
                    _, slope = sigmoid_and_slope(tl.load(canvas_ptr + p, mask=mask, other=0.0))
                    dcanvas = tl.load(dcanvas_ptr + p, mask=mask, other=0.0) - derror * slope
                    tl.store(dcanvas_ptr + p, dcanvas, mask=mask)
                    if NEED_DIMAGE:
                        to = dimage_ptr + p
                        dimage = tl.load(dx_ptr + p, mask=mask, other=0.0) + derror
                        tl.store(to, tl.load(to, mask=mask, other=0.0) + dimage, mask=mask)
        # What was added to is read by other threads of this program.
        tl.debug_barrier()

    if WRITE:
        if dframe_ptr is not None:
            for first in range(0, pixels, BLOCK_P):
                p = first + tl.arange(0, BLOCK_P)
                mask = p < pixels
                dframe = tl.load(dframe_ptr + b * pixels + p, mask=mask, other=0.0).to(dtype)
                tl.store(dcanvas_ptr + p, tl.load(dcanvas_ptr + p, mask=mask, other=0.0) + dframe, mask=mask)
            tl.debug_barrier()
        if takes_step(steps_ptr, b, t - 1, HAS_STEPS):
            if N_WRITE > 0:
                write_sample_bwd(
                    dfrom_dec_ptr, dfrom_dec_ptr + WRITE_WINDOW, dcanvas_ptr, from_dec_ptr + b * stride_from_dec_b,
                    write_window_ptr + b * stride_window_b, C, H, W, H * W, W, 1, N_WRITE * N_WRITE, N_WRITE, 1,
                    N_WRITE, PER_AXIS, EPS, HALF, PRECISION, BLOCK_NW, BLOCK_H, BLOCK_W, dtype,
                )  # fmt: skip
            else:
                for first in range(0, pixels, BLOCK_P):
                    p = first + tl.arange(0, BLOCK_P)
                    dcanvas = tl.load(dcanvas_ptr + p, mask=p < pixels, other=0.0)
                    tl.store(dfrom_dec_ptr + p, dcanvas.to(multiplied), mask=p < pixels)


@triton.jit(do_not_specialize=["t"])
def cell_bwd_kernel(
    # outputs: dgates (B, 4U), once more for another product unless None, and dc (B, U), which is added to
    dgates_ptr, dgates_too_ptr, dc_ptr,
    # inputs: dh (B, U), parts of the gates (B, 4U), c before (B, U), steps (B,)
    dh_ptr, product_ptr, from_dec_ptr, from_enc_ptr, before_ptr, steps_ptr,
    # step, sizes, and strides of rows in elements
    t, B, U, stride_dgates_b, stride_too_b, stride_dh_b,
    stride_product_b, stride_from_dec_b, stride_from_enc_b, stride_before_b,
    HAS_STEPS: tl.constexpr,
    # tile
    BLOCK_B: tl.constexpr, BLOCK_U: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0).to(tl.int64)
    blocks_u = tl.cdiv(U, BLOCK_U)
    b = (pid // blocks_u) * BLOCK_B + tl.arange(0, BLOCK_B)[:, None]
    u = (pid % blocks_u) * BLOCK_U + tl.arange(0, BLOCK_U)[None, :]
    mask = (b < B) & (u < U)
    if HAS_STEPS:
        mask = mask & (tl.load(steps_ptr + b, mask=b < B, other=0) > t)

    gate_i, gate_f, gate_g, gate_o = load_gates(
        product_ptr, from_dec_ptr, from_enc_ptr, b, u, mask, U, stride_product_b, stride_from_dec_b, stride_from_enc_b
    )
    before = tl.load(before_ptr + b * stride_before_b + u, mask=mask, other=0.0)
    dh = tl.load(dh_ptr + b * stride_dh_b + u, mask=mask, other=0.0)
    dc = tl.load(dc_ptr + b * U + u, mask=mask, other=0.0)
    dgate_i, dgate_f, dgate_g, dgate_o, dc = cell_bwd(gate_i, gate_f, gate_g, gate_o, before, dh, dc)
    store_gates(dgates_ptr + b * stride_dgates_b + u, dgate_i, dgate_f, dgate_g, dgate_o, mask, U)
    if dgates_too_ptr is not None:
        store_gates(dgates_too_ptr + b * stride_too_b + u, dgate_i, dgate_f, dgate_g, dgate_o, mask, U)
    tl.store(dc_ptr + b * U + u, dc, mask=mask)


@triton.jit(do_not_specialize=["t"])
def settle_bwd_kernel(
    # outputs: dprior (B, 2Z), dposterior (B, 2Z), the same once more for another product, dnoise (T, B, Z)
    dprior_ptr, dposterior_ptr, dposterior_too_ptr, dnoise_ptr,
    # outputs: dquery (B, A); dkeys (B, L, A), dlabels (B, L, D) and dv (B, A), which are added to
    dquery_ptr, dkeys_ptr, dlabels_ptr, dv_ptr,
    # inputs: dz, then dy (B, stride_dzy_b), dkl (T, B), prior, posterior (B, 2Z), noise (T, B, Z)
    dzy_ptr, dkl_ptr, prior_ptr, posterior_ptr, noise_ptr,
    # inputs: query (B, A), keys (B, L, A), labels (B, L, D), v (A,), lengths (B,), steps (B,)
    query_ptr, keys_ptr, labels_ptr, v_ptr, lengths_ptr, steps_ptr,
    # step, sizes, and strides of rows in elements
    t, B, Z, L, A, D, stride_dfrom_dec_b, stride_dposterior_b, stride_too_b, stride_dzy_b,
    stride_from_dec_b, stride_posterior_b,
    ENCODER: tl.constexpr, LABELS: tl.constexpr, HAS_LENGTHS: tl.constexpr, HAS_STEPS: tl.constexpr,
    TANH: tl.constexpr, STANDARD_FIRST: tl.constexpr, LOG_VARIANCE: tl.constexpr,
    # tiles
    BLOCK_B: tl.constexpr, BLOCK_Z: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    multiplied: tl.constexpr = dprior_ptr.dtype.element_ty
    b = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    taken = b < B
    if HAS_STEPS:
        taken = taken & (tl.load(steps_ptr + b, mask=taken, other=0) > t)

    for first in range(0, Z, BLOCK_Z):
        z = (first + tl.arange(0, BLOCK_Z))[None, :]
        mask = taken[:, None] & (z < Z)
        mu_p, log_sigma_p, slope_mu_p, slope_log_sigma_p = load_gaussian(
            prior_ptr + b[:, None] * stride_from_dec_b + z, mask, Z, t == 0, TANH, STANDARD_FIRST, LOG_VARIANCE
        )
        dz = tl.load(dzy_ptr + b[:, None] * stride_dzy_b + z, mask=mask, other=0.0)
        units = (t * B + b[:, None]) * Z + z
        noise = tl.load(noise_ptr + units, mask=mask, other=0.0)
        if ENCODER:
            mu_q, log_sigma_q, _, slope_log_sigma_q = load_gaussian(
                posterior_ptr + b[:, None] * stride_posterior_b + z, mask, Z, False, False, False, LOG_VARIANCE
            )
            dkl = tl.load(dkl_ptr + t * B + b[:, None], mask=taken[:, None], other=0.0)
            dmu_q, dlog_sigma_q, dmu_p, dlog_sigma_p = unit_kl_bwd(dkl, mu_q, log_sigma_q, mu_p, log_sigma_p)
            of_sample, dnoise = sample_bwd(dz, log_sigma_q, noise)
            dmu_q = (dmu_q + dz).to(multiplied)
            dlog_sigma_q = ((dlog_sigma_q + of_sample) * slope_log_sigma_q).to(multiplied)
            tl.store(dposterior_ptr + b[:, None] * stride_dposterior_b + z, dmu_q, mask=mask)
            tl.store(dposterior_ptr + b[:, None] * stride_dposterior_b + Z + z, dlog_sigma_q, mask=mask)
            tl.store(dposterior_too_ptr + b[:, None] * stride_too_b + z, dmu_q, mask=mask)
            tl.store(dposterior_too_ptr + b[:, None] * stride_too_b + Z + z, dlog_sigma_q, mask=mask)
        else:
            dmu_p = dz
            dlog_sigma_p, dnoise = sample_bwd(dz, log_sigma_p, noise)
        to = dprior_ptr + b[:, None] * stride_dfrom_dec_b + z
        tl.store(to, (dmu_p * slope_mu_p).to(multiplied), mask=mask)
        tl.store(to + Z, (dlog_sigma_p * slope_log_sigma_p).to(multiplied), mask=mask)
        if dnoise_ptr is not None:
            tl.store(dnoise_ptr + units, dnoise, mask=mask)

    if LABELS:
        length = tl.where(taken, load_lengths(lengths_ptr, 1, b, B, L, HAS_LENGTHS), 0)
        query_ptrs = query_ptr + b * stride_from_dec_b
        keys_ptrs = keys_ptr + b * L * A
        v_ptrs = v_ptr + b * 0
        dy_ptrs = dzy_ptr + b * stride_dzy_b + Z
        weights = attention_weights(query_ptrs, keys_ptrs, v_ptrs, length, A, A, BLOCK_L, BLOCK_A)
        nothing = tl.zeros(weights.shape, weights.dtype)
        dscores = attention_dscores(labels_ptr + b * L * D, dy_ptrs, weights, nothing, length, D, D, BLOCK_D)
        item = tl.arange(0, BLOCK_L).to(tl.int64)[None, :, None]
        counts = item < length[:, None, None]
        for first in range(0, D, BLOCK_D):
            d = first + tl.arange(0, BLOCK_D)
            mask = taken[:, None] & (d < D)[None, :]
            dy = tl.load(dy_ptrs[:, None] + d[None, :], mask=mask, other=0.0)
            ptrs = dlabels_ptr + (b[:, None, None] * L + item) * D + d[None, None, :]
            mask = counts & (d < D)[None, None, :]
            so_far = tl.load(ptrs, mask=mask, other=0.0)
            tl.store(ptrs, so_far + weights[:, :, None] * dy[:, None, :], mask=mask)
        for first in range(0, A, BLOCK_A):
            a = first + tl.arange(0, BLOCK_A)
            dkeys, dquery, dv = attention_units_bwd(
                query_ptrs, keys_ptrs, v_ptrs, dscores, length, first, A, A, BLOCK_A
            )
            mask = taken[:, None] & (a < A)[None, :]
            tl.store(dquery_ptr + b[:, None] * stride_dfrom_dec_b + a[None, :], dquery.to(multiplied), mask=mask)
            ptrs = dv_ptr + b[:, None] * A + a[None, :]
            tl.store(ptrs, tl.load(ptrs, mask=mask, other=0.0) + dv, mask=mask)
            ptrs = dkeys_ptr + (b[:, None, None] * L + item) * A + a[None, None, :]
            mask = counts & (a < A)[None, None, :]
            tl.store(ptrs, tl.load(ptrs, mask=mask, other=0.0) + dkeys, mask=mask)
