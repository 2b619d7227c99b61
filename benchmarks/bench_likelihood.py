"""The likelihoods of an image against their plain PyTorch."""

import torch

from benchmarks.harness import B, H, W, measure, side_by_side
from fastdraw import ops
from fastdraw.ops.likelihood import _bernoulli_nll, _gaussian_nll


@side_by_side(_bernoulli_nll)
def bench_bernoulli_nll(benchmark, backend, passes):
    measure(benchmark, backend, passes, ops.bernoulli_nll, torch.randn(B, 1, H, W), torch.rand(B, 1, H, W))


@side_by_side(_gaussian_nll)
def bench_gaussian_nll(benchmark, backend, passes):
    inputs = torch.randn(B, 1, H, W), torch.randn(B, 1, H, W), torch.rand(B, 1, H, W)
    measure(benchmark, backend, passes, ops.gaussian_nll, *inputs)
