"""The linear-Gaussian VAE: its closed forms are those of samples and of torch, and training reaches its optimum."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from fastdraw import ops
from fastdraw.models.estimators import reparameterised_bound, reparameterised_bound_with_kl
from fastdraw.models.gaussians import gaussian_log_density
from fastdraw.models.linear_gaussian import LinearGaussian

D = 3
MEAN, VARIANCE = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64), 2.25
SIGMA = VARIANCE**0.5


def any_model() -> LinearGaussian:
    """Nowhere near an optimum."""
    b, v = torch.tensor([0.3, -0.4, 0.1]).double(), torch.tensor([0.5, 0.2, -1.0]).double()
    return LinearGaussian(a=0.4, b=b, t=0.7, c=1.3, v=v, s=0.8)


def data(count: int = 6) -> Tensor:
    return MEAN + SIGMA * torch.randn(count, D, dtype=torch.float64)


def exact_data(count: int = 64) -> Tensor:
    """Data whose own mean and variance are MEAN and VARIANCE."""
    x = torch.randn(count, D, dtype=torch.float64)
    x = x - x.mean(0)
    return MEAN + SIGMA * x / x.square().mean().sqrt()


def test_likelihood_and_posterior_are_those_of_the_joint_gaussian() -> None:
    """p(x, z) is one Gaussian of 2 D dimensions, of which torch knows the density."""
    model, x = any_model(), data()
    c, v, s2, one = model.c.item(), model.v.detach(), (2 * model.log_s).exp().item(), torch.eye(D).double()
    cov = torch.cat([torch.cat([(c**2 + s2) * one, c * one], 1), torch.cat([c * one, one], 1)])
    joint = MultivariateNormal(torch.cat([v, torch.zeros(D).double()]), cov)
    z = torch.randn(6, D, dtype=torch.float64)
    torch.testing.assert_close(model.log_joint(x, z), joint.log_prob(torch.cat([x, z], 1)))
    torch.testing.assert_close(
        model.log_likelihood(x), gaussian_log_density(x, v.expand(6, D), (c**2 + s2) * one.expand(6, D, D))
    )
    mu, log_sigma = model.posterior(x)  # Bayes
    torch.testing.assert_close(
        Normal(mu, log_sigma.exp()).log_prob(z).sum(1), model.log_joint(x, z) - model.log_likelihood(x)
    )


def test_log_likelihood_is_the_bound_and_the_divergence_from_the_posterior() -> None:
    """Paper 004, theorem 1.1."""
    model, x = any_model(), data()
    divergence = ops.gaussian_kl(*model.encode(x), *model.posterior(x))
    assert (divergence > 0.01).all()
    torch.testing.assert_close(model.elbo(x) + divergence, model.log_likelihood(x))


def test_the_bound_is_reconstruction_less_divergence_from_the_prior() -> None:
    """Paper 004, theorem 1.2, with the expectation by Gauss-Hermite quadrature, which is exact here."""
    model, x = any_model(), data()
    mu, log_t = model.encode(x)
    kl = kl_divergence(Normal(mu, log_t.exp()), Normal(torch.zeros_like(mu), torch.ones_like(mu))).sum(1)
    reconstruction = torch.zeros(6).double()
    for place, weight in ((-(3**0.5), 1 / 6), (0.0, 2 / 3), (3**0.5, 1 / 6)):
        mean, log_s = model.decode(mu + log_t.exp() * place)
        reconstruction = reconstruction + weight * Normal(mean, log_s.exp()).log_prob(x).sum(1)
    torch.testing.assert_close(model.elbo(x), reconstruction - kl)


@pytest.mark.parametrize("estimate", ["joint", "kl"])
def test_both_theorems_hold_of_samples(estimate: str) -> None:
    model, x, samples = any_model(), data(2), 50_000
    noise = torch.randn(samples, 2, D, dtype=torch.float64)
    rows, encoded = x.repeat(samples, 1), [tensor.repeat(samples, 1) for tensor in model.encode(x)]
    if estimate == "joint":
        bounds = reparameterised_bound(model.log_joint, rows, *encoded, noise.flatten(0, 1)[None])
    else:
        bounds = reparameterised_bound_with_kl(
            lambda x, z: -ops.gaussian_nll(*model.decode(z), x), rows, *encoded, noise.flatten(0, 1)[None]
        )
    bounds = bounds.detach().view(samples, 2)
    gap = bounds.mean(0) + ops.gaussian_kl(*model.encode(x), *model.posterior(x)) - model.log_likelihood(x)
    assert (gap.abs() < 4 * bounds.std(0) / samples**0.5).all()


def test_the_bound_is_equal_at_the_posterior_and_below_elsewhere() -> None:
    model, x = any_model(), data()
    with torch.no_grad():
        total = model.c.square() + (2 * model.log_s).exp()
        model.a.copy_(model.c / total)
        model.b.copy_(-model.a * model.v)
        model.log_t.copy_(model.log_s - total.log() / 2)
    torch.testing.assert_close(model.encode(x), model.posterior(x))
    torch.testing.assert_close(model.elbo(x), model.log_likelihood(x))
    # Of the exact posterior every sample gives the bound.
    noise = torch.randn(5, 6, D, dtype=torch.float64)
    for one in noise:
        bound = reparameterised_bound(model.log_joint, x, *model.encode(x), one[None])
        torch.testing.assert_close(bound, model.log_likelihood(x))
    for parameter in (model.a, model.b, model.log_t):
        with torch.no_grad():
            parameter.add_(0.05)
            assert (model.elbo(x) < model.log_likelihood(x)).all()
            parameter.sub_(0.05)


def test_with_the_signs_as_printed_in_paper_004_the_bound_is_none() -> None:
    """Section 6.6 adds the KL: at the best encoder that would be more than the likelihood."""
    x = data()
    model = LinearGaussian.optimum(MEAN, VARIANCE, s=0.5)
    printed = model.elbo(x) + 2 * ops.gaussian_kl(*model.encode(x))
    assert (printed > model.log_likelihood(x) + 1).all()


def values(model: LinearGaussian) -> dict[str, Tensor]:
    """The parameters, with the sign of z that makes c positive."""
    sign = 1 if model.c >= 0 else -1
    signs = {"a": sign, "b": sign, "c": sign}
    return {name: signs.get(name, 1) * value for name, value in model.state_dict().items()}


def train(model: LinearGaussian, x: Tensor) -> None:
    """Gradient descent on the bound with L-BFGS, which needs no learning rate."""
    optimiser = torch.optim.LBFGS(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        max_iter=200,
        tolerance_grad=1e-9,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = -model.elbo(x).mean()
        loss.backward()
        return loss

    optimiser.step(closure)


@pytest.mark.parametrize("s", [0.2, 0.9, 2.0])
def test_training_reaches_the_closed_form_for_a_fixed_s(s: float) -> None:
    model = any_model()
    with torch.no_grad():
        model.log_s.fill_(math.log(s))
    model.log_s.requires_grad_(False)
    train(model, exact_data())
    best = LinearGaussian.optimum(MEAN, VARIANCE, s)
    torch.testing.assert_close(values(model), values(best), atol=1e-3, rtol=0)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("s", [0.3, 0.8, 1.4])
def test_training_all_six_reaches_the_ridge_of_optima(s: float, sign: int) -> None:
    start = any_model()
    model = LinearGaussian(a=start.a.item(), b=start.b, t=0.7, c=1.3 * sign, v=start.v, s=s)
    x = exact_data()
    train(model, x)
    reached = model.log_s.exp().item()
    assert 0 < reached <= SIGMA
    torch.testing.assert_close(model.c**2 + reached**2, torch.tensor(VARIANCE).double(), atol=1e-3, rtol=0)
    best = LinearGaussian.optimum(MEAN, VARIANCE, reached)
    torch.testing.assert_close(values(model), values(best), atol=1e-3, rtol=0)


def test_no_step_from_the_optimum_is_uphill() -> None:
    x, best = exact_data(), LinearGaussian.optimum(MEAN, VARIANCE, s=0.9)
    top = best.elbo(x).mean()
    torch.testing.assert_close(top, -D / 2 * torch.tensor(math.log(2 * math.pi * VARIANCE) + 1).double())
    for gradient in torch.autograd.grad(top, list(best.parameters())):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-9, rtol=0)
    for parameter in best.parameters():
        for step in (-0.01, 0.01):
            with torch.no_grad():
                parameter.add_(step)
                assert best.elbo(x).mean() < top - 1e-5
                parameter.sub_(step)


def test_along_the_ridge_the_bound_is_one_and_its_parts_are_not() -> None:
    x = exact_data()
    models = [LinearGaussian.optimum(MEAN, VARIANCE, s) for s in (SIGMA, 1.0, 0.1, 1e-3)]
    bounds = torch.stack([model.elbo(x).mean() for model in models])
    torch.testing.assert_close(bounds, bounds[:1].expand(4))
    kls = [ops.gaussian_kl(*model.encode(x)).mean().item() for model in models]
    # Per dimension log sigma / s: nothing where z is not used, without end where z is all.
    assert kls == pytest.approx([D * math.log(SIGMA / s) for s in (SIGMA, 1.0, 0.1, 1e-3)])


def test_beyond_the_data_s_leaves_nothing_to_z() -> None:
    best = LinearGaussian.optimum(MEAN, VARIANCE, s=2.0)
    assert [best.a.item(), best.c.item(), best.log_t.item()] == [0, 0, 0]
    assert best.elbo(exact_data()).mean() < LinearGaussian.optimum(MEAN, VARIANCE, s=1.0).elbo(exact_data()).mean()


@pytest.mark.parametrize("s", [1e-1, 1e-2, 1e-4, 1e-8])
def test_as_s_vanishes_both_gaussians_become_deltas(s: float) -> None:
    """Paper 004, section 3: z = (x - mu) / sigma and x = mu + sigma z."""
    model, x = LinearGaussian.optimum(MEAN, VARIANCE, s), data()
    whitened = (x - MEAN) / SIGMA
    mu, log_t = model.encode(x)
    # sqrt(1 - (s / sigma)^2) is off one by half the square.
    torch.testing.assert_close(mu, whitened, atol=1e-12, rtol=0.51 * (s / SIGMA) ** 2 + 1e-12)
    torch.testing.assert_close(log_t.exp(), torch.full_like(x, s / SIGMA))
    z = torch.randn(6, D, dtype=torch.float64)
    mean, log_s = model.decode(z)
    torch.testing.assert_close(mean, MEAN + SIGMA * z, atol=0.51 * s**2 / SIGMA * z.abs().max().item() + 1e-12, rtol=0)
    torch.testing.assert_close(log_s.exp(), torch.full_like(x, s))
    torch.testing.assert_close(model.decode(mu)[0], x, atol=2 * s**2 + 1e-12, rtol=0)
    torch.testing.assert_close(model.elbo(x), Normal(MEAN, SIGMA).log_prob(x).sum(1))


def test_the_limit_of_the_encoder_acts_as_a_delta() -> None:
    """Its mean of any function of z goes to the function's value at (x - mu) / sigma, with the square of s."""
    x = MEAN[None] + 0.7
    z = torch.linspace(-8, 8, 40_001, dtype=torch.float64)
    value, found = torch.sin(3 * torch.tensor(0.7 / SIGMA).double()), []
    for s in (0.3, 0.03, 0.003):
        mu, log_t = (tensor[0, 0].detach() for tensor in LinearGaussian.optimum(MEAN, VARIANCE, s).encode(x))
        density = Normal(mu, log_t.exp()).log_prob(z).exp()
        torch.testing.assert_close(torch.trapezoid(density, z), torch.ones(()).double())
        found.append(abs(torch.trapezoid(density * torch.sin(3 * z), z) - value).item())
    assert found[1] == pytest.approx(found[0] / 100, rel=0.1)
    assert found[2] == pytest.approx(found[1] / 100, rel=0.1)


