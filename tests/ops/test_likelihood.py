"""Likelihoods are those of torch.distributions."""

import torch
from torch.distributions import Bernoulli, Normal

from .cases import Run, every_run


@every_run("bernoulli_nll")
def test_bernoulli_equals_torch_on_binary_targets(run: Run) -> None:
    logits = 3 * torch.randn(4, 2, 3, 5, dtype=torch.float64, device=run.device)
    target = torch.randint(0, 2, logits.shape, device=run.device).double()
    expected = -Bernoulli(logits=logits).log_prob(target).sum((1, 2, 3))
    torch.testing.assert_close(run(logits=logits, target=target), expected)


@every_run("bernoulli_nll")
def test_bernoulli_is_linear_in_the_target(run: Run) -> None:
    logits = torch.randn(4, 6, dtype=torch.float64, device=run.device)
    off, on = torch.zeros_like(logits), torch.ones_like(logits)
    half = run(logits=logits, target=(off + on) / 2)
    torch.testing.assert_close(half, (run(logits=logits, target=off) + run(logits=logits, target=on)) / 2)


@every_run("bernoulli_nll")
def test_large_logits_neither_overflow_nor_lose_the_loss(run: Run) -> None:
    logits = torch.tensor([[1e4], [-1e4], [1e4]], device=run.device)
    target = torch.tensor([[1.0], [0.0], [0.0]], device=run.device)
    torch.testing.assert_close(run(logits=logits, target=target), torch.tensor([0.0, 0.0, 1e4], device=run.device))


@every_run("bernoulli_nll")
def test_small_losses_keep_their_digits(run: Run) -> None:
    logits = torch.linspace(-80, 80, 1601, device=run.device)[:, None]
    expected = torch.log1p(torch.exp(-logits.double())).float()[:, 0]
    torch.testing.assert_close(run(logits=logits, target=torch.ones_like(logits)), expected, rtol=5e-7, atol=0)


@every_run("gaussian_nll")
def test_gaussian_equals_torch(run: Run) -> None:
    mean, log_sigma, target = (torch.randn(4, 2, 3, dtype=torch.float64, device=run.device) for _ in range(3))
    expected = -Normal(mean, log_sigma.exp()).log_prob(target).sum((1, 2))
    torch.testing.assert_close(run(mean=mean, log_sigma=log_sigma, target=target), expected)
