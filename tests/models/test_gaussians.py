"""KL and log-density of full covariances: torch's, those of samples, and not what papers 002 and 004 misprint."""

import doctest

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from fastdraw import ops
from fastdraw.models import gaussians
from fastdraw.models.gaussians import gaussian_kl_full, gaussian_log_density

B, K = 4, 5


def mean(batch: int = B, size: int = K) -> Tensor:
    return torch.randn(batch, size, dtype=torch.float64)


def covariance(batch: int = B, size: int = K) -> Tensor:
    return spread(torch.randn(batch, size, size, dtype=torch.float64))


def spread(root: Tensor) -> Tensor:
    return root @ root.mT / root.shape[-1] + 0.1 * torch.eye(root.shape[-1], dtype=root.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 2, 5, 31])
def test_kl_and_density_equal_torch(dtype: torch.dtype, size: int) -> None:
    mu_q, mu_p, x = mean(size=size), mean(size=size), mean(size=size)
    cov_q, cov_p = covariance(size=size), covariance(size=size)
    q, p = MultivariateNormal(mu_q, cov_q), MultivariateNormal(mu_p, cov_p)
    tolerance = {} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}
    kl = gaussian_kl_full(*(tensor.to(dtype) for tensor in (mu_q, cov_q, mu_p, cov_p)))
    assert kl.dtype == dtype
    torch.testing.assert_close(kl.double(), kl_divergence(q, p), **tolerance)
    density = gaussian_log_density(*(tensor.to(dtype) for tensor in (x, mu_q, cov_q)))
    torch.testing.assert_close(density.double(), q.log_prob(x), **tolerance)


def test_kl_is_the_mean_log_ratio_of_samples() -> None:
    count = 100_000
    mu_q, cov_q, mu_p, cov_p = mean(1, 3), covariance(1, 3), mean(1, 3), covariance(1, 3)
    x = MultivariateNormal(mu_q[0], cov_q[0]).sample((count,))
    of_q, of_p = (
        gaussian_log_density(x, mu.expand(count, 3), cov.expand(count, 3, 3))
        for mu, cov in ((mu_q, cov_q), (mu_p, cov_p))
    )
    ratio = of_q - of_p
    assert abs(ratio.mean() - gaussian_kl_full(mu_q, cov_q, mu_p, cov_p)[0]) < 4 * ratio.std() / count**0.5


def test_kl_of_diagonals_is_that_of_the_op() -> None:
    mu_q, mu_p, log_sigma_q, log_sigma_p = mean(), mean(), mean(), mean()
    cov_q, cov_p = (torch.diag_embed((2 * log_sigma).exp()) for log_sigma in (log_sigma_q, log_sigma_p))
    full = gaussian_kl_full(mu_q, cov_q, mu_p, cov_p)
    torch.testing.assert_close(full, ops.gaussian_kl(mu_q, log_sigma_q, mu_p, log_sigma_p))
    standard = gaussian_kl_full(mu_q, cov_q, torch.zeros_like(mu_p), torch.eye(K).double().expand(B, K, K))
    torch.testing.assert_close(standard, ops.gaussian_kl(mu_q, log_sigma_q))
    variance = (2 * log_sigma_q).exp()
    torch.testing.assert_close(standard, (-variance.log() - 1 + variance + mu_q**2).sum(1) / 2)  # 002, eq. 6


def test_kl_is_zero_of_equals_and_positive_else() -> None:
    mu, cov = mean(), covariance()
    torch.testing.assert_close(gaussian_kl_full(mu, cov, mu, cov), torch.zeros(B).double(), atol=1e-12, rtol=0)
    assert (gaussian_kl_full(mu, cov, mu, 1.01 * cov) > 0).all()
    assert (gaussian_kl_full(mu, cov, mu + 0.1, cov) > 0).all()


def test_kl_is_not_symmetric_and_no_basis_changes_it() -> None:
    mu_q, cov_q, mu_p, cov_p = mean(), covariance(), mean(), covariance()
    kl = gaussian_kl_full(mu_q, cov_q, mu_p, cov_p)
    assert ((kl - gaussian_kl_full(mu_p, cov_p, mu_q, cov_q)).abs() > 0.01).all()
    basis = torch.eye(K).double() + torch.randn(K, K, dtype=torch.float64) / 5
    of_q, of_p = ((mu @ basis.mT, basis @ cov @ basis.mT) for mu, cov in ((mu_q, cov_q), (mu_p, cov_p)))
    torch.testing.assert_close(gaussian_kl_full(*of_q, *of_p), kl)


