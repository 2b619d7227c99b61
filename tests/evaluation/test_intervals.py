"""Intervals: against closed forms, and against how often they hold."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from fastdraw.evaluation.intervals import (
    Estimate,
    bootstrap,
    crossed_mean,
    difference,
    mean,
    nested_mean,
    ratio,
    roc_area,
    share,
)

THREE_ERRORS = 3 * math.sqrt(0.95 * 0.05 / 1000)  # of the share of 1000 experiments whose interval holds


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


def drawn(rng, distance, higher=40, lower=60):
    """Normal scores of two kinds whose means are `distance` standard deviations apart."""
    return rng.normal(distance, 1, higher), rng.normal(0, 1, lower)


@pytest.mark.parametrize("digits", [1, 12], ids=["ties", "no-ties"])
def test_roc_area_is_the_share_of_pairs_in_order_as_scikit_learn_has_it(digits):
    higher, lower = (scores.round(digits) for scores in drawn(np.random.default_rng(0), 1))
    pairs = np.where(higher[:, None] == lower, 0.5, higher[:, None] > lower)
    found = roc_area(higher, lower)

    assert found.value == pytest.approx(pairs.mean(), abs=1e-12)
    truth = np.repeat([1, 0], [40, 60])
    assert found.value == pytest.approx(roc_auc_score(truth, np.concatenate([higher, lower])), abs=1e-12)
    # DeLong's variance: of the rows' and of the columns' means of the table of pairs.
    error = math.sqrt(pairs.mean(1).var(ddof=1) / 40 + pairs.mean(0).var(ddof=1) / 60)
    logit, scale = math.log(found.value / (1 - found.value)), found.value * (1 - found.value)
    edges = [1 / (1 + math.exp(-logit - sign * 1.959963984540054 * error / scale)) for sign in (-1, 1)]
    assert found[1:] == pytest.approx((*edges, 100))


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.5])
def test_roc_area_lies_in_its_interval_as_often_as_promised(distance):
    """In 2,000 trials; the share of an exact 95 % interval lies between 0.93 and 0.97 but once in 20,000 times."""
    rng, truth = np.random.default_rng(1), norm.cdf(distance / math.sqrt(2))
    found = [roc_area(*drawn(rng, distance)) for _ in range(2000)]

    held = np.mean([area.low <= truth <= area.high for area in found])
    assert 0.93 < held < 0.97
    assert np.mean([area.value for area in found]) == pytest.approx(truth, abs=0.005)


def test_roc_area_of_what_does_not_overlap_has_wilsons_interval():
    low, high = np.arange(20.0), np.arange(100.0, 130.0)
    z2 = 1.959963984540054**2

    assert roc_area(high, low) == pytest.approx((1, 20 / (20 + z2), 1, 50))
    assert roc_area(low, high) == pytest.approx((0, 0, z2 / (20 + z2), 50))


def test_roc_area_of_equal_scores_is_a_half_that_is_not_certain():
    expected = share(torch.arange(10) < 5)
    assert roc_area(np.ones(10), np.ones(10)) == pytest.approx((0.5, expected.low, expected.high, 20))


def test_ratio_is_as_wide_as_both_intervals_make_it():
    # To first order: a relative error of 0.1 of the one and 0.2 of the other.
    found = ratio(Estimate(6, 5.4, 6.6, 10), Estimate(3, 2.4, 3.6, 20))

    assert found == pytest.approx((2, 2 - 2 * math.hypot(0.1, 0.2), 2 + 2 * math.hypot(0.1, 0.2), 10))
    # Where the interval of the divisor is lopsided, its upper end is what lowers the ratio.
    assert ratio(Estimate(6, 6, 6, 10), Estimate(3, 3, 3.3, 20))[:3] == pytest.approx((2, 1.8, 2))
    assert ratio(Estimate(0, 0, 0, 10), Estimate(3, 2, 4, 20))[:3] == (0, 0, 0)


def test_mean_of_one_run_has_students_interval_over_images():
    # Four values of standard deviation sqrt(14/3); t of 3 degrees of freedom is 3.182446.
    found = crossed_mean(torch.tensor([[1.0, 2.0, 3.0, 6.0]]))

    half = 3.182446305284263 * math.sqrt(14 / 3) / 2
    assert found == pytest.approx((3, 3 - half, 3 + half, 4))
    assert nested_mean(torch.tensor([[1.0, 2.0, 3.0, 6.0]])) == found


def test_mean_of_runs_alone_has_students_interval_over_runs():
    # Means 1, 2 and 3; t of 2 degrees of freedom is 4.302653.
    values = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])

    half = 4.302652729911275 / math.sqrt(3)
    for found in (crossed_mean(values), nested_mean(values)):
        assert found == pytest.approx((2, 2 - half, 2 + half, 2))


def test_interval_of_what_never_differs_has_no_width():
    for found in (crossed_mean(torch.full((3, 5), 0.25)), nested_mean(torch.full((3, 5), 0.25))):
        assert found == (0.25, 0.25, 0.25, 5)


def held(estimates):
    """The share of intervals that hold a true mean of 0."""
    found = [estimate.low < 0 < estimate.high for estimate in estimates]
    return sum(found) / len(found)


@pytest.mark.parametrize(
    ("between_runs", "between_images"),
    [(0.0, 1.0), (0.05, 1.0), (0.3, 1.0), (1.0, 0.0)],
    ids=["images", "mixed", "mostly-runs", "runs"],
)
@pytest.mark.parametrize("runs", [2, 3, 8])
def test_crossed_interval_holds_at_least_as_often_as_it_says(runs, between_runs, between_images):
    generator = torch.Generator().manual_seed(runs)

    def normal(*shape):
        return torch.randn(1000, *shape, generator=generator)

    values = between_runs * normal(runs, 1) + between_images * normal(1, 60) + 0.5 * normal(runs, 60)
    share_held = held(map(crossed_mean, values))
    assert share_held >= 0.95 - THREE_ERRORS
    if runs == 8 and 0 in (between_runs, between_images):
        assert share_held <= 0.97 + THREE_ERRORS
    if between_runs >= 0.3:  # an interval that takes images for all that differs holds far too seldom
        assert held(mean(experiment.flatten()) for experiment in values) < 0.8


@pytest.mark.parametrize("between_runs", [0.0, 0.5])
def test_nested_interval_holds_as_often_as_it_says(between_runs):
    generator = torch.Generator().manual_seed(0)
    values = between_runs * torch.randn(1000, 3, 1, generator=generator) + torch.randn(1000, 3, 60, generator=generator)

    assert held(map(nested_mean, values)) == pytest.approx(0.95, abs=THREE_ERRORS)
