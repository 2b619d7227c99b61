"""The floor counts every product with a weight, and no other."""

import pytest

from benchmarks.floor import floor_step, training_floor
from benchmarks.work import Work

# Sizes of R: U, Z, A, D, glimpses, 5 window numbers.
MATRICES = {
    "align_query": 512 * 400,
    "read_window": 5 * 400,
    "enc_ih": 1600 * (2 * 8 * 8 + 400),
    "enc_hh": 1600 * 400,
    "posterior": 200 * 400,
    "prior": 200 * 400,
    "dec_ih": 1600 * (100 + 20),
    "dec_hh": 1600 * 400,
    "patch": 64 * 400,
    "write_window": 5 * 400,
}
KEY = 512 * 20


def test_sizes_of_r():
    weights = Work().model().weights
    assert {name: getattr(weights, name).numel() for name in MATRICES} == MATRICES
    assert weights.align_key.numel() == KEY
    assert sum(MATRICES.values()) == 2_711_200


@pytest.mark.parametrize("work", [Work(), Work(batch=16, digits=3, steps=30), Work(batch=1, digits=3, steps=30)])
def test_every_weight_once_forward_and_twice_backward(work):
    """A weight meets every sample and step forward, in the gradient of its input, and in its own gradient."""
    of_steps = 3 * sum(MATRICES.values()) * work.batch * work.steps
    of_labels = 2 * KEY * work.batch * work.digits  # once for all steps; labels are data and want no gradient
    assert training_floor(work, work.model()).multiply_adds == of_steps + of_labels


@pytest.mark.parametrize("batch", [1, 2])
def test_floor_runs(batch):
    floor_step(Work(batch=batch, digits=1, steps=2, hidden=8))()
