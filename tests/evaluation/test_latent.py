"""Codes: decoding an image's code gives its reconstruction, whatever the model, and so at the ends of every way."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from fastdraw.data import Batch
from fastdraw.errors import FastdrawError
from fastdraw.evaluation import (
    active_units,
    code_variance,
    codes_between,
    decode,
    decode_stages,
    embed,
    interpolate,
    kl_by_dimension,
    largest_dimensions,
    places_of_codes,
    traverse,
    traverse_plane,
)
from fastdraw.evaluation import latent as module
from fastdraw.models import Draw, DrawConfig, Model, Vae, VaeConfig

SIZE = {"height": 6, "width": 5}
DRAW = {"hidden": 8, "n_read": 2, "n_write": 3, "align": 4, "steps_per_label": 2, "positions": 2}
COUNT = 7
GREY = {"likelihood": "gaussian", "sigma": 0.5}


def vae(latent: int = 3, **changes) -> Vae:
    model = Vae(VaeConfig(latent=latent, hidden=(8,), refiner_width=4, blocks=1, **SIZE, **changes)).eval()
    return spread(model)


def draw(**changes) -> Draw:
    return spread(Draw(DrawConfig(latent=3, **SIZE, **DRAW, **changes)).eval())


def spread(model):
    """The model with codes and images that differ clearly from image to image."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2).add_(0.1 * torch.randn_like(parameter))
    return model


MODELS = {
    "vae": vae,
    "one-number": lambda: vae(1),
    "stages": lambda: vae(refiners=2, **GREY),
    "draw": draw,
    "plain-draw": lambda: draw(labels="none"),
    "alignment": lambda: draw(labels="words", prior_activation="tanh", first_prior="standard", log_variance=True),
}
models = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


@pytest.fixture
def batch() -> Batch:
    labels = torch.randint(10, (COUNT, 2))
    return Batch(torch.rand(COUNT, 1, *SIZE.values()), labels, torch.full((COUNT,), 2))


def reconstruction(model: Model, batch: Batch) -> Tensor:
    """What the model makes of images without noise, step by step in its own forward pass."""
    with torch.no_grad():
        output = model(*batch, model.noise(len(batch.image), 2).zero_())
        return model.expected(output.canvas)


@models
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_the_code_of_an_image_decodes_to_its_reconstruction(make, chunk: int, batch, monkeypatch) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    model = make()
    codes = embed(model, batch)
    assert codes.shape == model.noise(COUNT, 2).shape
    found = decode(model, codes, batch.labels, batch.lengths)
    torch.testing.assert_close(found, reconstruction(model, batch), atol=1e-5, rtol=1e-5)
    assert found.std(0).max() > 1e-3, "the images of a code depend on it"


def test_the_last_stage_is_what_is_decoded_and_stages_differ(batch) -> None:
    model = vae(refiners=2, **GREY)
    codes = embed(model, batch)
    stages = decode_stages(model, codes)
    assert len(stages) == 3
    assert torch.equal(stages[-1], decode(model, codes))
    assert all((a - b).abs().max() > 1e-3 for a, b in pairwise(stages))
    assert all(stage.min() >= 0 and stage.max() <= 1 for stage in stages)
    with torch.no_grad():
        expected = model(*batch, torch.zeros(1, COUNT, 3)).stages
    for stage, output in zip(stages, expected, strict=True):
        torch.testing.assert_close(stage, output.clamp(0, 1))


