"""Negative log-likelihood of an image, in nats, summed over all but the batch.

bernoulli: sum log(1 + exp(logits)) - target logits
gaussian:  sum (target - mean)^2 / (2 sigma^2) + log sigma + 1/2 log 2 pi
"""

from torch import Tensor

from .. import reference
from ..checks import check_tensors
from . import autocast
from .op import Native, Op, vjp


def bernoulli_nll(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of pixels with logits (paper 000, eq. 10); a likelihood where the target is 0 or 1.

    Args:
        logits (B, ...): any float dtype and any number of dimensions.
        target (B, ...): in [0, 1], the shape of logits.
    Returns:
        nll (B,) in nats.
    Raises:
        TypeError: an argument is no float tensor, or dtypes differ.
        ValueError: any mismatch of shape or device.
    Example:
        >>> bernoulli_nll(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
        tensor([2.7726])
    """
    logits, target = autocast.to_float32(logits, target)
    _check("bernoulli_nll", logits=logits, target=target)
    return _bernoulli_nll(logits, target)


def gaussian_nll(mean: Tensor, log_sigma: Tensor, target: Tensor) -> Tensor:
    """Negative log-density of independent Gaussians, with its constant, so that sigma may be learned (paper 004).

    Args:
        mean (B, ...), log_sigma (B, ...), target (B, ...): one shape, any float dtype; log_sigma is the log of a
            standard deviation.
    Returns:
        nll (B,) in nats.
    Raises:
        TypeError: an argument is no float tensor, or dtypes differ.
        ValueError: any mismatch of shape or device.
    Example:
        >>> gaussian_nll(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2))
        tensor([1.8379])
    """
    mean, log_sigma, target = autocast.to_float32(mean, log_sigma, target)
    _check("gaussian_nll", mean=mean, log_sigma=log_sigma, target=target)
    return _gaussian_nll(mean, log_sigma, target)


def _check(op: str, **arguments: Tensor) -> None:
    # Any rank will do, as long as it is one rank: the first argument names the dimensions.
    name, first = next(iter(arguments.items()))
    if isinstance(first, Tensor) and first.dim() < 1:
        raise ValueError(f"{op}: {name} must have shape (B, ...), got ()")
    rank = first.dim() if isinstance(first, Tensor) else 1
    shape = " ".join(["B", *(f"D{axis}" for axis in range(1, rank))])
    check_tensors(op, **{name: (tensor, shape) for name, tensor in arguments.items()})


def _fake(first, *others):
    return first.new_empty(first.shape[0])


def _reference_bernoulli_bwd(dnll, logits, target, need_dtarget):
    dlogits, dtarget = vjp(reference.bernoulli_nll, (logits, target), (dnll,))
    return dlogits, dtarget if need_dtarget else target.new_empty(0)


def _fake_bernoulli_bwd(dnll, logits, target, need_dtarget):
    return logits.new_empty(logits.shape), target.new_empty(target.shape if need_dtarget else 0)


def _backward_bernoulli(bwd, grads, tensors, scalars, needs):
    dlogits, dtarget = bwd(*grads, *tensors, needs[1])
    return dlogits, dtarget if needs[1] else None


_bernoulli_nll = Op(
    "bernoulli_nll",
    "likelihood",
    reference.bernoulli_nll,
    Native(
        frozenset({"cuda", "triton", "cpu"}),
        "(Tensor logits, Tensor target) -> Tensor",
        "(Tensor dnll, Tensor logits, Tensor target, bool need_dtarget) -> (Tensor dlogits, Tensor dtarget)",
        _fake,
        _fake_bernoulli_bwd,
        2,
        _backward_bernoulli,
        _reference_bernoulli_bwd,
    ),
)


def _reference_gaussian_bwd(dnll, mean, log_sigma, target):
    return vjp(reference.gaussian_nll, (mean, log_sigma, target), (dnll,))[:2]


def _fake_gaussian_bwd(dnll, mean, log_sigma, target):
    return mean.new_empty(mean.shape), log_sigma.new_empty(log_sigma.shape)


def _backward_gaussian(bwd, grads, tensors, scalars, needs):
    dmean, dlog_sigma = bwd(*grads, *tensors)
    return dmean, dlog_sigma, -dmean if needs[2] else None


_gaussian_nll = Op(
    "gaussian_nll",
    "likelihood",
    reference.gaussian_nll,
    Native(
        frozenset({"cuda", "triton", "cpu"}),
        "(Tensor mean, Tensor log_sigma, Tensor target) -> Tensor",
        "(Tensor dnll, Tensor mean, Tensor log_sigma, Tensor target) -> (Tensor dmean, Tensor dlog_sigma)",
        _fake,
        _fake_gaussian_bwd,
        3,
        _backward_gaussian,
        _reference_gaussian_bwd,
    ),
)
