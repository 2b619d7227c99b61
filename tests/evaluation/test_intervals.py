"""Intervals: against closed forms, and against how often they hold."""

import math

import numpy as np
import pytest
import torch

from fastdraw.evaluation.intervals import Estimate, bootstrap, difference, mean, share


def test_mean_has_the_normal_interval():
    value, low, high, count = mean(torch.tensor([1.0, 2.0, 3.0, 6.0]))

    half = 1.959963984540054 * math.sqrt((4 + 1 + 0 + 9) / 3) / 2
    assert (value, low, high, count) == pytest.approx((3, 3 - half, 3 + half, 4))


def test_share_has_wilsons_interval():
    # For none of n it reaches from 0 to z^2 / (n + z^2).
    z2 = 1.959963984540054**2
    none, every = share(torch.zeros(20, dtype=torch.bool)), share(torch.ones(20, dtype=torch.bool))

    assert none == pytest.approx((0, 0, z2 / (20 + z2), 20))
    assert every == pytest.approx((1, 20 / (20 + z2), 1, 20))


def test_difference_of_means_adds_variances():
    a, b = Estimate(5, 2, 8, 10), Estimate(1, -3, 5, 20)

    assert difference(a, b) == pytest.approx((4, -1, 9, 10))
    assert difference(b, a) == pytest.approx((-4, -9, 1, 10))


def test_difference_of_shares_is_newcombes():
    # Newcombe 1998, method 10, example (a): 56/70 against 48/80, 0.2000 (0.0524 to 0.3339).
    first, second = (share(torch.arange(n) < k) for k, n in ((56, 70), (48, 80)))

    assert difference(first, second)[:3] == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_bootstrap_of_a_mean_agrees_with_the_normal_interval():
    samples = np.random.default_rng(0).normal(3, 2, 400)
    found, expected = bootstrap(lambda sets: sets.mean(1), samples), mean(torch.from_numpy(samples))

    assert found.value == pytest.approx(expected.value)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)
    assert found.samples == 400
    assert bootstrap(lambda sets: sets.mean(1), samples) == found
