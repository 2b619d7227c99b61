"""The pointwise half of an LSTM step against its plain PyTorch."""

import pytest
import torch

from benchmarks.harness import B, measure, side_by_side
from fastdraw import ops
from fastdraw.ops.lstm import _lstm_gates


@side_by_side(_lstm_gates)
@pytest.mark.parametrize("units", [256, 400])
def bench_lstm_gates(benchmark, backend, passes, units):
    measure(benchmark, backend, passes, ops.lstm_gates, torch.randn(B, 4 * units), torch.randn(B, units))
