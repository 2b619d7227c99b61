"""Cells and multi-digit images: what stands where, and that a batch depends on (seed, index) alone."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fastdraw.data import DigitCells, MultiDigits, load_cells
from fastdraw.data.cells import to_cell
from fastdraw.errors import FastdrawError

MIXTURE = (0.4, 0.3, 0.2, 0.1)
METHODS = ["batch", "mixed_batch"]


@pytest.fixture(scope="module")
def digits():
    return load_cells(None, "test")


@pytest.fixture(scope="module")
def coloured():
    """Ten cells, each filled with its own grey, so that a slot tells its label."""
    labels = torch.arange(10)
    return DigitCells((labels * 20 + 20).byte()[:, None, None].expand(10, 32, 16).contiguous(), labels)


@pytest.mark.parametrize(
    ("ink", "expected"),
    [((20, 10), (4, 28, 2, 14)), ((20, 20), (8, 23, 0, 15)), ((20, 3), (4, 28, 6, 10)), ((1, 28), (15, 16, 0, 15))],
    ids=["high", "wide", "thin", "flat"],
)
def test_to_cell_fits_ink_into_slot(ink, expected):
    image = np.zeros((28, 28), np.uint8)
    image[: ink[0], : ink[1]] = 255

    rows, columns = np.nonzero(to_cell(image))

    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == expected


def test_to_cell_does_not_depend_on_the_place_of_the_ink(digits):
    ink = digits.cells[0].numpy()
    image = np.zeros((40, 40), np.uint8)
    image[:32, :16] = ink

    np.testing.assert_array_equal(to_cell(image), to_cell(np.roll(image, (5, 17), (0, 1))))


def test_cells_have_the_size_that_was_promised(digits):
    inked = digits.cells > 0
    heights = inked.any(2).sum(1)
    widths = inked.any(1).sum(1)

    assert digits.cells.shape == (2000, 32, 16)
    assert digits.cells.dtype == torch.uint8
    assert digits.labels.dtype == torch.int64
    assert heights.max() <= 24
    assert widths.max() <= 15


@pytest.mark.parametrize("method", METHODS)
def test_batch_depends_on_seed_and_index_alone(digits, method):
    first, again = (MultiDigits(digits, MIXTURE, 20, seed=3) for _ in range(2))
    draw = getattr(first, method)
    expected = draw(7)
    for index in (0, 8, 7):
        draw(index)

    assert_close(getattr(again, method)(7), expected, rtol=0, atol=0)
    assert not torch.equal(draw(8).image, expected.image)
    assert not torch.equal(getattr(MultiDigits(digits, MIXTURE, 20, seed=4), method)(7).image, expected.image)


def test_batch_leaves_global_random_state_alone(digits):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    MultiDigits(digits, MIXTURE, 20, seed=0).batch(0)

    assert_close(torch.rand(1), expected, rtol=0, atol=0)


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_batch_aligns_digits_right(digits, length):
    image, labels, lengths = MultiDigits(digits, [float(n == length) for n in (1, 2, 3, 4)], 30, seed=0).batch(0)

    assert image.shape == (30, 1, 32, 64)
    assert image.dtype == torch.float32
    assert labels.shape == (30, length)
    assert (lengths == length).all()
    assert (image[..., : 64 - 16 * length] == 0).all()
    known = {cell.numpy().tobytes(): int(label) for cell, label in zip(digits.cells, digits.labels, strict=True)}
    for sample in range(30):
        for place in range(length):
            slot = image[sample, 0, :, 64 - 16 * (length - place) :][:, :16]
            assert known[(slot * 255).round().byte().numpy().tobytes()] == labels[sample, place]


def test_mixed_batch_aligns_each_image_by_its_own_length(coloured):
    image, labels, lengths = MultiDigits(coloured, MIXTURE, 200, seed=0).mixed_batch(0)

    assert labels.shape == (200, 4)
    assert lengths.unique().tolist() == [1, 2, 3, 4]
    for sample in range(200):
        length = int(lengths[sample])
        slots = [round(float(image[sample, 0, 16, 16 * slot + 8]) * 255) for slot in range(4)]
        asked = [20 * int(digit) + 20 for digit in labels[sample, :length]]
        assert slots == [0] * (4 - length) + asked
        assert (labels[sample, length:] == 0).all()


def test_mixed_batch_pads_to_its_longest_image(digits):
    _, labels, lengths = MultiDigits(digits, (1, 1, 0, 0), 50, seed=0).mixed_batch(0)

    assert labels.shape == (50, 2)
    assert lengths.max() == 2


def test_mixed_batch_follows_the_mixture(digits):
    lengths = MultiDigits(digits, [4, 3, 2, 1], 20_000, seed=0).mixed_batch(0).lengths

    assert_close(lengths.bincount(minlength=5)[1:] / 20_000, torch.tensor(MIXTURE), rtol=0, atol=0.015)


def test_batch_follows_the_mixture(coloured):
    data = MultiDigits(coloured, MIXTURE, 1, seed=0)
    lengths = torch.cat([data.batch(index).lengths for index in range(4000)])

    assert_close(lengths.bincount(minlength=5)[1:] / 4000, torch.tensor(MIXTURE), rtol=0, atol=0.03)


def test_batch_draws_uniformly_over_the_images(coloured):
    labels = MultiDigits(coloured, (0, 0, 0, 1), 20_000, seed=0).batch(0).labels

    assert_close(labels.flatten().bincount() / 80_000, torch.full((10,), 0.1), rtol=0, atol=0.006)


def test_mean_image_is_the_mean_of_many(digits):
    data = MultiDigits(digits, MIXTURE, 20_000, seed=0)

    assert data.mean_image().dtype == torch.float32
    assert_close(data.mixed_batch(0).image.mean(0), data.mean_image(), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lengths": (1, 1, 1)}, r"lengths must be 4 weights .* got \[1, 1, 1\]"),
        ({"lengths": (1, -1, 1, 0)}, "lengths must be weights >= 0"),
        ({"lengths": (1, float("nan"), 0, 0)}, "lengths must be weights >= 0"),
        ({"lengths": (1, float("inf"), 0, 0)}, "lengths must be weights >= 0"),
        ({"lengths": (0, 0, 0, 0)}, "lengths must be weights >= 0"),
        ({"batch_size": 0}, "batch size must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
    ids=["three", "negative", "nan", "infinite", "all-zero", "batch-size", "seed"],
)
def test_multidigits_rejects_settings(coloured, settings, message):
    with pytest.raises(FastdrawError, match=message):
        MultiDigits(coloured, **{"lengths": MIXTURE, "batch_size": 2, "seed": 0, **settings})
