"""Reading and writing glimpses against their plain PyTorch."""

import pytest
import torch

from benchmarks.harness import B, H, W, measure, side_by_side
from fastdraw import ops
from fastdraw.ops.glimpse import _draw_read, _glimpse_read, _glimpse_write


@side_by_side(_glimpse_read)
@pytest.mark.parametrize("n", [8, 12])
def bench_glimpse_read(benchmark, backend, passes, n):
    image, window = torch.rand(B, 1, H, W), torch.randn(B, 5) / 4
    measure(benchmark, backend, passes, lambda image, window: ops.glimpse_read(image, window, n), image, window)


@side_by_side(_glimpse_write)
@pytest.mark.parametrize("n", [8, 12])
def bench_glimpse_write(benchmark, backend, passes, n):
    canvas, patch, window = torch.randn(B, 1, H, W), torch.randn(B, 1, n, n), torch.randn(B, 5) / 4

    def write(canvas, patch, window):
        return ops.glimpse_write(patch, window, (H, W), canvas=canvas)

    measure(benchmark, backend, passes, write, canvas, patch, window)


@side_by_side(_draw_read)
@pytest.mark.parametrize("n", [8, 12])
def bench_draw_read(benchmark, backend, passes, n):
    image, canvas, window = torch.rand(B, 1, H, W), torch.randn(B, 1, H, W), torch.randn(B, 5) / 4
    # The image is data, as in training: no gradient flows to it.
    measure(benchmark, backend, passes, lambda canvas, window: ops.draw_read(image, canvas, window, n), canvas, window)
