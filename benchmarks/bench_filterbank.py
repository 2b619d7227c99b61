"""The Gaussian filterbank against its plain PyTorch."""

import pytest
import torch

from benchmarks.harness import B, H, W, measure, side_by_side
from fastdraw import ops
from fastdraw.ops.filterbank import _gaussian_filterbank


@side_by_side(_gaussian_filterbank)
@pytest.mark.parametrize("n", [8, 12])
def bench_gaussian_filterbank(benchmark, backend, passes, n):
    measure(
        benchmark, backend, passes, lambda window: ops.gaussian_filterbank(window, n, (H, W)), torch.randn(B, 5) / 4
    )
