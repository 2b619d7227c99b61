"""Estimates with 95 % intervals: means, shares, and the difference and the ratio of two."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student
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


def ratio(first: Estimate, second: Estimate) -> Estimate:
    """How many times `second`, of other samples and > 0, `first` is; to first order, from the intervals of both."""
    value = first.value / second.value
    below = math.hypot(first.value - first.low, value * (second.high - second.value)) / second.value
    above = math.hypot(first.high - first.value, value * (second.value - second.low)) / second.value
    return Estimate(value, value - below, value + above, min(first.samples, second.samples))


def crossed_mean(values: Tensor) -> Estimate:
    """The mean of values (S, B) of S training runs on the same B >= 2 images, over other runs and other images.

    Student's t of the S means over images gives one half of a width and that of the B means over runs another; the
    root of the sum of their squares is never too narrow, and too wide where runs differ no more than chance has them.
    With a single run the interval is over images alone.
    """
    values = values.double()
    over_runs = _student(values.mean(1)) if len(values) > 1 else 0
    centre, half = float(values.mean()), math.hypot(_student(values.mean(0)), over_runs)
    return Estimate(centre, centre - half, centre + half, values.shape[1])


def nested_mean(values: Tensor) -> Estimate:
    """The mean of values (S, B) of S training runs on B >= 2 images that each has for itself, over other runs.

    Student's t of the S means; with a single run the interval is over its images alone.
    """
    values = values.double()
    centre, half = float(values.mean()), _student(values.mean(1) if len(values) > 1 else values[0])
    return Estimate(centre, centre - half, centre + half, values.shape[1])


def _student(values: Tensor) -> float:
    """Half the width of Student's interval of the mean of values (N,), N >= 2."""
    return float(student.ppf(0.975, len(values) - 1) * values.std()) / math.sqrt(len(values))


def bootstrap(statistic: Callable[[Array], Array], samples: Array, seed: int = 0) -> Estimate:
    """A statistic of samples (B, ...) with the percentile interval over samples drawn anew from them.

    Args:
        statistic: turns many sets of samples (R, B, ...) into one value each (R,).
    """
    count = len(samples)
    picks = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    low, high = np.quantile(statistic(samples[picks]), (0.025, 0.975))
    return Estimate(float(statistic(samples[None])[0]), float(low), float(high), count)


def roc_area(higher: Array, lower: Array) -> Estimate:
    """The area under the ROC curve of scores that should be higher for one kind than for the other.

    It is the probability that the score of one of the first is above that of one of the others, where equal scores
    count half. The interval is DeLong's (1988) on the scale of log(area / (1 - area)), which keeps it within 0 and 1.
    Where DeLong's variance is 0, as it is where the two kinds do not overlap, it is Wilson's, of as many pairs as can
    be made without using a score twice.

    Args:
        higher (M,), lower (N,): M and N >= 2.
    """
    above, below = _share_below(higher, np.sort(lower)), _share_below(lower, np.sort(higher))
    value, count = float(above.mean()), len(higher) + len(lower)
    error = math.sqrt(above.var(ddof=1) / len(higher) + below.var(ddof=1) / len(lower))
    if error == 0:
        pairs = min(len(higher), len(lower))
        found = proportion(round(value * pairs), pairs)
        return Estimate(value, found.low, found.high, count)
    centre, half = math.log(value / (1 - value)), NORMAL_95 * error / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-edge)) for edge in (centre - half, centre + half))
    return Estimate(value, low, high, count)


def _share_below(scores: Array, others: Array) -> Array:
    """For each score the share of the sorted others that are below it, equal ones counted half."""
    return (np.searchsorted(others, scores, "left") + np.searchsorted(others, scores, "right")) / (2 * len(others))
