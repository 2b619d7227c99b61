"""A step of an LSTM, and its pointwise half, against their plain PyTorch."""

import pytest
import torch

from benchmarks.harness import B, measure, side_by_side
from fastdraw import ops
from fastdraw.ops.lstm import _lstm_gates


@side_by_side(_lstm_gates)
@pytest.mark.parametrize("units", [256, 400])
def bench_lstm_gates(benchmark, backend, passes, units):
    measure(benchmark, backend, passes, ops.lstm_gates, torch.randn(B, 4 * units), torch.randn(B, units))


@side_by_side(_lstm_gates)
@pytest.mark.parametrize("width", [120, 528])  # R's decoder and encoder
def bench_lstm_step(benchmark, backend, passes, width, units=400):
    def step(x, h, c, w_ih, w_hh):
        return ops.lstm_step(x, (h, c), w_ih, w_hh)

    state, weights = torch.randn(2, B, units), torch.randn(4 * units, width + units) / 20
    inputs = torch.randn(B, width), *state.clone(), *weights.split([width, units], dim=1)
    measure(benchmark, backend, passes, step, *(x.contiguous() for x in inputs))
