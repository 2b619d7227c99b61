"""Estimates of the bound and of its gradients have the means they should, and those that are printed wrong do not."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal
from torch.nn.functional import binary_cross_entropy_with_logits

from fastdraw import ops
from fastdraw.models import Vae, VaeConfig, estimators
from fastdraw.models.estimators import reparameterised_bound, reparameterised_bound_with_kl, score_function_bound
from fastdraw.models.linear_gaussian import LinearGaussian

D, COUNT = 2, 10_000
X = torch.tensor([1.5, -0.3], dtype=torch.float64)
MU, LOG_SIGMA = torch.tensor([0.6, -0.5]).double(), torch.tensor([-0.4, 0.2]).double()
STANDARD_ERRORS = 4.5


def model() -> LinearGaussian:
    b, v = torch.tensor([0.1, -0.2]).double(), torch.tensor([0.5, -1.0]).double()
    return LinearGaussian(a=0.4, b=b, t=0.7, c=1.3, v=v, s=0.9)


def log_likelihood(x: Tensor, z: Tensor) -> Tensor:
    mean, log_s = model().decode(z)
    return Normal(mean, log_s.exp()).log_prob(x).sum(1)


def log_joint(x: Tensor, z: Tensor) -> Tensor:
    return log_likelihood(x, z) + Normal(0, 1).log_prob(z).sum(1)


def sine_log_joint(x: Tensor, z: Tensor) -> Tensor:
    """Of a decoder that is not linear: three pixels, on or off, with logits of a sine of z."""
    weights = torch.tensor([[1.0, -2.0], [0.5, 1.5], [-1.0, 0.3]], dtype=torch.float64)
    pixels = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64).expand(len(x), 3)
    cross_entropy = binary_cross_entropy_with_logits(torch.sin(2 * z) @ weights.mT, pixels, reduction="none")
    return Normal(0, 1).log_prob(z).sum(1) - cross_entropy.sum(1)


def gradients(bound, log_density) -> Tensor:
    """Gradients of COUNT estimates of one sample each, for mu and log sigma, (COUNT, 2 D)."""
    mu, log_sigma = (row.expand(COUNT, D).clone().requires_grad_() for row in (MU, LOG_SIGMA))
    noise = torch.randn(1, COUNT, D, dtype=torch.float64)
    estimate = bound(log_density, X.expand(COUNT, D), mu, log_sigma, noise)
    return torch.cat(torch.autograd.grad(estimate.sum(), (mu, log_sigma)), 1)


def exact_gradient() -> Tensor:
    """Of E_q log p(x, z) - log q(z), which is a polynomial for linear p: for mu and log sigma, (2 D,)."""
    mu, log_sigma = MU.clone().requires_grad_(), LOG_SIGMA.clone().requires_grad_()
    c, s2 = 1.3, 0.9**2
    spread = (c**2 / s2 + 1) * (2 * log_sigma).exp() / 2
    bound = log_joint(X[None], mu[None]).sum() - spread.sum() + log_sigma.sum()
    return torch.cat(torch.autograd.grad(bound, (mu, log_sigma)))


def is_mean(values: Tensor, expected: Tensor) -> Tensor:
    """For each column, whether its mean is as expected, within standard errors."""
    error = values.std(0) / len(values) ** 0.5
    return (values.mean(0) - expected).abs() <= STANDARD_ERRORS * error + 1e-12


def test_reparameterised_and_score_function_gradients_have_the_same_mean() -> None:
    """And that is the gradient; only, the score function's varies more."""
    expected = exact_gradient()
    through_z = gradients(reparameterised_bound, log_joint)
    with_kl = gradients(reparameterised_bound_with_kl, log_likelihood)
    by_score = gradients(score_function_bound, log_joint)
    assert is_mean(through_z, expected).all()
    assert is_mean(with_kl, expected).all()
    assert is_mean(by_score, expected).all()
    assert (by_score.var(0) > 2 * through_z.var(0)).all()
    assert (by_score.var(0) > 2 * with_kl.var(0)).all()


def test_so_they_have_of_a_decoder_that_is_not_linear() -> None:
    through_z, by_score = (
        gradients(reparameterised_bound, sine_log_joint),
        gradients(score_function_bound, sine_log_joint),
    )
    assert is_mean(by_score - through_z, torch.zeros(2 * D).double()).all()
    assert (through_z.mean(0).abs() > 0.05).any()


