"""Additive attention against its plain PyTorch."""

import pytest
import torch

from benchmarks.harness import B, measure, side_by_side
from fastdraw import ops
from fastdraw.ops.attention import _additive_attention


@side_by_side(_additive_attention)
@pytest.mark.parametrize("items", [2, 4])
def bench_additive_attention(benchmark, backend, passes, items, units=512, label=20):
    inputs = torch.randn(B, units), torch.randn(B, items, units), torch.randn(B, items, label), torch.randn(units)
    measure(benchmark, backend, passes, ops.additive_attention, *inputs)