@models
@pytest.mark.parametrize("line", [False, True], ids=["arc", "line"])
def test_a_way_starts_and_ends_at_the_reconstructions(make, line: bool, batch) -> None:
    model = make()
    first, last = (Batch(*(tensor[rows] for tensor in batch)) for rows in (slice(0, 3), slice(3, 6)))
    images = interpolate(model, first, last, 5, line)
    assert images.shape == (5, 3, 1, *SIZE.values())
    torch.testing.assert_close(images[0], reconstruction(model, first), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(images[-1], reconstruction(model, last), atol=1e-5, rtol=1e-5)


def test_an_image_on_a_way_has_the_labels_of_the_nearer_end(batch) -> None:
    model = draw()
    first, last = (Batch(*(tensor[row : row + 1] for tensor in batch)) for row in (0, 1))
    last = last._replace(image=first.image)
    images = interpolate(model, first, last, 4)
    codes = codes_between(embed(model, first), embed(model, last), 4)
    for step, end in enumerate((first, first, last, last)):
        torch.testing.assert_close(images[step], decode(model, codes[step], end.labels, end.lengths))


def test_an_arc_keeps_the_norm_and_its_steps_are_equal() -> None:
    first, last = torch.randn(2, 2, 5, 3)  # T = 2, B = 5
    first, last = (code / code.transpose(0, 1).flatten(1).norm(dim=1)[:, None] for code in (first, last))
    arc = codes_between(first, last, 9)
    flat = arc.transpose(1, 2).flatten(2)  # (S, B, T Z)
    torch.testing.assert_close(flat.norm(dim=2), torch.ones(9, 5))
    angles = (flat[1:] * flat[:-1]).sum(2).clamp(-1, 1).acos()
    torch.testing.assert_close(angles, angles[:1].expand(8, 5), atol=2e-3, rtol=1e-3)
    assert torch.equal(arc[0], first)
    assert torch.equal(arc[-1], last)


def test_an_arc_goes_evenly_from_the_norm_of_one_end_to_that_of_the_other() -> None:
    """However far apart their directions are: where they are nearly opposite, two sines are nearly 0."""
    angles = torch.tensor([0.01, 1.0, 3.0, 3.135])
    first, last = 2 * torch.eye(2)[:1].expand(1, 4, 2), 6 * torch.stack([angles.cos(), angles.sin()], 1)[None]
    arc = codes_between(first, last, 5)[:, 0]  # (S, B, Z)
    torch.testing.assert_close(arc.norm(dim=2), torch.linspace(2, 6, 5)[:, None].expand(5, 4), rtol=1e-3, atol=0)
    found = torch.atan2(arc[..., 1], arc[..., 0])
    torch.testing.assert_close(found, torch.linspace(0, 1, 5)[:, None] * angles, rtol=1e-3, atol=1e-5)
    assert codes_between(torch.zeros(1, 1, 2), first[:, :1], 3).flatten(2).norm(dim=2).flatten().tolist() == [0, 1, 2]


def test_a_line_is_straight_and_the_way_where_there_is_no_arc() -> None:
    first, last = torch.randn(2, 1, 4, 6)
    share = torch.tensor([0, 0.25, 0.5, 0.75, 1]).view(5, 1, 1, 1)
    torch.testing.assert_close(codes_between(first, last, 5, line=True), first + share * (last - first))
    # Opposite codes, equal ones, and codes of one number lie on one line through 0.
    for other in (-2 * first, first):
        torch.testing.assert_close(codes_between(first, other, 5), first + share * (other - first))
    torch.testing.assert_close(
        codes_between(first[..., :1], last[..., :1], 5), codes_between(first[..., :1], last[..., :1], 5, line=True)
    )


@models
def test_a_number_at_its_own_value_gives_the_reconstruction_and_elsewhere_not(make, batch) -> None:
    model = make()
    one = Batch(*(tensor[:1] for tensor in batch))
    code = embed(model, one)
    rows = [(step, number) for step in range(code.shape[0]) for number in range(code.shape[2])]
    for step, number in rows:
        own = code[step, 0, number]
        images = traverse(model, code, [(step, number)], torch.stack([own - 4, own, own + 4]), one.labels, one.lengths)
        assert images.shape == (1, 3, 1, *SIZE.values())
        torch.testing.assert_close(images[0, 1:2], reconstruction(model, one), atol=1e-5, rtol=1e-5)
        assert (images[0, 0] - images[0, 2]).abs().max() > 1e-4
    assert torch.equal(code, embed(model, one)), "the code is left as it was"


def test_rows_of_a_traversal_are_its_dimensions_and_columns_its_values(batch) -> None:
    model = draw()
    one = Batch(*(tensor[:1] for tensor in batch))
    code, values = embed(model, one), torch.tensor([-1.0, 0.5])
    dimensions = [(3, 0), (0, 2), (1, 1)]
    images = traverse(model, code, dimensions, values, one.labels, one.lengths)
    for row, (step, number) in enumerate(dimensions):
        for column, value in enumerate(values):
            changed = code.clone()
            changed[step, 0, number] = value
            torch.testing.assert_close(images[row, column][None], decode(model, changed, one.labels, one.lengths))


def test_a_plane_has_one_number_across_and_the_other_down(batch) -> None:
    model, values = vae(2), torch.tensor([-2.0, 0.0, 2.0])
    images = traverse_plane(model, torch.zeros(1, 1, 2), (0, 0), (0, 1), values)
    assert images.shape == (3, 3, 1, *SIZE.values())
    for down, second in enumerate(values):
        for across, first in enumerate(values):
            expected = decode(model, torch.stack([first, second]).view(1, 1, 2))
            torch.testing.assert_close(images[down, across][None], expected)


def test_kl_by_dimension_is_torchs_and_sums_to_the_kl(batch) -> None:
    model = vae()
    parts = [Batch(*part) for part in zip(*(tensor.split(4) for tensor in batch), strict=True)]
    found = kl_by_dimension(model, parts)
    with torch.no_grad():
        mu, log_sigma = model.posterior(batch.image)
        output = model(*batch, torch.zeros(1, COUNT, 3))
    expected = kl_divergence(Normal(mu, log_sigma.exp()), Normal(0, 1)).mean(0)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(), output.kl.mean())


