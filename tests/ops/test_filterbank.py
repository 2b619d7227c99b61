"""What a Gaussian filterbank is: where its filters sit, what they sum to, and that nothing in it can overflow."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import fastdraw
from fastdraw import ops, reference
from fastdraw.reference.filterbank import window_geometry

from .cases import Inputs, Run, every_run
from .generated import example, given, st

FILTERBANK = every_run("gaussian_filterbank")
STRIDES = pytest.mark.parametrize("stride", ["max", "per_axis"])


@STRIDES
@FILTERBANK
@given(n=st.integers(2, 40), width=st.integers(2, 80))
def test_outermost_filters_sit_on_the_first_and_last_pixel(run: Run, stride: str, n: int, width: int) -> None:
    narrow = torch.tensor([[0.0, 0.0, -4.0, 0.0, 0.0]], device=run.device)
    _, fx, gamma = run(window=narrow, n=n, size=(min(width, 7), width), stride=stride)
    assert fx[0, 0].argmax() == 0
    assert fx[0, -1].argmax() == width - 1
    assert gamma.item() == 1.0


@STRIDES
@pytest.mark.parametrize("n", [1, 2, 5, 12])
@pytest.mark.parametrize("size", [(32, 64), (9, 9), (5, 1)], ids=str)
def test_centres_of_the_zero_window(size: tuple[int, int], n: int, stride: str) -> None:
    height, width = size
    at = window_geometry(torch.zeros(1, 5, dtype=torch.float64), n, size, stride=stride)
    assert at.gx.item() == (width - 1) / 2
    assert at.gy.item() == (height - 1) / 2
    if n > 1 and (stride == "per_axis" or width >= height):
        assert at.gx.item() - (n - 1) / 2 * at.delta_x.item() == pytest.approx(0, abs=1e-12)
        assert at.gx.item() + (n - 1) / 2 * at.delta_x.item() == pytest.approx(width - 1)
    if stride == "max":
        assert at.delta_x.item() == at.delta_y.item()


@FILTERBANK
def test_values_of_one_filter(run: Run) -> None:
    window = torch.tensor([[0.1, -0.2, 0.6, -0.3, 0.4]], dtype=torch.float64, device=run.device)
    fy, fx, gamma = run(window=window, n=3, size=(4, 6), stride="per_axis", eps=1e-3)
    sigma2, delta = torch.tensor([0.6, -0.3], dtype=torch.float64).exp()
    for filters, length, g in ((fx[0], 6, 0.1), (fy[0], 4, -0.2)):
        for i in range(3):
            mu = (length + 1) / 2 * (g + 1) - 1 + (i - 1) * (length - 1) / 2 * delta
            e = torch.stack([torch.exp(-((a - mu) ** 2) / (2 * sigma2)) for a in range(length)])
            torch.testing.assert_close(filters[i].cpu(), e / (e.sum() + 1e-3))
    assert gamma.item() == pytest.approx(1.4918246976412703)


@FILTERBANK
def test_filters_inside_the_image_sum_to_one(run: Run) -> None:
    window = torch.rand(16, 5, device=run.device) - 0.5
    window[:, 3] -= 2
    for filters in run(window=window, n=5, size=(32, 64))[:2]:
        torch.testing.assert_close(filters.sum(-1), torch.ones(16, 5, device=run.device))


@FILTERBANK
def test_one_filter_ignores_the_spacing(run: Run) -> None:
    window = torch.zeros(2, 5, device=run.device)
    window[1, 3] = 7.0
    window.requires_grad_()
    fy, fx, _ = run(window=window, n=1, size=(5, 8))
    assert torch.equal(fx[0], fx[1])
    assert torch.equal(fy[0], fy[1])
    (gradient,) = torch.autograd.grad(fx.square().sum() + fy.square().sum(), window)
    assert not gradient[:, 3].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
@FILTERBANK
@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=5, max_size=5), n=st.integers(1, 6))
@example(values=[0.0, 0.0, -1e300, 1e300, 1e300], n=4)
@example(values=[1e300, -1e300, -1e300, -1e300, -1e300], n=4)
@example(values=[0.5, 0.25, -31.0, -31.0, 0.0], n=3)
def test_any_finite_window_gives_finite_values_and_gradients(
    run: Run, dtype: torch.dtype, values: list[float], n: int
) -> None:
    limits = torch.finfo(dtype)
    window = torch.tensor([values], dtype=torch.float64).clamp(limits.min, limits.max).to(dtype).to(run.device)
    window.requires_grad_()
    outputs = run(window=window, n=n, size=(7, 12))
    (gradient,) = torch.autograd.grad([y.sum() for y in outputs[:2]], window)
    assert all(y.isfinite().all() for y in outputs)
    assert gradient.isfinite().all()


@FILTERBANK
def test_gradients_end_where_the_ranges_do(run: Run) -> None:
    window = torch.tensor([[2e6, -2e6, 33.0, -33.0, 33.0]], device=run.device, requires_grad=True)
    (gradient,) = torch.autograd.grad([y.sum() for y in run(window=window, n=3, size=(4, 5))], window)
    assert not gradient.any()


def test_options_reach_the_op() -> None:
    window = torch.zeros(1, 5)
    results = [
        ops.gaussian_filterbank(window, 4, (8, 16), **options)[0]
        for options in ({}, {"stride": "per_axis"}, {"eps": 1.0})
    ]
    assert not torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_gradient_is_as_exact_as_its_terms() -> None:
    """Sums that cancel: the error is held against the sum of the absolute terms, also far off the image."""
    inputs = Inputs("terms", torch.float32, "cpu")
    window = torch.cat([inputs.window(40, *columns) for columns in [(), (-1.5, 1.5), (1.3, -1.3, -1.0)]])
    upstream = inputs.normal(len(window), 5 * (9 + 17) + 1)

    def flat(op: Callable[..., Any], window: torch.Tensor) -> torch.Tensor:
        fy, fx, gamma = op(window, 5, (9, 17))
        return torch.cat([fy.flatten(1), fx.flatten(1), gamma[:, None]], dim=1)

    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: flat(reference.gaussian_filterbank, x[None])[0]))
    terms = jacobian(window.double()) * upstream.double()[:, :, None]
    with fastdraw.backend("cpu"):
        _, pullback = torch.func.vjp(lambda x: flat(ops.gaussian_filterbank, x), window)
        (gradient,) = pullback(upstream)
    error = (gradient.double() - terms.sum(1)).abs()
    limits = torch.finfo(torch.float32)
    assert (error <= 4 * limits.eps * terms.abs().sum(1).clamp(min=limits.tiny)).all()
