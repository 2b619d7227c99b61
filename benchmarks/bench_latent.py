"""The KL divergence of diagonal Gaussians, and a sample with it, against their plain PyTorch."""

import pytest
import torch

from benchmarks.harness import B, measure, side_by_side
from fastdraw import ops
from fastdraw.ops.latent import _gaussian_kl, _sample_kl

Z = 100

priors = pytest.mark.parametrize("prior", ["learned", "standard"])


@side_by_side(_gaussian_kl)
@priors
def bench_gaussian_kl(benchmark, backend, passes, prior):
    measure(benchmark, backend, passes, ops.gaussian_kl, *(torch.randn(B, Z) for _ in range(_count(2, prior))))


@side_by_side(_sample_kl)
@priors
def bench_sample_kl(benchmark, backend, passes, prior):
    measure(benchmark, backend, passes, ops.sample_kl, *(torch.randn(B, Z) for _ in range(_count(3, prior))))


def _count(without_prior: int, prior: str) -> int:
    return without_prior + (2 if prior == "learned" else 0)
