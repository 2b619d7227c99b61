"""Every peer computes the same loss, gradients and drawings."""

import numpy as np
import pytest
import torch

from benchmarks.peers import ours, plain
from benchmarks.work import Work

WORK = Work(batch=3, digits=2, steps=4, hidden=24)


def test_ours_is_the_reference():
    assert_same(ours.training_step(WORK)(), plain.training_step(WORK)())
    torch.testing.assert_close(ours.drawing(WORK)(), plain.drawing(WORK)())


def test_jax_is_the_reference():
    jax_draw = pytest.importorskip("benchmarks.peers.jax_draw", reason="needs jax")
    value, gradients = jax_draw.training_step(WORK)()
    names = WORK.model().weights._fields
    tensors = tuple(torch.from_numpy(np.array(gradients[name])) for name in names)
    assert_same((torch.tensor(float(value)), tensors), plain.training_step(WORK)())
    drawn = torch.from_numpy(np.array(jax_draw.drawing(WORK)()))
    torch.testing.assert_close(drawn, plain.drawing(WORK)(), rtol=1e-5, atol=1e-5)


def assert_same(actual, expected):
    """Within float32's rounding, of the largest element of a gradient."""
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-6, atol=0)
    for gradient, exact, name in zip(actual[1], expected[1], WORK.model().weights._fields, strict=True):
        error = (gradient - exact).abs().max() / exact.abs().max()
        assert error < 1e-5, f"{name}: relative error {error:.2g}"