def test_the_score_function_needs_no_gradient_for_z() -> None:
    """p(x | z) = N(sign z, 1) in one dimension, where E_q log p(x | z) is a mean of two values."""

    def log_joint_of_sign(x: Tensor, z: Tensor) -> Tensor:
        return (Normal(z.sign(), 1).log_prob(x) + Normal(0, 1).log_prob(z)).sum(1)

    mu, log_sigma = MU.clone().requires_grad_(), LOG_SIGMA.clone().requires_grad_()
    positive = Normal(0, 1).cdf(mu / log_sigma.exp())
    ends = Normal(torch.tensor([[1.0], [-1.0]]).double(), 1).log_prob(X)
    exact = (positive * ends[0] + (1 - positive) * ends[1]).sum() - ops.gaussian_kl(mu[None], log_sigma[None])[0]
    expected = torch.cat(torch.autograd.grad(exact, (mu, log_sigma)))
    assert is_mean(gradients(score_function_bound, log_joint_of_sign), expected).all()
    # Through z it is that of the prior and the entropy alone.
    assert not is_mean(gradients(reparameterised_bound, log_joint_of_sign), expected)[:D].any()


def printed_eq_8(log_density, x: Tensor, mu: Tensor, log_sigma: Tensor, noise: Tensor) -> Tensor:
    """Paper 004, eq. 8: the mean of the gradients of log p - log q at z from q, which says nothing of z(mu, sigma)."""
    z = (mu + log_sigma.exp() * noise[0]).detach()
    return log_density(x, z) - Normal(mu, log_sigma.exp()).log_prob(z).sum(1)


def printed_eq_9(log_density, x: Tensor, mu: Tensor, log_sigma: Tensor, noise: Tensor) -> Tensor:
    """The same without log p, and now with z of eq. 11, as section 5.4 has it."""
    z = mu + log_sigma.exp() * noise[0]
    return -Normal(mu, log_sigma.exp()).log_prob(z).sum(1)


def test_the_gradients_as_printed_in_paper_004_are_not_those_of_the_bound() -> None:
    expected = exact_gradient()
    assert (expected.abs() > 0.05).all()
    of_eq_8 = gradients(printed_eq_8, log_joint)
    assert not is_mean(of_eq_8, expected).any()
    assert is_mean(of_eq_8, torch.zeros(2 * D).double()).all()  # the mean of a score is 0, whatever p is
    of_eq_9 = gradients(printed_eq_9, log_joint)
    assert not is_mean(of_eq_9, expected).any()
    # Section 5.4 has this gradient right: it is that of log det dz / dnoise = sum log sigma.
    torch.testing.assert_close(of_eq_9, torch.tensor([0.0, 0.0, 1.0, 1.0]).double().expand(COUNT, 4))


@pytest.mark.parametrize("bound", [reparameterised_bound, score_function_bound])
def test_the_decoders_gradient_is_the_mean_over_samples(bound) -> None:
    """Paper 002, the derivative for theta; paper 004, eq. 6 and 7."""
    samples = 5
    noise, c = torch.randn(samples, 1, D, dtype=torch.float64), torch.tensor(1.3).double().requires_grad_()

    def of_c(x: Tensor, z: Tensor) -> Tensor:
        return Normal(c * z, 0.9).log_prob(x).sum(1)

    (found,) = torch.autograd.grad(bound(of_c, X[None], MU[None], LOG_SIGMA[None], noise).sum(), c)
    z = MU + LOG_SIGMA.exp() * noise[:, 0]
    one_by_one = ((X - 1.3 * z) * z / 0.9**2).sum(1)
    torch.testing.assert_close(found, one_by_one.mean())


@pytest.mark.parametrize(
    ("bound", "log_density"),
    [
        (reparameterised_bound, log_joint),
        (reparameterised_bound_with_kl, log_likelihood),
        (score_function_bound, log_joint),
    ],
)
def test_samples_are_averaged_and_their_mean_is_the_bound(bound, log_density) -> None:
    samples, exact = 16, model()
    x = torch.randn(1000, D, dtype=torch.float64)
    mu, log_sigma = (tensor.detach() for tensor in exact.encode(x))
    noise = torch.randn(samples, 1000, D, dtype=torch.float64)
    alone = torch.stack([bound(log_density, x, mu, log_sigma, one[None]) for one in noise])
    together = bound(log_density, x, mu, log_sigma, noise)
    torch.testing.assert_close(together, alone.mean(0))
    off = alone - exact.elbo(x).detach()
    assert is_mean(off.reshape(-1, 1), torch.zeros(1).double()).all()
    of_all = (together - exact.elbo(x).detach()).square().mean()
    assert of_all.item() == pytest.approx(off.square().mean().item() / samples, rel=0.2)


