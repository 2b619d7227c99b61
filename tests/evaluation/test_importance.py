"""The importance-weighted bound: from the ordinary bound for one sample to the likelihood itself for many."""

import math

import numpy as np
import pytest
import torch

from fastdraw import ops
from fastdraw.data import Batch, ImageStream, LabelledImages
from fastdraw.dispatch import backend
from fastdraw.errors import FastdrawError
from fastdraw.evaluation import bounds_by_image, importance, importance_weighted_bound
from fastdraw.models import Draw, DrawConfig

SIZES = {"height": 3, "width": 4, "hidden": 6, "latent": 1, "n_read": 2, "n_write": 2, "align": 4, "positions": 2}


def tiny(**changes) -> Draw:
    """A model of two steps with a posterior beside and wider than its prior, so that weights differ and stay finite."""
    model = Draw(DrawConfig(**SIZES | {"steps_per_label": 1} | changes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.1 if name in ("posterior", "prior") else 0.5)
        model.posterior_bias.copy_(torch.tensor([0.5, 0.8 if model.config.log_variance else 0.4]))
        model.prior_bias.copy_(torch.tensor([-0.5, 0.0]))
    return model


@pytest.fixture
def source() -> ImageStream:
    images = torch.randint(256, (20, 1, 3, 4), dtype=torch.uint8)
    labels, lengths = torch.randint(10, (20, 2)), torch.full((20,), 2)
    return ImageStream(LabelledImages(images, labels, lengths), (0, 1), 16, seed=0, binarise=True)


def first(source: ImageStream, batches: int) -> list[Batch]:
    return [source.batch(index) for index in range(batches)]


def exact(model: Draw, batch: Batch) -> torch.Tensor:
    """-log p(x) of each image, its integral over the z of two steps by Gauss-Hermite quadrature."""
    points, weights = (torch.from_numpy(x).float() for x in np.polynomial.hermite_e.hermegauss(40))
    noise = torch.cartesian_prod(points, points).T[..., None]  # (2, 1600, 1)
    log_weights = torch.cartesian_prod(*(weights / weights.sum(),) * 2).log().sum(1)
    found = []
    for image, labels, lengths in zip(*batch, strict=True):
        canvas = model.sample(labels.expand(1600, -1), lengths.expand(1600), noise)
        found.append(-(log_weights - ops.bernoulli_nll(canvas, image.expand_as(canvas))).logsumexp(0))
    return torch.stack(found)


@pytest.mark.parametrize(
    "changes",
    [{}, {"log_variance": True, "first_prior": "standard", "prior_activation": "tanh"}, {"labels": "none"}],
    ids=["plain", "options", "no-labels"],
)
def test_many_samples_give_the_likelihood_itself(source, changes) -> None:
    model = tiny(**changes)
    found = importance_weighted_bound(model, first(source, 1), 4000)
    expected = exact(model, source.batch(0))
    assert found.bound == pytest.approx(expected.mean().item(), abs=0.01)
    assert found.error == pytest.approx(expected.std().item() / 4, abs=0.01)
    assert importance_weighted_bound(model, first(source, 4), 1).bound > found.bound + 0.1


def test_one_sample_estimates_the_ordinary_bound(source) -> None:
    model, batch = tiny(), source.batch(0)
    many = ImageStream(
        LabelledImages((batch.image * 255).byte(), batch.labels, batch.lengths), (0, 1), 16_000, 1, binarise=True
    )
    found = importance_weighted_bound(model, [many.batch(0)], 1)
    with torch.no_grad():
        image, labels, lengths = many.batch(0)
        output = model(image, labels, lengths, model.noise(16_000, 2))
    ordinary = output.nll + output.kl.sum(0)
    assert abs(found.bound - ordinary.mean()) < 4 * math.hypot(found.error, ordinary.std() / 16_000**0.5)


def test_the_bound_falls_with_more_samples(source) -> None:
    model = tiny()
    bounds = [importance_weighted_bound(model, first(source, 10), samples).bound for samples in (1, 4, 16, 64)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > bounds[-1] + 0.1


def test_kernels_and_reference_agree_and_the_random_state_is_left_alone(source) -> None:
    model, random = tiny(), torch.get_rng_state()
    found = importance_weighted_bound(model, first(source, 2), 5)
    assert found == importance_weighted_bound(model, first(source, 2), 5)
    with backend("reference"):
        assert found == pytest.approx(importance_weighted_bound(model, first(source, 2), 5), rel=1e-5)
    assert torch.equal(torch.get_rng_state(), random)


def test_samples_go_through_the_model_in_parts(source, monkeypatch) -> None:
    model, seen = tiny(), []
    monkeypatch.setattr(importance, "ROWS", 40)
    monkeypatch.setattr(
        model, "noise", lambda rows, length, generator: seen.append(rows) or Draw.noise(model, rows, length, generator)
    )
    importance_weighted_bound(model, first(source, 1), 5)
    assert seen == [32, 32, 16]


def test_samples_are_weighed_image_by_image(source, monkeypatch) -> None:
    """Against one image and one sample at a time, with the noise that the whole batch had."""
    model, batch = tiny(), source.batch(0)
    noise = model.noise(3 * 16, 2, torch.Generator().manual_seed(importance.SEED)).view(2, 3, 16, 1)
    expected = []
    for b in range(16):
        one = Batch(*(tensor[b : b + 1] for tensor in batch))
        weights = [model(*one, noise[:, k, b : b + 1], sampled_kl=True) for k in range(3)]
        expected.append(-torch.stack([torch.exp(-w.nll - w.kl.sum()) for w in weights]).mean().log())
    found = bounds_by_image(model, first(source, 1), 3)
    assert found.tolist() == pytest.approx(torch.stack(expected).tolist())
    assert importance_weighted_bound(model, first(source, 1), 3).bound == pytest.approx(found.mean().item())


@pytest.mark.parametrize(
    ("batches", "samples", "message"),
    [(1, 0, "needs at least 1 sample of z, got 0"), (0, 1, "needs at least 2 images, got 0: ask for more")],
)
def test_too_little_is_refused(source, batches, samples, message) -> None:
    with pytest.raises(FastdrawError, match=message):
        importance_weighted_bound(tiny(), first(source, batches), samples)