def test_the_deltas_of_the_paper_are_gaussians() -> None:
    """Paper 004, section 3.1: exp(-(x / a)^2) / (|a| sqrt pi), whose variance is a^2 / 2."""
    x = torch.linspace(-2, 2, 101, dtype=torch.float64)
    for a in (1.0, -0.1):
        printed = (-((x / a) ** 2)).exp() / (abs(a) * math.pi**0.5)
        torch.testing.assert_close(printed, Normal(0, abs(a) / 2**0.5).log_prob(x).exp())


def test_all_of_it_is_of_one_dtype() -> None:
    model = LinearGaussian.optimum(MEAN.float(), VARIANCE, s=0.5)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.elbo(data().float()).dtype == torch.float32
    torch.testing.assert_close(model.elbo(MEAN[None].float()), model.log_likelihood(MEAN[None].float()))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"t": 0}, ValueError, "t must be positive and finite, got 0"),
        ({"s": -1.0}, ValueError, r"s must be positive and finite, got -1.0"),
        ({"s": math.inf}, ValueError, "s must be positive and finite, got inf"),
        ({"t": math.nan}, ValueError, "t must be positive and finite, got nan"),
        ({"v": torch.zeros(2)}, ValueError, r"v must have shape \(D,\) with D = 3 \(from b\), got \(2,\)"),
        ({"b": torch.zeros(3, 1)}, ValueError, r"b must have shape \(D,\), got \(3, 1\)"),
        ({"v": torch.zeros(3).double()}, TypeError, "v is float64 and b is float32"),
        ({"b": 1.0}, TypeError, "b must be a tensor, got float"),
    ],
)
def test_what_is_no_model_is_named(changes: dict, error: type[Exception], words: str) -> None:
    good = {"a": 1.0, "b": torch.zeros(3), "t": 1.0, "c": 1.0, "v": torch.zeros(3), "s": 1.0}
    with pytest.raises(error, match=f"^LinearGaussian: {words}"):
        LinearGaussian(**(good | changes))


def test_an_optimum_needs_data_that_spread() -> None:
    with pytest.raises(ValueError, match=r"^LinearGaussian.optimum: mean must have shape \(D,\), got \(1, 3\)"):
        LinearGaussian.optimum(MEAN[None], VARIANCE, s=1.0)
    with pytest.raises(ValueError, match=r"^LinearGaussian: variance must be positive and finite, got 0.0"):
        LinearGaussian.optimum(MEAN, 0.0, s=1.0)
    with pytest.raises(ValueError, match=r"^LinearGaussian: s must be positive and finite, got 0"):
        LinearGaussian.optimum(MEAN, VARIANCE, s=0)


def test_x_of_another_width_is_named() -> None:
    for method in ("elbo", "log_likelihood", "encode", "posterior"):
        with pytest.raises(ValueError, match=r"^LinearGaussian: x must have shape \(B, D\) with D = 3, got \(6, 1\)"):
            getattr(any_model(), method)(data()[:, :1])
    with pytest.raises(ValueError, match=r"^LinearGaussian: z must have shape \(B, D\) with D = 3, got \(3,\)"):
        any_model().decode(data()[0])
