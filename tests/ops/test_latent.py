"""The KL divergence and the sample are those of torch.distributions."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from fastdraw import ops, reference

from .cases import Run, every_run


def normal(run: Run, *shape: int) -> torch.Tensor:
    return 0.7 * torch.randn(shape, dtype=torch.float64, device=run.device)


@every_run("gaussian_kl")
def test_kl_equals_torch(run: Run) -> None:
    mu_q, log_sigma_q, mu_p, log_sigma_p = (normal(run, 5, 9) for _ in range(4))
    q, p = Normal(mu_q, log_sigma_q.exp()), Normal(mu_p, log_sigma_p.exp())
    actual = run(mu_q=mu_q, log_sigma_q=log_sigma_q, mu_p=mu_p, log_sigma_p=log_sigma_p)
    torch.testing.assert_close(actual, kl_divergence(q, p).sum(1))
    standard = kl_divergence(q, Normal(torch.zeros_like(mu_q), torch.ones_like(mu_q))).sum(1)
    torch.testing.assert_close(run(mu_q=mu_q, log_sigma_q=log_sigma_q), standard)


@every_run("sample_kl")
def test_kl_is_the_mean_log_ratio_of_its_samples(run: Run) -> None:
    mu_q, log_sigma_q, mu_p, log_sigma_p = (normal(run, 1, 3).expand(200_000, 3) for _ in range(4))
    noise = torch.randn(200_000, 3, dtype=torch.float64, device=run.device)
    z, kl = run(mu_q=mu_q, log_sigma_q=log_sigma_q, noise=noise, mu_p=mu_p, log_sigma_p=log_sigma_p)
    ratio = (Normal(mu_q, log_sigma_q.exp()).log_prob(z) - Normal(mu_p, log_sigma_p.exp()).log_prob(z)).sum(1)
    standard_error = ratio.std() / len(ratio) ** 0.5
    assert abs(ratio.mean() - kl[0]) < 4 * standard_error
    torch.testing.assert_close(z.mean(0), mu_q[0], atol=0.03, rtol=0)
    torch.testing.assert_close(z.std(0), log_sigma_q[0].exp(), atol=0.03, rtol=0)


def printed_kl(mu_q: torch.Tensor, sigma_q: torch.Tensor, mu_p: torch.Tensor, sigma_p: torch.Tensor) -> torch.Tensor:
    """The KL as the appendix of paper 000 prints it, where no sigma_p divides the distance of the means."""
    ratio = (sigma_q / sigma_p) ** 2
    return 0.5 * ((mu_q - mu_p) ** 2 + ratio - ratio.log() - 1).sum(-1)


def test_the_kl_as_printed_in_paper_000_is_none() -> None:
    mu_q, mu_p = torch.tensor([0.3, -1.2, 0.8, 0.1, -0.5]).double(), torch.tensor([1.0, -0.4, 0.2, 1.1, 0.6]).double()
    sigma_q, sigma_p = (
        torch.tensor([0.4, 0.7, 0.5, 0.9, 0.6]).double(),
        torch.tensor([0.6, 0.5, 0.7, 0.8, 0.5]).double(),
    )
    q, p = Normal(mu_q, sigma_q), Normal(mu_p, sigma_p)
    z = mu_q + sigma_q * torch.randn(200_000, 5, dtype=torch.float64)
    ratio = (q.log_prob(z) - p.log_prob(z)).sum(1)
    standard_error = ratio.std() / len(ratio) ** 0.5
    right = ops.gaussian_kl(mu_q[None], sigma_q.log()[None], mu_p[None], sigma_p.log()[None])[0]
    assert abs(ratio.mean() - right) < 4 * standard_error
    assert printed_kl(mu_q, sigma_q, mu_p, sigma_p) < ratio.mean() - 100 * standard_error


def test_only_with_the_right_kl_is_the_bound_one() -> None:
    """x = z + noise, all normal: for the exact posterior the bound is log p(x), which no bound may exceed."""
    sigma_p = torch.full((5,), 0.5, dtype=torch.float64)  # of z
    sigma_x = torch.full((5,), 1.0, dtype=torch.float64)  # of x around z
    mu_p, x = torch.zeros(5).double(), torch.tensor([2.0, -1.0, 0.5, -2.5, 1.5]).double()
    likelihood = Normal(mu_p, (sigma_p**2 + sigma_x**2).sqrt()).log_prob(x).sum()
    sigma_q = (1 / (1 / sigma_p**2 + 1 / sigma_x**2)).sqrt()
    mu_q = sigma_q**2 * x / sigma_x**2
    reconstruction = (Normal(mu_q, sigma_x).log_prob(x) - sigma_q**2 / (2 * sigma_x**2)).sum()
    right = ops.gaussian_kl(mu_q[None], sigma_q.log()[None], mu_p[None], sigma_p.log()[None])[0]
    torch.testing.assert_close(reconstruction - right, likelihood)
    assert reconstruction - printed_kl(mu_q, sigma_q, mu_p, sigma_p) > likelihood + 0.1


def test_the_best_prior_is_as_wide_as_the_posterior_and_its_distance() -> None:
    """As printed, the distance would have no say."""
    mu_q, sigma_q = torch.tensor([[0.0, 0.5, 2.0]]).double(), torch.tensor([[0.3, 1.0, 0.7]]).double()
    best = (sigma_q**2 + mu_q**2).sqrt().log().requires_grad_()
    (slope,) = torch.autograd.grad(ops.gaussian_kl(mu_q, sigma_q.log(), torch.zeros_like(mu_q), best).sum(), best)
    torch.testing.assert_close(slope, torch.zeros_like(slope))
    printed = sigma_q.clone().requires_grad_()
    (slope,) = torch.autograd.grad(printed_kl(mu_q, sigma_q, torch.zeros_like(mu_q), printed).sum(), printed)
    torch.testing.assert_close(slope, torch.zeros_like(slope))


def test_a_sampled_kl_is_the_log_ratio_of_the_densities_at_the_sample() -> None:
    mu_q, log_sigma_q, mu_p, log_sigma_p, noise = (torch.randn(5, 9, dtype=torch.float64) for _ in range(5))
    z, ratio = reference.sample_log_ratio(mu_q, log_sigma_q, noise, mu_p, log_sigma_p)
    expected_z, _ = reference.sample_kl(mu_q, log_sigma_q, noise, mu_p, log_sigma_p)
    assert torch.equal(z, expected_z)
    q, p = Normal(mu_q, log_sigma_q.exp()), Normal(mu_p, log_sigma_p.exp())
    torch.testing.assert_close(ratio, (q.log_prob(z) - p.log_prob(z)).sum(1))


@every_run("sample_kl")
def test_without_noise_the_sample_is_the_mean(run: Run) -> None:
    mu_q, log_sigma_q = normal(run, 2, 3), normal(run, 2, 3)
    z, kl = run(mu_q=mu_q, log_sigma_q=log_sigma_q, noise=torch.zeros_like(mu_q))
    assert torch.equal(z, mu_q)
    assert torch.equal(kl, run._replace(op="gaussian_kl")(mu_q=mu_q, log_sigma_q=log_sigma_q))


@every_run("sample_kl")
def test_any_sigma_is_right_to_the_last_digits(run: Run) -> None:
    """Subnormal numbers and infinity included; the last column stands where vectors have ended."""
    log_sigma = torch.linspace(-110, 95, 4103, device=run.device).repeat(2, 1)
    z, _ = run(mu_q=torch.zeros_like(log_sigma), log_sigma_q=log_sigma, noise=torch.ones_like(log_sigma))
    torch.testing.assert_close(z, log_sigma.double().exp().float(), rtol=2.5e-7, atol=1.5e-45)
    assert z[0, 0] == 0
    assert z[0, -1] == torch.inf


@pytest.mark.parametrize("prior", [True, False])
@every_run("gaussian_kl", "sample_kl")
def test_a_nan_reaches_the_outputs(run: Run, prior: bool) -> None:
    names = ["mu_q", "log_sigma_q", *(["mu_p", "log_sigma_p"] if prior else [])]
    names += ["noise"] if run.op == "sample_kl" else []
    for name in names:
        arguments = {other: normal(run, 2, 9).float() for other in names}
        arguments[name][0, 3] = torch.nan
        outputs = run(**arguments)
        kl = outputs[1] if run.op == "sample_kl" else outputs
        assert kl.isnan().tolist() == [name != "noise", False]
        if run.op == "sample_kl":
            assert outputs[0].isnan().any() == (name not in ("mu_p", "log_sigma_p"))


@every_run("gaussian_kl")
def test_kl_of_equal_gaussians_is_zero(run: Run) -> None:
    mu, log_sigma = normal(run, 4, 6), 20 * normal(run, 4, 6)
    assert not run(mu_q=mu, log_sigma_q=log_sigma, mu_p=mu, log_sigma_p=log_sigma).any()


@pytest.mark.parametrize("given", ["mu_p", "log_sigma_p"])
@pytest.mark.parametrize("op", ["gaussian_kl", "sample_kl"])
def test_half_a_prior_is_an_error(op: str, given: str) -> None:
    x = torch.zeros(2, 3)
    arguments = {"mu_q": x, "log_sigma_q": x, given: x} | ({"noise": x} if op == "sample_kl" else {})
    with pytest.raises(ValueError, match=f"^{op}: give both mu_p and log_sigma_p, or neither"):
        getattr(ops, op)(**arguments)
