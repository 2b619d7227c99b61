"""Estimates with 95 % intervals: means, shares, and the difference of two of either."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fastdraw.evaluation.reader import proportion

NORMAL_95 = 1.959963984540054
RESAMPLES = 2000

Array = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """`value`, estimated from `samples` samples, and its 95 % interval from `low` to `high`."""

    value: float
    low: float
    high: float
    samples: int


def mean(values: Tensor) -> Estimate:
    """The mean of values (B,), B >= 2, with the interval of the normal distribution."""
    centre, half = float(values.double().mean()), NORMAL_95 * float(values.double().std()) / math.sqrt(len(values))
    return Estimate(centre, centre - half, centre + half, len(values))


def share(hits: Tensor) -> Estimate:
    """The share of true hits (B,) bool, B >= 1, with Wilson's interval, which is right for none and for all as well."""
    found = proportion(int(hits.sum()), len(hits))
    return Estimate(found.value, found.low, found.high, found.total)


def difference(first: Estimate, second: Estimate) -> Estimate:
    """How much larger `first` is than `second`, of other samples; their two intervals give its own.

    With normal intervals this is the normal interval of a difference of means, and with Wilson's it is Newcombe's of a
    difference of shares (Zou and Donner 2008).
    """
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Estimate(value, value - below, value + above, min(first.samples, second.samples))


def bootstrap(statistic: Callable[[Array], Array], samples: Array, seed: int = 0) -> Estimate:
    """A statistic of samples (B, ...) with the percentile interval over samples drawn anew from them.

    Args:
        statistic: turns many sets of samples (R, B, ...) into one value each (R,).
    """
    count = len(samples)
    picks = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    low, high = np.quantile(statistic(samples[picks]), (0.025, 0.975))
    return Estimate(float(statistic(samples[None])[0]), float(low), float(high), count)
