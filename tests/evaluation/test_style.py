"""Style: strokes of known level, width and slant, and measures of known correlation."""

import math

import pytest
import torch
from torch.testing import assert_close

from fastdraw.data import MultiDigits, load_cells
from fastdraw.errors import FastdrawError
from fastdraw.evaluation.style import MEASURES, consistency, style, style_consistency

SLOT = 16


def stroke(background=0.0, ink=1.0, thickness=3, slant=0.0, channels=1):
    """One image (1, C, 32, 64) with the same straight stroke, 24 pixels long, in all four slots."""
    y, x = torch.arange(32.0)[:, None], torch.arange(64.0) % SLOT
    beside = (x - 7.5 + slant * (y - 15.5)).abs() <= thickness / 2
    inside = beside & ((y - 15.5).abs() < 12)
    return torch.where(inside, ink, background).expand(1, channels, -1, -1)


@pytest.mark.parametrize(("background", "ink"), [(0.0, 1.0), (0.8, 0.3), (0.25, 0.5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_style_tells_background_and_stroke(background, ink, channels):
    measures = style(stroke(background, ink, channels=channels), 3, SLOT)

    assert list(measures) == list(MEASURES)
    assert_close(measures["background"], torch.full((1, 3), background).double(), atol=1e-6, rtol=0)
    assert_close(measures["stroke"], torch.full((1, 3), ink).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("width", [2, 4, 6])
@pytest.mark.parametrize(("background", "ink"), [(0.0, 1.0), (0.8, 0.3)])
def test_style_tells_the_width_of_a_stroke(width, background, ink):
    found = style(stroke(background, ink, thickness=width), 1, SLOT)["thickness"]

    # Twice the area over the edge, which is that of a bar of width x 24, a corner of sqrt(2) instead of 2.
    expected = 2 * width * 24 / (2 * width + 2 * 24 - 2 + math.sqrt(2))
    assert_close(found, torch.full((1, 1), expected).double())


def test_thickness_of_a_blurred_stroke_is_that_of_a_sharp_one():
    """A ridge of height 1 and area 2 has the equivalent width 2."""
    x = torch.arange(64.0) % SLOT - 7
    ridge = torch.exp(-math.pi * x**2 / 4).expand(1, 1, 32, 64)

    found = style(ridge, 2, SLOT)["thickness"]

    assert_close(found, torch.full((1, 2), 2.0).double(), rtol=0.12, atol=0)


@pytest.mark.parametrize("slant", [-0.25, 0.0, 0.25])
def test_style_tells_the_slant(slant):
    found = style(stroke(slant=slant), 4, SLOT)["slant"]

    assert_close(found, torch.full((1, 4), slant).double(), atol=0.03, rtol=0)


def test_style_of_an_empty_slot_is_finite():
    measures = style(torch.full((2, 1, 32, 64), 0.5), 2, SLOT)

    for name, expected in {"background": 0.5, "stroke": 0.5, "thickness": 0.0, "slant": 0.0}.items():
        assert_close(measures[name], torch.full((2, 2), expected).double())


def test_style_looks_at_the_slots_from_the_right():
    images = torch.cat([stroke(0.0, 0.5)[..., :48], stroke(0.0, 1.0)[..., 48:]], -1)

    assert style(images, 2, SLOT)["stroke"].tolist() == [[0.5, 1.0]]


@pytest.mark.parametrize("length", [0, 5])
def test_style_takes_digits_that_fit(length):
    with pytest.raises(FastdrawError, match=f"expected 1 to 4 digits of 16 pixels in 64, got {length}"):
        style(torch.zeros(1, 1, 32, 64), length, SLOT)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("digits", ["same", "random"])
def test_consistency_finds_the_correlation(correlation, digits):
    torch.manual_seed(0)
    labels = torch.tensor([1, 5, 7]).expand(1000, -1) if digits == "same" else torch.randint(10, (1000, 3))
    of_image, of_slot = torch.randn(1000, 1), torch.randn(1000, 3)
    values = math.sqrt(correlation) * of_image + math.sqrt(1 - correlation) * of_slot
    # What a digit brings by itself, and its place, is no style.
    found = consistency(values + labels + torch.tensor([10.0, 0.0, -10.0]), labels)

    assert found.icc == pytest.approx(correlation, abs=0.05)
    assert found.low - 0.01 < correlation < found.high + 0.01
    assert found.high - found.low < 0.12
    assert found.within == pytest.approx(math.sqrt(1 - correlation), abs=0.05)
    assert found.between == pytest.approx(math.sqrt(correlation + (1 - correlation) / 3), abs=0.05)
    assert found.images == 1000


def test_consistency_is_exact_on_two_images():
    # Less the mean of each place: (1, 3) and (-1, -3); mean squares 2 * 8 between and 4 within.
    found = consistency(torch.tensor([[1.0, 3.0], [-1.0, -3.0]]), torch.zeros(2, 2, dtype=torch.int64))

    assert found.icc == pytest.approx((16 - 4) / (16 + 4))
    assert (found.between, found.within) == pytest.approx((math.sqrt(8), 2))


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_constant_measure_has_no_correlation(value):
    digits = torch.tensor([3, 4]).expand(7, -1)

    assert consistency(torch.full((7, 2), value), digits) == (None, None, None, 0.0, 0.0, 7)


def test_one_image_that_differs_is_no_division_by_zero():
    measure = torch.zeros(20, 2)
    measure[3] = 0.5
    found = consistency(measure, torch.zeros(20, 2, dtype=torch.int64))

    assert found.icc == pytest.approx(1)
    assert (found.low, found.high) == pytest.approx((0, 1))


@pytest.mark.parametrize("shape", [(1, 3), (5, 1)])
def test_consistency_takes_two_images_and_two_slots(shape):
    with pytest.raises(FastdrawError, match=f"two images and two slots at least, got {shape[0]} and {shape[1]}"):
        consistency(torch.rand(shape), torch.zeros(shape, dtype=torch.int64))


def test_digits_of_many_writers_have_no_common_style():
    images, digits, _ = MultiDigits(load_cells(None, "test"), [0, 0, 1, 0], 1000, seed=0).batch(0)

    for name, found in style_consistency(images, digits, SLOT).items():
        assert found.icc is None or found.low - 0.03 < 0 < found.high + 0.03, name


def test_digits_of_one_writer_have():
    """Every image is dimmed and lightened by its own amount, as photographs are."""
    images, digits, _ = MultiDigits(load_cells(None, "test"), [0, 1, 0, 0], 300, seed=0).batch(0)
    light, contrast = torch.rand(2, 300, 1, 1, 1)
    found = style_consistency(0.3 * light + (0.2 + 0.5 * contrast) * images, digits, SLOT)

    assert found["background"].low > 0.9
    assert found["stroke"].low > 0.9
    assert abs(found["slant"].icc) < 0.15