def kl_and_density(mu_q: Tensor, root_q: Tensor, mu_p: Tensor, root_p: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of roots, whose every change leaves a covariance."""
    cov_q, cov_p = spread(root_q), spread(root_p)
    return gaussian_kl_full(mu_q, cov_q, mu_p, cov_p), gaussian_log_density(x, mu_q, cov_q)


def test_gradients() -> None:
    shapes = ((2, 2), (2, 2, 2), (2, 2), (2, 2, 2), (2, 2))
    arguments = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(kl_and_density, arguments)


@pytest.mark.parametrize(("batch", "size"), [(0, K), (2, 0)])
def test_nothing_costs_nothing(batch: int, size: int) -> None:
    mu, cov = torch.zeros(batch, size), torch.zeros(batch, size, size)
    assert gaussian_kl_full(mu, cov, mu, cov).tolist() == [0] * batch
    assert gaussian_log_density(mu, mu, cov).tolist() == [0] * batch


def test_the_quadratic_form_is_a_trace_and_a_square() -> None:
    """Paper 002, eq. 4, on which its eq. 5 stands: the two sub-terms between are means of 0."""
    count = 200_000
    mu_1, cov_1, mu_2, cov_2 = mean(1, 3)[0], covariance(1, 3)[0], mean(1, 3)[0], covariance(1, 3)[0]
    x, inverse = MultivariateNormal(mu_1, cov_1).sample((count,)), cov_2.inverse()
    forms = ((x - mu_2) @ inverse * (x - mu_2)).sum(1)
    gap = mu_1 - mu_2
    expected = (cov_1 @ inverse).trace() + gap @ inverse @ gap
    assert abs(forms.mean() - expected) < 4 * forms.std() / count**0.5
    between = (x - mu_1) @ inverse @ gap
    assert abs(between.mean()) < 4 * between.std() / count**0.5


def test_the_expanded_square_as_printed_in_paper_002_lacks_a_factor() -> None:
    """(A^T + B^T) C (A + B) ends in B^T C B; printed is B^T B."""
    a, b, c = mean(1, 3)[0], mean(1, 3)[0], covariance(1, 3)[0]
    square, others = (a + b) @ c @ (a + b), a @ c @ a + a @ c @ b + b @ c @ a
    torch.testing.assert_close(others + b @ c @ b, square)
    assert abs(others + b @ b - square) > 0.01


def printed_kl(mu: Tensor, sigma: Tensor) -> Tensor:
    """KL(N(mu, sigma^2 I) || N(0, I)) as sections 6.4 and 6.6 of paper 004 print it: log sigma once, not d times."""
    d = len(mu)
    return (sigma**2 * d - d + mu @ mu - 2 * sigma.log()) / 2


def isotropic_kl(mu: Tensor, sigma: Tensor) -> Tensor:
    d = len(mu)
    return (sigma**2 * d - d + mu @ mu - 2 * d * sigma.log()) / 2


def test_the_kl_as_printed_in_paper_004_is_none() -> None:
    mu, sigma, one = mean(1, 64), torch.tensor(0.5).double(), torch.eye(64).double()[None]
    right = gaussian_kl_full(mu, sigma**2 * one, torch.zeros_like(mu), one)[0]
    torch.testing.assert_close(isotropic_kl(mu[0], sigma), right)
    assert right - printed_kl(mu[0], sigma) > 43  # 63 log 2
    assert printed_kl(0 * mu[0], sigma) < 0  # which no divergence is


def test_the_best_sigma_is_one_and_not_that_of_the_print() -> None:
    mu, one = mean(1, 64)[0], torch.ones((), dtype=torch.float64)
    for kl, best in ((isotropic_kl, one), (printed_kl, one / 8)):
        sigma = best.clone().requires_grad_()
        (slope,) = torch.autograd.grad(kl(mu, sigma), sigma)
        torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-12, rtol=0)


ZERO, EYE = torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3)
INDEFINITE = torch.stack([torch.eye(3), torch.ones(3, 3) - torch.eye(3)])
SKEW = torch.stack([torch.eye(3), torch.eye(3) + torch.eye(3).roll(1, 0) / 10])
HALVES = (ZERO.half(), EYE.half())


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((ZERO, EYE[:, :2], ZERO, EYE), ValueError, r"cov_q must have shape \(B, K, K\) with .*, got \(2, 2, 3\)"),
        ((ZERO, EYE, ZERO, ZERO), ValueError, r"cov_p must have shape \(B, K, K\) with .*, got \(2, 3\)"),
        ((ZERO, EYE, ZERO[:1], EYE), ValueError, r"mu_p must have shape \(B, K\) with B = 2 .*, got \(1, 3\)"),
        ((ZERO, EYE, ZERO.double(), EYE), TypeError, "mu_p is float64 and mu_q is float32"),
        ((ZERO.tolist(), EYE, ZERO, EYE), TypeError, "mu_q must be a tensor, got list"),
        (HALVES * 2, TypeError, r"cov_q must be float32 or float64, got float16; call float\(\)"),
        ((ZERO, SKEW, ZERO, EYE), ValueError, r"cov_q must be symmetric, got one that is not at cov_q\[1\]"),
        ((ZERO, EYE, ZERO, INDEFINITE), ValueError, r"cov_p must be positive definite, got .* at cov_p\[1\]"),
        ((ZERO, EYE * 0, ZERO, EYE), ValueError, r"cov_q must be positive definite, got .* at cov_q\[0\]"),
        ((ZERO, EYE, ZERO, EYE * torch.nan), ValueError, r"cov_p must be positive definite, got .* at cov_p\[0\]"),
    ],
)
def test_what_is_no_gaussian_is_named(arguments: tuple, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^gaussian_kl_full: {words}"):
        gaussian_kl_full(*arguments)


def test_the_density_names_what_is_wrong_too() -> None:
    with pytest.raises(ValueError, match=r"^gaussian_log_density: x must have shape \(B, K\), got \(3,\)"):
        gaussian_log_density(ZERO[0], ZERO, EYE)
    with pytest.raises(ValueError, match=r"^gaussian_log_density: cov must be symmetric, got .* at cov\[1\]"):
        gaussian_log_density(ZERO, ZERO, SKEW)


def test_rounding_is_no_asymmetry() -> None:
    cov = covariance().float()
    rounded = cov + 1e-6 * torch.rand_like(cov) * cov.diagonal(dim1=1, dim2=2).amin()
    assert not torch.equal(rounded, rounded.mT)
    assert gaussian_log_density(torch.zeros(B, K), torch.zeros(B, K), rounded).isfinite().all()


def test_examples_of_the_docstrings() -> None:
    failed, tried = doctest.testmod(gaussians)
    assert (failed, tried) == (0, 3)
