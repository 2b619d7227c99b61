"""The latent variable of a variational autoencoder, in Triton: its KL divergence, and a sample of it.

    u = (mu_q - mu_p) / sigma_p        r = 2 (log sigma_q - log sigma_p)        z = mu_q + sigma_q noise
    kl = 1/2 sum [u^2 + (e^r - 1) - r]

    dmu_q  = dkl u / sigma_p + dz                    dlog_sigma_q = dkl (e^r - 1) + dz sigma_q noise
    dmu_p  = -dkl u / sigma_p                        dlog_sigma_p = -dkl (u^2 + (e^r - 1))        dnoise = dz sigma_q

Without a prior mu_p = log sigma_p = 0. Both ops are one kernel, with or without a sample.

One program computes a tile of BLOCK_B samples x BLOCK_Z units; the KL of a sample longer than a tile comes in partial
sums, which `sums.py` adds up in order. Forward: reads 2 to 5 times B Z elements, writes z and B sums. Backward: reads
the same and dz, writes a gradient of each; it recomputes all it needs from the inputs.
Every element is computed by one thread, every sum in an order that the length of a sample alone decides: deterministic.
"""

import torch
import triton
import triton.language as tl

from .configs import config
from .numerics import exp_and_minus_one, with_unit_stride
from .sums import partials, rows_and_columns, sum_partials

Optional = torch.Tensor | None


@triton.jit
def divergence(mu_q, log_sigma_q, mu_p, log_sigma_p):
    """u, 1 / sigma_p, e^r - 1 and r of each unit; mu_p and log_sigma_p are None for a standard normal prior."""
    if mu_p is None:
        log_ratio = 2.0 * log_sigma_q
        u, inverse_sigma_p = mu_q, 1.0
    else:
        log_ratio = 2.0 * (log_sigma_q - log_sigma_p)
        inverse_sigma_p, _ = exp_and_minus_one(-log_sigma_p)
        u = (mu_q - mu_p) * inverse_sigma_p
    _, ratio_minus_one = exp_and_minus_one(log_ratio)
    return u, inverse_sigma_p, ratio_minus_one, log_ratio


@triton.jit
def unit_kl(mu_q, log_sigma_q, mu_p, log_sigma_p):
    """The KL of each unit."""
    u, _, ratio_minus_one, log_ratio = divergence(mu_q, log_sigma_q, mu_p, log_sigma_p)
    return 0.5 * (u * u + (ratio_minus_one - log_ratio))


@triton.jit
def unit_kl_bwd(dkl, mu_q, log_sigma_q, mu_p, log_sigma_p):
    """Gradients of mu_q, log_sigma_q, mu_p and log_sigma_p of each unit."""
    u, inverse_sigma_p, ratio_minus_one, _ = divergence(mu_q, log_sigma_q, mu_p, log_sigma_p)
    dmu_q = dkl * u * inverse_sigma_p
    return dmu_q, dkl * ratio_minus_one, -dmu_q, -dkl * (u * u + ratio_minus_one)


@triton.jit
def sample(mu, log_sigma, noise):
    """z of each unit."""
    sigma, _ = exp_and_minus_one(log_sigma)
    return mu + sigma * noise


@triton.jit
def sample_bwd(dz, log_sigma, noise):
    """What a sample adds to the gradient of log_sigma, and the gradient of noise; to that of mu it adds dz."""
    sigma, _ = exp_and_minus_one(log_sigma)
    dnoise = dz * sigma
    return dnoise * noise, dnoise


@triton.jit
def load_units(ptr, stride_b, offs_b, offs_z, mask):
    # float16 and bfloat16 are computed in float32.
    dtype: tl.constexpr = tl.float64 if ptr.dtype.element_ty == tl.float64 else tl.float32
    return tl.load(ptr + offs_b * stride_b + offs_z, mask=mask, other=0.0).to(dtype)


