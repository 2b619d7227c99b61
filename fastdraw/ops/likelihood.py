"""Negative log-likelihood of an image, in nats, summed over all but the batch.

bernoulli: sum log(1 + exp(logits)) - target logits
gaussian:  sum (target - mean)^2 / (2 sigma^2) + log sigma + 1/2 log 2 pi
"""

from torch import Tensor

from .. import reference
from ..checks import check_tensors
from . import autocast
from .op import Op


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


_bernoulli_nll = Op("bernoulli_nll", "likelihood", reference.bernoulli_nll)
_gaussian_nll = Op("gaussian_nll", "likelihood", reference.gaussian_nll)