def test_active_units_vary_over_images() -> None:
    codes = torch.randn(2, 5000, 4) * torch.tensor([[1.0, 0.02, 0.2, 0.0], [0.09, 0.11, 0.01, 3.0]])[:, None]
    assert active_units(codes) == 4  # 1, 0.2, 0.11 and 3, squared above 0.01
    torch.testing.assert_close(code_variance(codes)[0, 0], codes[0, :, 0].var())
    assert largest_dimensions(code_variance(codes), 3) == [(1, 3), (0, 0), (0, 2)]
    assert largest_dimensions(torch.tensor([[1.0, 2.0], [2.0, 0.0]]), 99) == [(0, 1), (1, 0), (0, 0), (1, 1)]


def test_codes_of_one_or_two_numbers_lie_where_they_are() -> None:
    one, two = torch.randn(1, 5, 1), torch.randn(2, 5, 1)
    assert torch.equal(places_of_codes(one), one[0])
    assert torch.equal(places_of_codes(two), torch.cat([two[0], two[1]], dim=1))


def test_longer_codes_lie_with_their_neighbours_and_always_at_the_same_places() -> None:
    groups = torch.arange(40) % 2
    codes = torch.randn(2, 40, 3) + 20 * groups[None, :, None]
    places = places_of_codes(codes)
    assert places.shape == (40, 2)
    assert torch.equal(places, places_of_codes(codes))
    distances = torch.cdist(places, places).fill_diagonal_(math.inf)
    assert torch.equal(groups[distances.argmin(1)], groups)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda batch: codes_between(*torch.zeros(2, 1, 2, 3), 1), "takes at least 2 steps, got 1"),
        (
            lambda batch: interpolate(vae(), batch, Batch(*(tensor[:3] for tensor in batch)), 3),
            r"as many images with as many labels \(B, L\), got \(7, 2\) and \(3, 2\)",
        ),
        (lambda batch: decode(draw(), torch.zeros(4, 2, 3)), "a DRAW model decodes with the labels and lengths"),
        (
            lambda batch: traverse(vae(), torch.zeros(1, 1, 3), [(0, 3)], torch.zeros(2)),
            r"no number 3 at step 0 of a code: it has 3 at each of 1 step\(s\), all from 0",
        ),
        (
            lambda batch: traverse(vae(), torch.zeros(1, 1, 3), [(1, 0)], torch.zeros(2)),
            "no number 0 at step 1 of a code",
        ),
        (
            lambda batch: traverse_plane(vae(), torch.zeros(1, 1, 3), (0, 0), (0, -1), torch.zeros(2)),
            "no number -1 at step 0 of a code",
        ),
        (lambda batch: active_units(torch.zeros(1, 1, 3)), "a variance over images takes at least 2 of them, got 1"),
        (
            lambda batch: places_of_codes(torch.full((1, 12, 3), math.nan)),
            "codes are too large or not finite: train again",
        ),
        (lambda batch: places_of_codes(torch.full((1, 12, 1), 1e30)), "codes are too large or not finite: train again"),
        (lambda batch: places_of_codes(torch.zeros(1, 9, 3)), "t-SNE takes at least 10 images, got 9: give more"),
    ],
)
def test_what_cannot_be_is_refused(call, message: str, batch) -> None:
    with pytest.raises(FastdrawError, match=message):
        call(batch)