def test_values_do_not_depend_on_the_kind_of_gradient() -> None:
    noise = torch.randn(3, 1, D, dtype=torch.float64)
    for log_density in (log_joint, sine_log_joint):
        through_z, by_score = (
            bound(log_density, X[None], MU[None], LOG_SIGMA[None], noise)
            for bound in (reparameterised_bound, score_function_bound)
        )
        torch.testing.assert_close(through_z, by_score)


def test_with_one_sample_it_is_the_loss_of_a_vae() -> None:
    vae = Vae(VaeConfig(latent=3, hidden=(8,), height=5, width=4, channels=2)).double()
    image, noise = torch.rand(6, 2, 5, 4, dtype=torch.float64), vae.noise(6)
    output = vae(image, None, None, noise)

    def log_likelihood(x: Tensor, z: Tensor) -> Tensor:
        return -vae.negative_log_likelihood(vae.decode(z)[-1], x)

    bound = reparameterised_bound_with_kl(log_likelihood, image, *vae.posterior(image), noise)
    torch.testing.assert_close(-bound, output.nll + output.kl[0])
    weights = list(vae.parameters())
    of_bound = torch.autograd.grad(-bound.sum(), weights)
    of_loss = torch.autograd.grad((output.nll + output.kl[0]).sum(), weights)
    torch.testing.assert_close(of_bound, of_loss)
    sampled = vae(image, None, None, noise, sampled_kl=True)

    def log_joint(x: Tensor, z: Tensor) -> Tensor:
        return log_likelihood(x, z) + Normal(0, 1).log_prob(z).sum(1)

    bound = reparameterised_bound(log_joint, image, *vae.posterior(image), noise)
    torch.testing.assert_close(-bound, sampled.nll + sampled.kl[0])


ZERO, NOISE = torch.zeros(4, 3), torch.zeros(2, 4, 3)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"noise": NOISE[0]}, ValueError, r"noise must have shape \(S, B, Z\) .*, got \(4, 3\)"),
        ({"noise": NOISE[:, :2]}, ValueError, r"noise must have shape .* B = 4 \(from mu\), .* got \(2, 2, 3\)"),
        ({"noise": NOISE[:0]}, ValueError, r"noise must hold at least 1 sample, got shape \(0, 4, 3\)"),
        ({"log_sigma": ZERO.double()}, TypeError, "log_sigma is float64 and mu is float32"),
        ({"x": ZERO[:1]}, ValueError, r"x must have shape \(B, ...\) with B = 4 \(from mu\), got \(1, 3\)"),
        ({"x": ZERO.sum()}, ValueError, r"x must have shape \(B, ...\) with B = 4 \(from mu\), got \(\)"),
        ({"x": [1.0]}, TypeError, "x must be a tensor, got list"),
    ],
)
@pytest.mark.parametrize("name", ["reparameterised_bound", "reparameterised_bound_with_kl", "score_function_bound"])
def test_what_does_not_fit_is_named(name: str, changes: dict, error: type[Exception], words: str) -> None:
    good = {"x": ZERO, "mu": ZERO, "log_sigma": ZERO, "noise": NOISE}
    with pytest.raises(error, match=f"^{name}: {words}"):
        getattr(estimators, name)(lambda x, z: z.sum(1), **(good | changes))


@pytest.mark.parametrize("name", ["reparameterised_bound", "reparameterised_bound_with_kl", "score_function_bound"])
def test_a_density_that_is_not_one_number_is_named(name: str) -> None:
    for density, shape in ((lambda x, z: z, r"\(8, 3\)"), (lambda x, z: z.sum(), r"\(\)")):
        with pytest.raises(ValueError, match=rf"^{name}: a log-density must .* shape \(8,\), got {shape}; sum over"):
            getattr(estimators, name)(density, ZERO, ZERO, ZERO, NOISE)