@triton.jit
def latent_fwd_kernel(
    # outputs (B, Z), (B, chunks), contiguous
    z_ptr, kl_ptr,
    # inputs (B, Z)
    mu_q_ptr, log_sigma_q_ptr, noise_ptr, mu_p_ptr, log_sigma_p_ptr,
    # sizes, and strides of rows in elements
    B, Z, stride_mu_q_b, stride_log_sigma_q_b, stride_noise_b, stride_mu_p_b, stride_log_sigma_p_b,
    # whether there is a noise to sample with, and a prior
    SAMPLE: tl.constexpr, PRIOR: tl.constexpr,
    # tile
    BLOCK_B: tl.constexpr, BLOCK_Z: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0).to(tl.int64)
    chunks = tl.maximum(tl.cdiv(Z, BLOCK_Z), 1)
    chunk = pid % chunks

    offs_b = (pid // chunks) * BLOCK_B + tl.arange(0, BLOCK_B)[:, None]
    offs_z = chunk * BLOCK_Z + tl.arange(0, BLOCK_Z)[None, :]
    mask = (offs_b < B) & (offs_z < Z)

    mu_q = load_units(mu_q_ptr, stride_mu_q_b, offs_b, offs_z, mask)
    log_sigma_q = load_units(log_sigma_q_ptr, stride_log_sigma_q_b, offs_b, offs_z, mask)
    mu_p, log_sigma_p = None, None
    if PRIOR:
        mu_p = load_units(mu_p_ptr, stride_mu_p_b, offs_b, offs_z, mask)
        log_sigma_p = load_units(log_sigma_p_ptr, stride_log_sigma_p_b, offs_b, offs_z, mask)

    # A lane beyond the end holds zeros, of which the divergence is 0.
    kl = tl.sum(unit_kl(mu_q, log_sigma_q, mu_p, log_sigma_p), axis=1, keep_dims=True)
    tl.store(kl_ptr + offs_b * chunks + chunk, kl.to(kl_ptr.dtype.element_ty), mask=offs_b < B)
    if SAMPLE:
        z = sample(mu_q, log_sigma_q, load_units(noise_ptr, stride_noise_b, offs_b, offs_z, mask))
        tl.store(z_ptr + offs_b * Z + offs_z, z.to(z_ptr.dtype.element_ty), mask=mask)


@triton.jit
def latent_bwd_kernel(
    # outputs (B, Z), contiguous
    dmu_q_ptr, dlog_sigma_q_ptr, dnoise_ptr, dmu_p_ptr, dlog_sigma_p_ptr,
    # inputs (B, Z), (B,), (B, Z) and so on
    dz_ptr, dkl_ptr, mu_q_ptr, log_sigma_q_ptr, noise_ptr, mu_p_ptr, log_sigma_p_ptr,
    # sizes, and strides of rows in elements
    B, Z, stride_dz_b, stride_dkl_b,
    stride_mu_q_b, stride_log_sigma_q_b, stride_noise_b, stride_mu_p_b, stride_log_sigma_p_b,
    # whether there was a noise to sample with, whether its gradient is wanted, and whether there was a prior
    SAMPLE: tl.constexpr, NEED_DNOISE: tl.constexpr, PRIOR: tl.constexpr,
    # tile
    BLOCK_B: tl.constexpr, BLOCK_Z: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0).to(tl.int64)
    chunks = tl.cdiv(Z, BLOCK_Z)

    offs_b = (pid // chunks) * BLOCK_B + tl.arange(0, BLOCK_B)[:, None]
    offs_z = (pid % chunks) * BLOCK_Z + tl.arange(0, BLOCK_Z)[None, :]
    mask = (offs_b < B) & (offs_z < Z)

    mu_q = load_units(mu_q_ptr, stride_mu_q_b, offs_b, offs_z, mask)
    log_sigma_q = load_units(log_sigma_q_ptr, stride_log_sigma_q_b, offs_b, offs_z, mask)
    mu_p, log_sigma_p = None, None
    if PRIOR:
        mu_p = load_units(mu_p_ptr, stride_mu_p_b, offs_b, offs_z, mask)
        log_sigma_p = load_units(log_sigma_p_ptr, stride_log_sigma_p_b, offs_b, offs_z, mask)
    dkl = tl.load(dkl_ptr + offs_b * stride_dkl_b, mask=offs_b < B, other=0.0).to(mu_q.dtype)

    dmu_q, dlog_sigma_q, dmu_p, dlog_sigma_p = unit_kl_bwd(dkl, mu_q, log_sigma_q, mu_p, log_sigma_p)
    dtype: tl.constexpr = dmu_q_ptr.dtype.element_ty
    offs = offs_b * Z + offs_z
    if SAMPLE:
        dz = load_units(dz_ptr, stride_dz_b, offs_b, offs_z, mask)
        noise = load_units(noise_ptr, stride_noise_b, offs_b, offs_z, mask)
        dscaled, dnoise = sample_bwd(dz, log_sigma_q, noise)
        dmu_q += dz
        dlog_sigma_q += dscaled
        if NEED_DNOISE:
            tl.store(dnoise_ptr + offs, dnoise.to(dtype), mask=mask)
    tl.store(dmu_q_ptr + offs, dmu_q.to(dtype), mask=mask)
    tl.store(dlog_sigma_q_ptr + offs, dlog_sigma_q.to(dtype), mask=mask)
    if PRIOR:
        tl.store(dmu_p_ptr + offs, dmu_p.to(dtype), mask=mask)
        tl.store(dlog_sigma_p_ptr + offs, dlog_sigma_p.to(dtype), mask=mask)


def _forward(
    mu_q: torch.Tensor, log_sigma_q: torch.Tensor, noise: Optional, mu_p: Optional, log_sigma_p: Optional
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the forward kernel -> z (B, Z), or no elements where there is no noise, and the KL (B,)."""
    B, Z = mu_q.shape
    launch = config("latent", mu_q.device)
    block_b, block_z = rows_and_columns(Z, launch.pop("TILE"))
    chunks = max(triton.cdiv(Z, block_z), 1)
    kl = partials(mu_q, B, chunks)
    z = mu_q.new_empty(0 if noise is None else (B, Z))
    if B > 0:
        # A kernel does not touch what its flags leave out: any tensor may stand there.
        inputs = [with_unit_stride(mu_q if x is None else x) for x in (mu_q, log_sigma_q, noise, mu_p, log_sigma_p)]
        with torch.cuda.device_of(mu_q):
            latent_fwd_kernel[(triton.cdiv(B, block_b) * chunks,)](
                z, kl, *inputs, B, Z, *(x.stride(0) for x in inputs),
                SAMPLE=noise is not None, PRIOR=mu_p is not None, BLOCK_B=block_b, BLOCK_Z=block_z, **launch,
            )  # fmt: skip
    return z, sum_partials(kl.unsqueeze(2), mu_q.dtype).view(B)


def _backward(
    dz: Optional,
    dkl: torch.Tensor,
    mu_q: torch.Tensor,
    log_sigma_q: torch.Tensor,
    noise: Optional,
    mu_p: Optional,
    log_sigma_p: Optional,
    need_dnoise: bool,
) -> tuple[torch.Tensor, ...]:
    """Launch the backward kernel -> gradients of the five tensors, without elements where there is none."""
    B, Z = mu_q.shape
    prior = mu_p is not None
    wanted = (True, True, need_dnoise, prior, prior)
    gradients = tuple(mu_q.new_empty((B, Z) if want else 0) for want in wanted)
    if mu_q.numel() == 0:
        return gradients
    launch = config("latent", mu_q.device)
    block_b, block_z = rows_and_columns(Z, launch.pop("TILE"))
    dz = with_unit_stride(mu_q if dz is None else dz)
    inputs = [with_unit_stride(mu_q if x is None else x) for x in (mu_q, log_sigma_q, noise, mu_p, log_sigma_p)]
    with torch.cuda.device_of(mu_q):
        latent_bwd_kernel[(triton.cdiv(B, block_b) * triton.cdiv(Z, block_z),)](
            *gradients, dz, dkl, *inputs, B, Z, dz.stride(0), dkl.stride(0), *(x.stride(0) for x in inputs),
            SAMPLE=noise is not None, NEED_DNOISE=need_dnoise, PRIOR=prior, BLOCK_B=block_b, BLOCK_Z=block_z, **launch,
        )  # fmt: skip
    return gradients


def gaussian_kl(mu_q: torch.Tensor, log_sigma_q: torch.Tensor, mu_p: Optional, log_sigma_p: Optional) -> torch.Tensor:
    """Tensors (B, Z), of one dtype, any strides -> the KL (B,)."""
    return _forward(mu_q, log_sigma_q, None, mu_p, log_sigma_p)[1]


def gaussian_kl_bwd(
    dkl: torch.Tensor, mu_q: torch.Tensor, log_sigma_q: torch.Tensor, mu_p: Optional, log_sigma_p: Optional
) -> tuple[torch.Tensor, ...]:
    """dkl (B,) and the forward's tensors -> dmu_q, dlog_sigma_q, dmu_p, dlog_sigma_p (B, Z) or, without prior, (0,)."""
    dmu_q, dlog_sigma_q, _, *dprior = _backward(None, dkl, mu_q, log_sigma_q, None, mu_p, log_sigma_p, False)
    return dmu_q, dlog_sigma_q, *dprior


def sample_kl(
    mu_q: torch.Tensor, log_sigma_q: torch.Tensor, noise: torch.Tensor, mu_p: Optional, log_sigma_p: Optional
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tensors (B, Z), of one dtype, any strides -> z (B, Z) and the KL (B,)."""
    return _forward(mu_q, log_sigma_q, noise, mu_p, log_sigma_p)


def sample_kl_bwd(
    dz: torch.Tensor,
    dkl: torch.Tensor,
    mu_q: torch.Tensor,
    log_sigma_q: torch.Tensor,
    noise: torch.Tensor,
    mu_p: Optional,
    log_sigma_p: Optional,
    need_dnoise: bool,
) -> tuple[torch.Tensor, ...]:
    """dz (B, Z), dkl (B,) and the forward's tensors -> dmu_q, dlog_sigma_q, dnoise, dmu_p, dlog_sigma_p, (B, Z) each.

    Those of noise, if not needed, and of a prior that was left out have no elements.
    """
    return _backward(dz, dkl, mu_q, log_sigma_q, noise, mu_p, log_sigma_p, need_dnoise)
