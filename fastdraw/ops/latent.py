"""The latent variable of a variational autoencoder: its KL divergence, and a reparameterised sample of it.

z = mu_q + sigma_q noise
KL(q || p) = 1/2 sum [((mu_q - mu_p)^2 + sigma_q^2) / sigma_p^2 - log(sigma_q^2 / sigma_p^2) - 1]      in nats
"""

from torch import Tensor

from .. import reference
from ..checks import check_tensors
from . import autocast
from .op import Native, Op, vjp


def gaussian_kl(
    mu_q: Tensor, log_sigma_q: Tensor, mu_p: Tensor | None = None, log_sigma_p: Tensor | None = None
) -> Tensor:
    """KL divergence of diagonal Gaussians (paper 000, appendix, with its printing errors mended).

    Args:
        mu_q (B, Z), log_sigma_q (B, Z): mean and log standard deviation of q.
        mu_p (B, Z), log_sigma_p (B, Z): those of p; the standard normal when both are left out.
    Returns:
        KL(q || p) (B,) in nats.
    Raises:
        TypeError: an argument is no float tensor, or dtypes differ.
        ValueError: any mismatch of shape or device, or only one half of p.
    Example:
        >>> gaussian_kl(torch.zeros(2, 100), torch.zeros(2, 100))
        tensor([0., 0.])
    """
    mu_q, log_sigma_q, mu_p, log_sigma_p = autocast.to_float32(mu_q, log_sigma_q, mu_p, log_sigma_p)
    _check("gaussian_kl", mu_q, log_sigma_q, mu_p, log_sigma_p)
    return _gaussian_kl(mu_q, log_sigma_q, mu_p, log_sigma_p)


def sample_kl(
    mu_q: Tensor, log_sigma_q: Tensor, noise: Tensor, mu_p: Tensor | None = None, log_sigma_p: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sample z from q by reparameterisation, with KL(q || p) (paper 000, eq. 20 and appendix).

    Args:
        mu_q (B, Z), log_sigma_q (B, Z), mu_p (B, Z), log_sigma_p (B, Z): as in `gaussian_kl`.
        noise (B, Z): standard normal.
    Returns:
        z (B, Z) and the KL (B,) in nats.
    Raises:
        TypeError: an argument is no float tensor, or dtypes differ.
        ValueError: any mismatch of shape or device, or only one half of p.
    Example:
        >>> z, kl = sample_kl(torch.ones(2, 3), torch.zeros(2, 3), torch.zeros(2, 3))
        >>> z[0], kl
        (tensor([1., 1., 1.]), tensor([1.5000, 1.5000]))
    """
    mu_q, log_sigma_q, noise, mu_p, log_sigma_p = autocast.to_float32(mu_q, log_sigma_q, noise, mu_p, log_sigma_p)
    _check("sample_kl", mu_q, log_sigma_q, mu_p, log_sigma_p, noise=noise)
    return _sample_kl(mu_q, log_sigma_q, noise, mu_p, log_sigma_p)


def _check(
    op: str,
    mu_q: Tensor,
    log_sigma_q: Tensor,
    mu_p: Tensor | None,
    log_sigma_p: Tensor | None,
    **noise: Tensor,
) -> None:
    if (mu_p is None) != (log_sigma_p is None):
        raise ValueError(f"{op}: give both mu_p and log_sigma_p, or neither for a standard normal prior")
    check_tensors(
        op,
        mu_q=(mu_q, "B Z"),
        log_sigma_q=(log_sigma_q, "B Z"),
        **{name: (tensor, "B Z") for name, tensor in noise.items()},
        mu_p=(mu_p, "B Z?"),
        log_sigma_p=(log_sigma_p, "B Z?"),
    )


def _reference_kl_bwd(dkl, mu_q, log_sigma_q, mu_p, log_sigma_p):
    tensors = [x for x in (mu_q, log_sigma_q, mu_p, log_sigma_p) if x is not None]
    found = vjp(reference.gaussian_kl, tensors, (dkl,))
    return *found, *(mu_q.new_empty(0) for _ in range(4 - len(found)))


def _fake_kl(mu_q, log_sigma_q, mu_p, log_sigma_p):
    return mu_q.new_empty(mu_q.shape[0])


def _fake_kl_bwd(dkl, *tensors):
    return tuple(dkl.new_empty(0 if x is None else x.shape) for x in tensors)


def _backward_kl(bwd, grads, tensors, scalars, needs):
    return _of_given(tensors, bwd(*grads, *tensors))


def _of_given(tensors, gradients):
    """The gradients, None for a tensor that was left out."""
    return tuple(None if x is None else dx for x, dx in zip(tensors, gradients, strict=True))


_gaussian_kl = Op(
    "gaussian_kl",
    "latent",
    reference.gaussian_kl,
    Native(
        frozenset({"cuda", "triton", "cpu"}),
        "(Tensor mu_q, Tensor log_sigma_q, Tensor? mu_p, Tensor? log_sigma_p) -> Tensor",
        "(Tensor dkl, Tensor mu_q, Tensor log_sigma_q, Tensor? mu_p, Tensor? log_sigma_p)"
        " -> (Tensor dmu_q, Tensor dlog_sigma_q, Tensor dmu_p, Tensor dlog_sigma_p)",
        _fake_kl,
        _fake_kl_bwd,
        4,
        _backward_kl,
        _reference_kl_bwd,
    ),
)


def _reference_sample_bwd(dz, dkl, mu_q, log_sigma_q, noise, mu_p, log_sigma_p, need_dnoise):
    tensors = [x for x in (mu_q, log_sigma_q, noise, mu_p, log_sigma_p) if x is not None]
    dmu_q, dlog_sigma_q, dnoise, *dprior = vjp(reference.sample_kl, tensors, (dz, dkl))
    dprior = dprior or (mu_q.new_empty(0), mu_q.new_empty(0))
    return dmu_q, dlog_sigma_q, dnoise if need_dnoise else mu_q.new_empty(0), *dprior


def _fake_sample(mu_q, log_sigma_q, noise, mu_p, log_sigma_p):
    return mu_q.new_empty(mu_q.shape), mu_q.new_empty(mu_q.shape[0])


def _fake_sample_bwd(dz, dkl, mu_q, log_sigma_q, noise, mu_p, log_sigma_p, need_dnoise):
    wanted = (True, True, need_dnoise, mu_p is not None, log_sigma_p is not None)
    return tuple(mu_q.new_empty(mu_q.shape if want else 0) for want in wanted)


def _backward_sample(bwd, grads, tensors, scalars, needs):
    dmu_q, dlog_sigma_q, dnoise, *dprior = _of_given(tensors, bwd(*grads, *tensors, needs[2]))
    return dmu_q, dlog_sigma_q, dnoise if needs[2] else None, *dprior


_sample_kl = Op(
    "sample_kl",
    "latent",
    reference.sample_kl,
    Native(
        frozenset({"cuda", "triton", "cpu"}),
        "(Tensor mu_q, Tensor log_sigma_q, Tensor noise, Tensor? mu_p, Tensor? log_sigma_p) -> (Tensor z, Tensor kl)",
        "(Tensor dz, Tensor dkl, Tensor mu_q, Tensor log_sigma_q, Tensor noise, Tensor? mu_p, Tensor? log_sigma_p,"
        " bool need_dnoise)"
        " -> (Tensor dmu_q, Tensor dlog_sigma_q, Tensor dnoise, Tensor dmu_p, Tensor dlog_sigma_p)",
        _fake_sample,
        _fake_sample_bwd,
        5,
        _backward_sample,
        _reference_sample_bwd,
    ),
)
